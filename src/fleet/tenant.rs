//! One tenant as the census saw it, and what a person does about it.

use std::time::Duration;

use tokio_postgres::Row;

use super::{
    breaker,
    census::Release,
    glance::Lagging,
    spare::Spare,
    state::{Group, State},
};

/// One tenant as the census saw it.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The registry's id, as text.
    pub id: String,
    /// The registry's name, where one is configured.
    pub name: Option<String>,
    /// The schema it should have; empty when the registry gives none.
    pub schema: String,
    /// The schema's pg_namespace oid, where it exists.
    pub namespace: Option<u32>,
    /// Whether the schema holds tables.
    pub has_tables: bool,
    /// What follows from all of it.
    pub state: State,
    /// How many files of the set the schema has, where its list is a prefix of the set.
    pub ordinal: Option<usize>,
    /// The last version the ledger knows.
    pub version: Option<String>,
    /// The digest the ledger knows.
    pub digest: Option<String>,
    /// The state the ledger last noted.
    pub known_state: Option<String>,
    /// The digest of the schema's stamp.
    pub stamp: Option<String>,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Time to the next attempt by itself; zero when due.
    pub next_in: Option<Duration>,
    /// The last error, or why the tenant is refused.
    pub error: Option<String>,
    /// Its SQLSTATE.
    pub sqlstate: Option<String>,
    /// The version it happened in.
    pub error_version: Option<String>,
    /// When it happened (UTC).
    pub error_at: Option<String>,
    /// When the schema was last migrated (UTC).
    pub migrated_at: Option<String>,
    /// Who holds it.
    pub held_by: Option<String>,
    /// Why.
    pub held_why: Option<String>,
    /// The first pending version that is stopped for the whole fleet.
    pub stopped: Option<String>,
    /// Why the whole fleet is paused, if it is.
    pub paused: Option<String>,
}

impl Tenant {
    /// From a row of the census.
    pub(super) fn from_row(row: &Row) -> Self {
        let state: &str = row.get("state");
        Self {
            id: row.get("tenant_id"),
            name: row.get("name"),
            schema: row.get::<_, Option<String>>("schema").unwrap_or_default(),
            namespace: row.get("namespace"),
            has_tables: row.get("has_tables"),
            state: State::from_name(state).expect("census.sql names states of ours only"),
            ordinal: row
                .get::<_, Option<i32>>("ordinal")
                .map(|n| n.unsigned_abs() as usize),
            version: row.get("version"),
            digest: row.get("digest"),
            known_state: row.get("known_state"),
            stamp: row.get("stamp"),
            attempts: row
                .get::<_, Option<i32>>("attempts")
                .unwrap_or(0)
                .unsigned_abs(),
            next_in: row
                .get::<_, Option<f64>>("next_in")
                .map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
            error: row.get("error"),
            sqlstate: row.get("error_sqlstate"),
            error_version: row.get("error_version"),
            error_at: row.get("error_at"),
            migrated_at: row.get("migrated_at"),
            held_by: row.get("held_by"),
            held_why: row.get("held_why"),
            stopped: row.get("stopped"),
            paused: row.get("paused"),
        }
    }

    /// One that neither the ledger nor the catalog knows.
    pub(super) fn newcomer(id: String, schema: String, name: Option<String>) -> Self {
        Self {
            name,
            ordinal: Some(0),
            ..Self::unknown(id, schema)
        }
    }

    /// One that plainly lags, at this version with this digest.
    pub(super) fn behind(lagging: Lagging, version: String, digest: String) -> Self {
        Self {
            has_tables: true,
            state: State::Behind,
            namespace: Some(lagging.namespace),
            ordinal: Some(lagging.ordinal),
            version: Some(version),
            stamp: Some(digest.clone()),
            digest: Some(digest),
            ..Self::unknown(lagging.id, lagging.schema)
        }
    }

