//! The census: what state each tenant is in, asked of registry, catalog and ledger in one query.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{
    registry::{Registry, Scope},
    state::State,
};
use crate::{
    error::{During, Result},
    migrations::{Migration, MigrationSet},
};

const CENSUS: &str = include_str!("census.sql");
const HEAD_CHECK: &str = include_str!("head_check.sql");

/// Columns of one tenant; times as seconds, so that only the database's clock is ever compared.
const TENANT: &str = "
SELECT tenant_id, name, schema, namespace, has_tables, state, ordinal, version, digest, attempts,
       EXTRACT(epoch FROM next_attempt - pg_catalog.now())::float8 AS next_in,
       coalesce(problem, error) AS error, error_sqlstate, error_version,
       pg_catalog.to_char(error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS error_at,
       pg_catalog.to_char(migrated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS migrated_at,
       held_by, held_why, known_state, stamp, pg_catalog.pg_backend_pid() AS backend
FROM judged ";

/// The set and how far of it is released to the fleet.
#[derive(Debug, Clone)]
pub struct Release {
    /// The loaded set.
    pub set: Arc<MigrationSet>,
    /// Ordinal of the released head.
    pub head: usize,
}

impl Release {
    /// All of a set.
    pub fn all(set: MigrationSet) -> Self {
        Self {
            head: set.files().len(),
            set: Arc::new(set),
        }
    }

    /// The released head.
    pub fn head(&self) -> &Migration {
        &self.set.files()[self.head - 1]
    }
}

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
    /// Process id of the session that asked.
    pub backend: i32,
    /// Who holds it.
    pub held_by: Option<String>,
    /// Why.
    pub held_why: Option<String>,
}

/// The numbers operators ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows of the registry.
    pub tenants: i64,
    /// Tenants whose schema exists.
    pub schemas_existing: i64,
    /// Tenants whose schema holds tables.
    pub schemas_with_tables: i64,
    /// Tenants whose schema exists and holds none.
    pub schemas_without_tables: i64,
    /// Tenants by state; every state is listed.
    pub by_state: std::collections::BTreeMap<State, i64>,
}

/// Asks the questions. Holds the rendered SQL and what of the set it compares with.
#[derive(Debug, Clone)]
pub struct Census {
    registry: Registry,
    head: String,
    digests: Vec<String>,
    versions: Vec<String>,
    checksums: Vec<String>,
}

impl Census {
    /// A census of this registry against this release.
    pub fn new(registry: Registry, release: &Release) -> Self {
        let of = |field: fn(&Migration) -> &String| -> Vec<String> {
            release
                .set
                .files()
                .iter()
                .map(|file| field(file).clone())
                .collect()
        };
        Self {
            registry,
            head: release.head().digest.clone(),
            digests: of(|file| &file.digest),
            versions: of(|file| &file.version),
            checksums: of(|file| &file.checksum),
        }
    }

