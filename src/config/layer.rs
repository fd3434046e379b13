//! One layer: a file, the environment, or the flags, read into a tree that knows its origin.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use config::{Config as Tree, Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::ConfigError;

/// Prefix of the variables that are read.
const ENV_PREFIX: &str = "TENANTD_";
/// What stands between section and key in a variable. Variables without it, such as
/// `TENANTD_CONFIG`, belong to the command line and are no keys.
const ENV_SEPARATOR: &str = "__";

pub(super) type Table = Map<String, Value>;

/// Where a layer came from.
pub(super) enum Origin {
    File(PathBuf),
    Environment,
    Flags,
}

impl Origin {
    /// Says where `key` of `section` was written, in words for a message.
    pub(super) fn place(&self, section: &str, key: &str) -> String {
        match self {
            Self::File(path) => format!("in {}", path.display()),
            Self::Environment => {
                let name = format!("{section}{ENV_SEPARATOR}{key}").to_uppercase();
                format!("from {ENV_PREFIX}{name}")
            }
            Self::Flags => "from the command line".to_owned(),
        }
    }
}

/// One layer before it is merged.
pub(super) struct Layer {
    pub(super) origin: Origin,
    pub(super) tree: Tree,
    /// The same, taken apart.
    pub(super) table: Table,
}

impl Layer {
    fn new(origin: Origin, tree: Tree) -> Result<Self, ConfigError> {
        let table = tree.collect().map_err(internal)?;
        Ok(Self {
            origin,
            tree,
            table,
        })
    }

    pub(super) fn file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let text = text.trim_start_matches('\u{feff}');
        let tree = Tree::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .map_err(|error| parse_error(path, &error))?;
        Self::new(Origin::File(path.to_owned()), tree)
    }

    pub(super) fn environment(mut env: HashMap<String, String>) -> Result<Self, ConfigError> {
        env.retain(|name, _| {
            name.strip_prefix(ENV_PREFIX)
                .is_some_and(|key| key.contains(ENV_SEPARATOR))
        });
        // No try_parsing: it would turn a name such as 1e5 into a number. The sections read text.
        let source = Environment::with_prefix(ENV_PREFIX.trim_end_matches('_'))
            .prefix_separator("_")
            .separator(ENV_SEPARATOR)
            .source(Some(env.into_iter().collect()));
        let tree = Tree::builder().add_source(source).build();
        Self::new(Origin::Environment, tree.map_err(internal)?)
    }

    pub(super) fn flags(
        overrides: Vec<(String, String)>,
        problems: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let mut builder = Tree::builder();
        for (key, value) in overrides {
            match builder.clone().set_override(&key, value) {
                Ok(next) => builder = next,
                Err(_) => problems.push(format!(
                    "`{key}` from the command line is no key; write `section.key`"
                )),
            }
        }
        Self::new(Origin::Flags, builder.build().map_err(internal)?)
    }

    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        matches!(self.table.get(section).map(|value| &value.kind),
            Some(ValueKind::Table(keys)) if keys.contains_key(key))
    }

    /// Names the layer alone, where there is no key to name.
    pub(super) fn source(&self) -> String {
        match self.origin {
            Origin::Environment => "from the environment".to_owned(),
            _ => self.origin.place("", ""),
        }
    }
}

/// Keeps line and reason of a TOML error and drops its excerpt, which could show a password.
fn parse_error(path: &Path, error: &config::ConfigError) -> ConfigError {
    let text = match error {
        config::ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let position = text.strip_prefix("TOML parse error at line ");
    let line = position.and_then(|rest| rest.split(',').next()?.parse().ok());
    let is_excerpt = |line: &&str| {
        line.trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    let reason: Vec<&str> = text
        .lines()
        .skip(usize::from(position.is_some()))
        .filter(|line| !is_excerpt(line))
        .collect();
    ConfigError::Parse {
        path: path.to_owned(),
        line,
        message: reason.join("; "),
    }
}

/// An error of the `config` crate that no input is known to cause.
pub(super) fn internal(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(vec![error.to_string()])
}
