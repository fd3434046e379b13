//! What an operator can set, where each value comes from, and what is refused before anything runs.
//!
//! Four layers, later ones win: the built-in `config/default.toml` (which documents every key), the
//! file given with `--config`, the environment (`TENANTD_SECTION__KEY`), and flags. Every problem of
//! all layers is reported at once, with the place it came from:
//!
//! ```text
//! default.toml ─┐
//! file ─────────┤  layers     merge, refuse unknown keys     ─> sections ─> validate ─> Config
//! environment ──┤             (with the origin of each)         (typed)     (across keys)
//! flags ────────┘
//! ```
//!
//! Connection strings are held as [`Secret`], so that printing a [`Config`] never shows a password.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

mod de;
mod layer;
mod layers;
mod name;
mod secret;
mod sections;
pub(crate) mod suggest;
mod unknown;
mod validate;

pub use name::{ParseNameError, QualifiedName};
pub use secret::Secret;
pub use sections::{
    Database, Durability, Heal, Http, Locks, Log, LogFormat, Logins, LostPolicy, Migrations,
    Registry, Retry, Rollout, RolloutMode, Schema, Spares, Sweep,
};

/// The defaults, and the documentation of every key.
pub const DEFAULT_TOML: &str = include_str!("../config/default.toml");

/// The whole configuration of one daemon, validated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the database is and how many connections work on it.
    pub database: Database,
    /// The application's table of tenants.
    pub registry: Registry,
    /// The application's table of logins.
    pub logins: Logins,
    /// Ownership of new tenant schemas.
    pub schema: Schema,
    /// The migration set and how its files run.
    pub migrations: Migrations,
    /// How a new set reaches the fleet.
    pub rollout: Rollout,
    /// What may be repaired without a person.
    pub heal: Heal,
    /// The periodic scans.
    pub sweep: Sweep,
    /// Attempts and backoff.
    pub retry: Retry,
    /// Bounds on waiting for locks and holding them.
    pub locks: Locks,
    /// Schemas migrated ahead of need.
    pub spares: Spares,
    /// The HTTP endpoints.
    pub http: Http,
    /// Log level and format.
    pub log: Log,
}

impl Config {
    /// Loads the configuration of this process: defaults, `file`, the process environment, and
    /// `overrides` (pairs of a dotted key such as `sweep.interval` and its value, from flags).
    ///
    /// # Errors
    /// When the file cannot be read or parsed, and when any key or value is refused.
    pub fn load(
        file: Option<&Path>,
        overrides: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect();
        Self::load_from(file, env, overrides)
    }

    /// As [`Config::load`], with the environment handed in.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from(
        file: Option<&Path>,
        env: HashMap<String, String>,
        overrides: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let (config, mut problems) = layers::read(file, env, overrides)?;
        validate::check(&config, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        layers::defaults()
    }
}

/// Why a configuration was refused. Never contains the value of a connection string.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("read configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("parse configuration file {}{}: {message}", path.display(), at_line(*line))]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
        /// What is wrong there.
        message: String,
    },
    /// Keys or values are refused: one sentence for each problem.
    #[error("{}", list(.0))]
    Invalid(Vec<String>),
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

fn list(problems: &[String]) -> String {
    match problems {
        [only] => format!("configuration: {only}"),
        many => format!(
            "configuration has {} problems:\n  - {}",
            many.len(),
            many.join("\n  - ")
        ),
    }
}

#[cfg(test)]
mod tests;