    /// The registry it asks.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The tenant with this id. `None`: the registry has no such row.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenant(&self, client: &Client, id: &str) -> Result<Option<Tenant>> {
        let tail = format!("{TENANT} LIMIT 1");
        let rows = self.ask(client, Scope::Ids, &tail, &[id]).await;
        Ok(rows
            .during(format!("look up tenant {id}"))?
            .first()
            .map(tenant))
    }

    /// The tenants with these ids or schemas, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find(&self, client: &Client, names: &[&str]) -> Result<Vec<Tenant>> {
        let tail = format!("{TENANT} ORDER BY tenant_id COLLATE \"C\"");
        let rows = self.ask(client, Scope::Names, &tail, names).await;
        Ok(rows.during("look up tenants")?.iter().map(tenant).collect())
    }

    /// The head check: one page of the tenants that may need something by registry and ledger alone,
    /// after this id, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn behind(&self, client: &Client, after: &str, limit: u32) -> Result<Vec<Tenant>> {
        let sql = self.registry.render(HEAD_CHECK, Scope::All) + &format!("LIMIT {limit}");
        let rows = client
            .query_typed(&sql, &[(&self.head, Type::TEXT), (&after, Type::TEXT)])
            .await
            .during("check the fleet's heads")?;
        let ids: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let tail = format!("{TENANT} ORDER BY tenant_id COLLATE \"C\"");
        let rows = self.ask(client, Scope::Ids, &tail, &ids).await;
        Ok(rows.during("look up tenants")?.iter().map(tenant).collect())
    }

    /// The full sweep: one page of the tenants that may need something once every schema was looked
    /// into, after this id, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn doubtful(&self, client: &Client, after: &str, limit: u32) -> Result<Vec<Tenant>> {
        let tail = format!(
            "{TENANT}
             WHERE tenant_id COLLATE \"C\" > $5[1]
               AND (state <> 'current' OR known_state IS DISTINCT FROM state OR known_schema IS DISTINCT FROM schema
                    OR known_name IS DISTINCT FROM name OR known_namespace IS DISTINCT FROM namespace)
             ORDER BY tenant_id COLLATE \"C\" LIMIT {limit}"
        );
        let rows = self.ask(client, Scope::All, &tail, &[after]).await;
        Ok(rows.during("scan the fleet")?.iter().map(tenant).collect())
    }

    /// One page of all tenants, after this id, in order of id; only those of one group when given.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn page(
        &self,
        client: &Client,
        states: Option<&[State]>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Tenant>> {
        let states = states.map_or_else(String::new, |states| {
            let names: Vec<_> = states.iter().map(|state| format!("'{state}'")).collect();
            format!("AND state IN ({})", names.join(", "))
        });
        let tail = format!(
            "{TENANT} WHERE tenant_id COLLATE \"C\" > $5[1] {states}
             ORDER BY tenant_id COLLATE \"C\" LIMIT {limit}"
        );
        let rows = self.ask(client, Scope::All, &tail, &[after]).await;
        Ok(rows
            .during("list the tenants")?
            .iter()
            .map(tenant)
            .collect())
    }

    /// The fleet in numbers.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn counts(&self, client: &Client) -> Result<Counts> {
        let tail = "SELECT state, pg_catalog.count(*), pg_catalog.count(namespace),
                           pg_catalog.count(*) FILTER (WHERE has_tables) FROM judged
                    WHERE $5::text[] IS NOT NULL GROUP BY state";
        let rows = self
            .ask(client, Scope::All, tail, &[])
            .await
            .during("count the fleet")?;
        let mut counts = Counts::default();
        counts
            .by_state
            .extend(State::ALL.iter().map(|&state| (state, 0)));
        for row in rows {
            let (tenants, existing, filled): (i64, i64, i64) = (row.get(1), row.get(2), row.get(3));
            counts.tenants += tenants;
            counts.schemas_existing += existing;
            counts.schemas_with_tables += filled;
            if let Some(state) = State::from_name(row.get(0)) {
                counts.by_state.insert(state, tenants);
            }
        }
        counts.schemas_without_tables = counts.schemas_existing - counts.schemas_with_tables;
        Ok(counts)
    }

    /// One round trip: the statement is sent unprepared with its types.
    async fn ask(
        &self,
        client: &Client,
        scope: Scope,
        tail: &str,
        five: &[&str],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let sql = self.registry.render(CENSUS, scope) + tail;
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&self.head, Type::TEXT),
            (&self.digests, Type::TEXT_ARRAY),
            (&self.versions, Type::TEXT_ARRAY),
            (&self.checksums, Type::TEXT_ARRAY),
            (&five, Type::TEXT_ARRAY),
        ];
        client.query_typed(&sql, &params).await
    }
}

/// A version that tenants lack below one they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The file of the set.
    pub file: String,
    /// Its version.
    pub version: String,
    /// How many tenants lack it.
    pub tenants: i64,
    /// The schema of one of them.
    pub example: String,
    /// A version above it that they have.
    pub above: String,
}

/// Looks for files that were slipped in below versions that are applied already.
///
/// # Errors
/// When the database does not answer.
pub async fn gaps(client: &Client, release: &Release) -> Result<Vec<Gap>> {
    let files = release.set.files();
    let versions: Vec<_> = files.iter().map(|file| file.version.as_str()).collect();
    let names: Vec<_> = files.iter().map(|file| file.file.as_str()).collect();
    let rows = client
        .query_typed(
            "WITH files AS (
                 SELECT * FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))
                     WITH ORDINALITY AS f (version, file, ordinal)
             ), reached AS (
                 SELECT a.tenant, pg_catalog.max(f.ordinal) AS ordinal
                 FROM tenantd.applied a JOIN files f USING (version) GROUP BY a.tenant
             )
             SELECT f.file, f.version, pg_catalog.count(*), pg_catalog.min(t.schema),
                    (SELECT h.version FROM files h WHERE h.ordinal = pg_catalog.max(r.ordinal))
             FROM reached r JOIN tenantd.tenant t ON t.id = r.tenant AND t.tenant_id IS NOT NULL
             JOIN files f ON f.ordinal < r.ordinal
             WHERE NOT EXISTS (SELECT FROM tenantd.applied a WHERE a.tenant = r.tenant AND a.version = f.version)
             GROUP BY f.file, f.version, f.ordinal ORDER BY f.ordinal",
            &[(&versions, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)],
        )
        .await
        .during("compare the set with what is applied")?;
    Ok(rows
        .iter()
        .map(|r| Gap {
            file: r.get(0),
            version: r.get(1),
            tenants: r.get(2),
            example: r.get(3),
            above: r.get(4),
        })
        .collect())
}

fn tenant(row: &Row) -> Tenant {
    let state: &str = row.get("state");
    Tenant {
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
        backend: row.get("backend"),
        held_by: row.get("held_by"),
        held_why: row.get("held_why"),
    }
}

impl Tenant {
    /// What a person does about its state: one sentence with the exact next command.
    pub fn advice(&self) -> String {
        let id = &self.id;
        let schema = &self.schema;
        match self.state {
            State::Current => "nothing: it is at head".into(),
            State::Ahead => "nothing: a newer release was here; it is left alone".into(),
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
                "held by {}: {}",
                self.held_by.as_deref().unwrap_or("somebody"),
                self.held_why.as_deref().unwrap_or("no reason given")
            ),
            State::Refused => "change the schema's name in the registry".into(),
        }
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
