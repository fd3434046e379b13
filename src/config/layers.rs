//! Merges the layers, refuses keys that nobody knows, and reads the sections.
//!
//! Each layer is kept beside the merged tree, so that a message can say where a value came from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use config::{Config as Tree, File, FileFormat, Source, Value, ValueKind};
use serde::de::DeserializeOwned;

use super::layer::{Layer, Table, internal};
use super::unknown::{self, Known};
use super::{Config, ConfigError, DEFAULT_TOML};

/// The built-in configuration.
pub(super) fn defaults() -> Config {
    default_tree()
        .and_then(Tree::try_deserialize)
        .expect("the built-in config/default.toml is complete, a test reads it")
}

/// Merges all layers. What is wrong with keys and types is returned beside a configuration that has
/// defaults in their place, so that the caller can go on and find what else is wrong.
pub(super) fn read(
    file: Option<&Path>,
    env: HashMap<String, String>,
    overrides: Vec<(String, String)>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = file {
        layers.push(Layer::file(path)?);
    }
    layers.push(Layer::environment(env)?);
    layers.push(Layer::flags(overrides, &mut problems)?);

    let known = known_keys();
    for layer in &layers {
        unknown::report(layer, &known, &mut problems);
    }
    let mut builder = Tree::builder().add_source(default_tree().map_err(internal)?);
    for layer in &layers {
        builder = builder.add_source(layer.tree.clone());
    }
    let merged = builder.build().and_then(|tree| tree.collect());
    let mut reader = Reader {
        merged: merged.map_err(internal)?,
        defaults: default_tree()
            .and_then(|tree| tree.collect())
            .map_err(internal)?,
        known,
        layers,
        problems,
    };
    Ok((reader.config(), reader.problems))
}

fn default_tree() -> Result<Tree, config::ConfigError> {
    Tree::builder()
        .add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml))
        .build()
}

/// The sections and keys that exist, read off the structs.
pub(super) fn known_keys() -> Known {
    let mut known = Known::new();
    if let Ok(serde_json::Value::Object(sections)) = serde_json::to_value(defaults()) {
        for (section, keys) in sections {
            let keys = keys
                .as_object()
                .map(|keys| keys.keys().cloned().collect())
                .unwrap_or_default();
            known.insert(section, keys);
        }
    }
    known
}

/// Reads the sections out of the merged tree.
struct Reader {
    merged: Table,
    defaults: Table,
    known: Known,
    layers: Vec<Layer>,
    problems: Vec<String>,
}

impl Reader {
    fn config(&mut self) -> Config {
        let default = defaults();
        Config {
            database: self.section("database", default.database),
            registry: self.section("registry", default.registry),
            logins: self.section("logins", default.logins),
            schema: self.section("schema", default.schema),
            migrations: self.section("migrations", default.migrations),
            rollout: self.section("rollout", default.rollout),
            heal: self.section("heal", default.heal),
            sweep: self.section("sweep", default.sweep),
            retry: self.section("retry", default.retry),
            locks: self.section("locks", default.locks),
            spares: self.section("spares", default.spares),
            http: self.section("http", default.http),
            log: self.section("log", default.log),
        }
    }

    /// Reads one section key by key on top of its defaults, so that one wrong value hides no other.
    fn section<T: DeserializeOwned>(&mut self, name: &str, default: T) -> T {
        let Some(ValueKind::Table(mut good)) = self.defaults.remove(name).map(|value| value.kind)
        else {
            return default;
        };
        let mut section = default;
        let written = match self.merged.remove(name).map(|value| value.kind) {
            Some(ValueKind::Table(table)) => table,
            _ => return section, // reported: the section is not a table
        };
        for (key, value) in written.into_iter().collect::<BTreeMap<_, _>>() {
            if !self.known.get(name).is_some_and(|keys| keys.contains(&key)) {
                continue; // reported already
            }
            let mut candidate = good.clone();
            candidate.insert(key.clone(), value);
            match Value::new(None, candidate.clone()).try_deserialize() {
                Ok(read) => {
                    section = read;
                    good = candidate;
                }
                Err(error) => self.report(name, &key, &error),
            }
        }
        section
    }

    fn report(&mut self, section: &str, key: &str, error: &config::ConfigError) {
        let place = self
            .layers
            .iter()
            .rev()
            .find(|layer| layer.has(section, key))
            .map_or_else(String::new, |layer| layer.origin.place(section, key));
        let reason = reason(error);
        self.problems
            .push(format!("`{key}` in [{section}] {place}: {reason}"));
    }
}

/// What is wrong with a value, without the key and origin that the caller knows better.
fn reason(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::Type {
            unexpected,
            expected,
            ..
        } => format!("expected {expected}, found {unexpected}"),
        config::ConfigError::At { error, .. } => reason(error),
        other => other.to_string(),
    }
}