    /// A spare as if it were a tenant of its schema's name, for who builds and migrates it. Nobody uses its tables,
    /// so it takes all that it lacks in one transaction, as a schema without tables does.
    pub fn spare(schema: String, spare: Option<&Spare>) -> Self {
        Self {
            namespace: spare.map(|it| it.namespace),
            ordinal: spare.map_or(Some(0), |it| it.ordinal),
            version: spare.map(|it| it.version.clone()),
            digest: spare.map(|it| it.digest.clone()),
            ..Self::unknown(schema.clone(), schema)
        }
    }

    fn unknown(id: String, schema: String) -> Self {
        Self {
            id,
            name: None,
            schema,
            namespace: None,
            has_tables: false,
            state: State::Unprovisioned,
            ordinal: None,
            version: None,
            digest: None,
            known_state: None,
            stamp: None,
            attempts: 0,
            next_in: None,
            error: None,
            sqlstate: None,
            error_version: None,
            error_at: None,
            migrated_at: None,
            held_by: None,
            held_why: None,
            stopped: None,
            paused: None,
        }
    }

    /// What a person does about its state: one sentence with the exact next command.
    pub fn advice(&self) -> String {
        let id = &self.id;
        let schema = &self.schema;
        match self.state {
            State::Current => "nothing: it is at head".into(),
            State::Ahead => "nothing: a newer release was here; it is left alone".into(),
            state if state.group() == Group::Healing && self.stopped.is_some() => {
                let why = self.waits_for_release().unwrap_or_default();
                format!("{why}; on this tenant alone with `tenantd migrate {id}`")
            }
            state
                if state.group() == Group::Healing
                    && let Some(why) = self.waits_for_resume() =>
            {
                format!("{why}, or for this tenant alone with `tenantd migrate {id}`")
            }
            State::Unprovisioned | State::Empty | State::Behind => {
                format!("nothing: the next sweep migrates it; at once with `tenantd migrate {id}`")
            }
            State::Blocked | State::Failed => {
                format!("nothing: it is tried again by itself; at once with `tenantd migrate {id}`")
            }
            State::Quarantined => {
                format!("mend its data or the migration file, then run `tenantd fix {id}`")
            }
            State::Modified => format!(
                "an applied file was changed, or one was added below an applied one: restore the files, or \
                 accept the set as it is with `tenantd adopt {id}`"
            ),
            State::Untracked => {
                format!(
                    "tenantd did not build it: if it is at head, run `tenantd adopt {id}`; else name its version with `--version`"
                )
            }
            State::Lost => format!(
                "its tables are gone: restore a backup, or build it anew (the remains are kept) with `tenantd fix {id} --rebuild`"
            ),
            State::Restored => {
                format!(
                    "schema {schema} is a restored or copied one: take it in by its stamp with `tenantd adopt {id}`"
                )
            }
            State::Held => format!(
                "held by {}: {}; let it go with `tenantd unhold {id}`",
                self.held_by.as_deref().unwrap_or("somebody"),
                self.held_why.as_deref().unwrap_or("no reason given")
            ),
            State::Refused => "change the schema's name in the registry".into(),
        }
    }

    /// Why nothing is done to it although files are pending: the breaker, in words.
    pub fn waits_for_release(&self) -> Option<String> {
        let version = self.stopped.as_ref()?;
        Some(format!(
            "version {version} is stopped, because it failed on too many tenants: {}",
            breaker::advice(version)
        ))
    }

    /// Why nothing is done to it until `tenantd resume`: a pause spares who has a schema already.
    pub fn waits_for_resume(&self) -> Option<String> {
        let why = self.paused.as_ref().filter(|_| self.digest.is_some())?;
        Some(format!(
            "the fleet was paused {why}; it goes on with `tenantd resume`"
        ))
    }

    /// How many files are pending, where that can be said.
    pub fn pending(&self, release: &Release) -> Option<usize> {
        match self.state {
            State::Current | State::Ahead => Some(0),
            State::Untracked | State::Restored | State::Modified | State::Refused => None,
            _ => self
                .ordinal
                .map(|ordinal| release.head.saturating_sub(ordinal)),
        }
    }
}
