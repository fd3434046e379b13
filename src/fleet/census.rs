//! The census: what state each tenant is in, asked of registry, catalog and ledger in one query.

use std::{
    collections::{BTreeMap, HashMap},
    ops::AddAssign,
    sync::Arc,
};

use serde::Serialize;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{
    glance::Glance,
    registry::{Registry, Scope},
    state::State,
    tenant::Tenant,
};
use crate::{
    error::{During, Error, Result},
    failpoint,
    migrations::{Migration, MigrationSet},
};

const CENSUS: &str = include_str!("census.sql");
const LOST: &str = "WHEN NOT has_tables THEN 'lost'";
const WINDOW: &str = include_str!("window.sql");
/// Rows of the registry that one statement judges: a long one would hold back vacuum and concurrent index builds.
const WINDOW_SIZE: u32 = 5000;

/// Columns of one tenant; times as seconds, so that only the database's clock is ever compared.
const TENANT: &str = "
SELECT tenant_id, name, schema, namespace, has_tables, state, ordinal, version, digest, attempts,
       EXTRACT(epoch FROM next_attempt - pg_catalog.now())::float8 AS next_in,
       coalesce(problem, error) AS error, error_sqlstate, error_version,
       pg_catalog.to_char(error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS error_at,
       pg_catalog.to_char(migrated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS migrated_at,
       held_by, held_why, known_state, stamp, native,
       (SELECT b.version FROM tenantd.breaker b
        WHERE b.opened_at IS NOT NULL AND pg_catalog.array_position($2, b.digest) > judged.ordinal
          AND pg_catalog.array_position($2, b.digest) <= pg_catalog.array_position($2, $1)
        ORDER BY pg_catalog.array_position($2, b.digest) LIMIT 1) AS stopped,
       (SELECT pg_catalog.format('by %s at %s: %s', r.paused_by,
                   pg_catalog.to_char(r.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                   coalesce(r.paused_why, 'no reason given'))
        FROM tenantd.rollout r WHERE r.paused_at IS NOT NULL) AS paused
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

    /// Whether one of these digests is of a version that is released.
    pub fn has_any(&self, digests: &[String]) -> bool {
        let released = &self.set.files()[..self.head];
        released.iter().any(|file| digests.contains(&file.digest))
    }

    /// The released head.
    pub fn head(&self) -> &Migration {
        &self.set.files()[self.head - 1]
    }
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
    pub by_state: BTreeMap<State, i64>,
}

impl Counts {
    /// Of nobody; every state is listed.
    pub fn new() -> Self {
        let by_state = State::ALL.iter().map(|&state| (state, 0)).collect();
        Self {
            by_state,
            ..Self::default()
        }
    }

    /// Adds the tenants of a glance whose state it tells.
    pub fn add_plain(&mut self, glance: &Glance) {
        self.add(State::Current, [glance.plain; 3]);
        self.add(State::Behind, [count(&glance.lagging); 3]);
    }

    /// Adds one that was looked into.
    pub fn add_tenant(&mut self, tenant: &Tenant) {
        let (exists, filled) = (tenant.namespace.is_some(), tenant.has_tables);
        self.add(tenant.state, [1, exists.into(), filled.into()]);
    }

    /// Adds those of some tenants in one state: how many, how many have a schema, how many have tables.
    fn add(&mut self, state: State, [tenants, existing, filled]: [i64; 3]) {
        self.tenants += tenants;
        self.schemas_existing += existing;
        self.schemas_with_tables += filled;
        self.schemas_without_tables += existing - filled;
        *self.by_state.entry(state).or_default() += tenants;
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.tenants += other.tenants;
        self.schemas_existing += other.schemas_existing;
        self.schemas_with_tables += other.schemas_with_tables;
        self.schemas_without_tables += other.schemas_without_tables;
        for (state, tenants) in other.by_state {
            *self.by_state.entry(state).or_default() += tenants;
        }
    }
}

/// Which tenants of a window are told one by one.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// Those in one of these states.
    In(&'a [State]),
}

/// Consecutive tenants of the fleet, each looked into.
#[derive(Debug)]
pub struct Window {
    /// Those that were asked for, in the order of their ids.
    pub tenants: Vec<Tenant>,
    /// All of them in numbers.
    pub counts: Counts,
    /// The id after which the next window begins; `None`: this was the last.
    pub next: Option<String>,
}

/// Asks the questions. Holds the rendered SQL and what of the set it compares with.
#[derive(Debug, Clone)]
pub struct Census {
    pub(super) registry: Registry,
    pub(super) head: String,
    /// Digests before the head's.
    pub(super) before: Vec<String>,
    pub(super) digests: Vec<String>,
    /// Ordinals by digest.
    pub(super) ordinals: HashMap<String, usize>,
    pub(super) versions: Vec<String>,
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
            before: of(|file| &file.digest)[..release.head - 1].to_vec(),
            digests: of(|file| &file.digest),
            ordinals: release
                .set
                .files()
                .iter()
                .map(|file| (file.digest.clone(), file.ordinal))
                .collect(),
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
        match self.ask(client, Scope::Among("$5"), &tail, &[id]).await {
            Ok(rows) => Ok(rows.first().map(Tenant::from_row)),
            Err(error) if is_no_id(&error) => Ok(None),
            Err(source) => Err(Error::Postgres {
                operation: format!("look up tenant {id}"),
                source,
            }),
        }
    }

    /// The tenants with these ids, in order of id. `None`: one of them cannot be an id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tenants(&self, client: &Client, ids: &[&str]) -> Result<Option<Vec<Tenant>>> {
        let tail = format!("{TENANT} ORDER BY tenant_id COLLATE \"C\"");
        match self.ask(client, Scope::Among("$5"), &tail, ids).await {
            Err(error) if is_no_id(&error) => Ok(None),
            rows => Ok(Some(
                rows.during("look up tenants")?
                    .iter()
                    .map(Tenant::from_row)
                    .collect(),
            )),
        }
    }

    /// The tenants with these ids or schemas, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn find(&self, client: &Client, names: &[&str]) -> Result<Vec<Tenant>> {
        let tail = format!("{TENANT} ORDER BY tenant_id COLLATE \"C\"");
        let rows = self.ask(client, Scope::Names, &tail, names).await;
        Ok(rows
            .during("look up tenants")?
            .iter()
            .map(Tenant::from_row)
            .collect())
    }

    /// The full look: the tenants after this id, each looked into.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn window(
        &self,
        client: &Client,
        which: Which<'_>,
        after: Option<&str>,
    ) -> Result<Window> {
        let which = match which {
            Which::All => "true".to_owned(),
            Which::In(states) => {
                let names: Vec<_> = states.iter().map(|state| format!("'{state}'")).collect();
                format!("state IN ({})", names.join(", "))
            }
        };
        let tail = WINDOW
            .replace("{tenants}", TENANT)
            .replace("{which}", &which);
        let rows = self
            .ask(client, Scope::Window(WINDOW_SIZE), &tail, after.as_slice())
            .await
            .during("look into the schemas of the fleet")?;
        let mut counts = Counts::new();
        let numbers = rows[0].get::<_, Option<&str>>("counts").unwrap_or("{}");
        let numbers: BTreeMap<String, [i64; 3]> = serde_json::from_str(numbers).unwrap_or_default();
        for (state, numbers) in numbers {
            counts.add(
                State::from_name(&state).expect("census.sql names states of ours only"),
                numbers,
            );
        }
        let whole = rows[0].get::<_, i64>("seen") == i64::from(WINDOW_SIZE);
        let tenants = rows
            .iter()
            .filter(|row| row.get::<_, Option<&str>>("state").is_some());
        Ok(Window {
            tenants: tenants.map(Tenant::from_row).collect(),
            counts,
            next: rows[0].get::<_, Option<String>>("last").filter(|_| whole),
        })
    }

    /// All tenants, or those in some states, in the order of their ids; read window by window.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, client: &Client, which: Which<'_>) -> Result<Vec<Tenant>> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let window = self.window(client, which, after.as_deref()).await?;
            all.extend(window.tenants);
            if window.next.is_none() {
                return Ok(all);
            }
            after = window.next;
        }
    }

    /// One round trip: the statement is sent unprepared with its types.
    async fn ask(
        &self,
        client: &Client,
        scope: Scope,
        tail: &str,
        five: &[&str],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        // A few are looked up one by one: for some hundred the planner would rather read the whole ledger.
        let few = matches!(scope, Scope::Among(_));
        let probe = if few { "OFFSET 0" } else { "" };
        let mut sql = self.registry.render(CENSUS, scope) + tail;
        sql = sql.replace("{probe}", probe);
        if failpoint::off("census.lost") {
            sql = sql.replace(LOST, "");
        }
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

pub(super) fn count<T>(ids: &[T]) -> i64 {
    i64::try_from(ids.len()).unwrap_or(i64::MAX)
}

/// A payload that the id's type cannot hold names no tenant.
pub(super) fn is_no_id(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("22"))
}
