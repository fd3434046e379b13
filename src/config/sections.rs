//! The typed sections: one struct for each `[section]`, in the order of `config/default.toml`.
//!
//! The defaults live in that file alone. A field that is an `Option` is a key without a default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::de;
use super::{QualifiedName, Secret};

/// `[database]`: where the database is and how many connections work on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Connection of the workers; `None` means libpq's defaults.
    #[serde(default, deserialize_with = "de::optional")]
    pub url: Option<Secret>,
    /// Connection of the listener, past a pooler; `None` means `url`.
    #[serde(default, deserialize_with = "de::optional")]
    pub listen_url: Option<Secret>,
    /// Value of the `database` label of every metric.
    pub name: String,
    /// Tenants worked on at the same time.
    pub workers: u16,
    /// Server settings of the worker sessions.
    #[serde(deserialize_with = "de::settings")]
    pub session_settings: BTreeMap<String, String>,
}

/// `[registry]`: the application's table of tenants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The table or view.
    pub table: QualifiedName,
    /// Column with the tenant's id.
    pub id_column: String,
    /// Column with a name for people.
    #[serde(default, deserialize_with = "de::optional")]
    pub name_column: Option<String>,
    /// Column with the schema's name, in place of `schema_template`.
    #[serde(default, deserialize_with = "de::optional")]
    pub schema_column: Option<String>,
    /// Name of a tenant's schema, with `{id}` in it.
    pub schema_template: String,
    /// SQL condition that tells tenants from other rows.
    #[serde(default, deserialize_with = "de::optional")]
    pub filter: Option<String>,
}

/// `[logins]`: the application's table of logins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logins {
    /// Table that gets a row or an update when somebody logs in.
    #[serde(default, deserialize_with = "de::optional")]
    pub table: Option<QualifiedName>,
    /// Column of that table with the tenant's id.
    #[serde(default, deserialize_with = "de::optional")]
    pub tenant_column: Option<String>,
    /// Columns whose update counts as a login.
    #[serde(deserialize_with = "de::list")]
    pub update_columns: Vec<String>,
}

/// `[schema]`: who owns and may use the schemas that tenantd creates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Role that owns them.
    #[serde(default, deserialize_with = "de::optional")]
    pub owner: Option<String>,
    /// Roles that get USAGE on them.
    #[serde(deserialize_with = "de::list")]
    pub usage: Vec<String>,
}

/// `[migrations]`: the migration set and how its files run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrations {
    /// Directory of the set.
    pub dir: PathBuf,
    /// Role that runs the files.
    #[serde(default, deserialize_with = "de::optional")]
    pub role: Option<String>,
    /// `search_path` while a file runs; the first entry is `{schema}`.
    #[serde(deserialize_with = "de::list")]
    pub search_path: Vec<String>,
}

/// `[rollout]`: how a new set reaches the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Released at once, or by a person.
    #[serde(deserialize_with = "de::choice")]
    pub mode: RolloutMode,
    /// Tenants a second; 0 means no limit.
    pub max_rate: u32,
    /// What a crash of the server may take back.
    #[serde(deserialize_with = "de::choice")]
    pub durability: Durability,
    /// How far a standby may lag before a rollout waits for it; zero: however far.
    #[serde(with = "de::duration")]
    pub max_replication_lag: Duration,
    /// How many sessions may wait for locks of ours before a rollout stands back; 0: any number.
    pub max_waiting: u32,
}

/// How the transactions of a rollout are committed. A crash takes back files and their records together, so
/// it only means work to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Each waits for the disk.
    Strict,
    /// None waits; the disk is waited for before success is reported.
    Fast,
}

/// When a loaded set is released to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutMode {
    /// At once.
    Auto,
    /// By `tenantd release`.
    Manual,
}

/// `[heal]`: what may be repaired without a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heal {
    /// What to do with a schema whose tables are gone.
    #[serde(deserialize_with = "de::choice")]
    pub lost: LostPolicy,
}

/// What to do with a schema that the ledger filled and whose tables are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LostPolicy {
    /// Leave it for a person.
    Hold,
    /// Rename the remains and build it again.
    Rebuild,
}

/// `[sweep]`: the periodic scans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Time between two head checks.
    #[serde(with = "de::duration")]
    pub interval: Duration,
    /// Time between two full sweeps.
    #[serde(with = "de::duration")]
    pub full_interval: Duration,
    /// Share of the tenants, 0 to 1, whose catalog each full sweep compares with a fresh schema's.
    pub verify_share: f64,
    /// Time between two head checks where NOTIFY does not work.
    #[serde(with = "de::duration")]
    pub poll_interval: Duration,
}

/// `[retry]`: attempts and backoff.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts before an error of unknown kind means quarantine.
    pub attempts: u32,
    /// Wait before the second attempt.
    #[serde(with = "de::duration")]
    pub initial: Duration,
    /// Longest wait between two attempts.
    #[serde(with = "de::duration")]
    pub max: Duration,
}

/// `[locks]`: bounds on waiting for locks and on holding them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    /// Longest wait for a table lock.
    #[serde(with = "de::duration")]
    pub lock_timeout: Duration,
    /// Longest a file may keep a strong lock on an existing table.
    #[serde(with = "de::duration")]
    pub max_hold: Duration,
    /// Longest run time of a statement.
    #[serde(with = "de::duration")]
    pub statement_timeout: Duration,
}

/// `[spares]`: schemas migrated ahead of need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spares {
    /// How many are kept ready.
    pub keep: u32,
}

/// `[http]`: the HTTP endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address to bind; `None` switches the server off.
    #[serde(default, deserialize_with = "de::address")]
    pub listen: Option<SocketAddr>,
}

/// `[log]`: log level and format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Level, or a filter with levels per target.
    pub level: String,
    /// How a line looks.
    #[serde(deserialize_with = "de::choice")]
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}
