//! The census: what state each tenant is in, asked of registry, catalog and ledger in one query.

use std::sync::Arc;

use serde::Serialize;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{
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
/// Tenants a listing reads at a time.
const LIST_PAGE: u32 = 1000;
const HEAD_CHECK: &str = include_str!("head_check.sql");

/// Columns of one tenant; times as seconds, so that only the database's clock is ever compared.
const TENANT: &str = "
SELECT tenant_id, name, schema, namespace, has_tables, state, ordinal, version, digest, attempts,
       EXTRACT(epoch FROM next_attempt - pg_catalog.now())::float8 AS next_in,
       coalesce(problem, error) AS error, error_sqlstate, error_version,
       pg_catalog.to_char(error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS error_at,
       pg_catalog.to_char(migrated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS migrated_at,
       held_by, held_why, known_state, stamp,
       (SELECT b.version FROM tenantd.breaker b
        WHERE b.opened_at IS NOT NULL AND pg_catalog.array_position($2, b.digest) > judged.ordinal
          AND pg_catalog.array_position($2, b.digest) <= pg_catalog.array_position($2, $1)
        ORDER BY pg_catalog.array_position($2, b.digest) LIMIT 1) AS stopped
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
    pub by_state: std::collections::BTreeMap<State, i64>,
}

/// Some tenants in order of id, and where to go on.
#[derive(Debug)]
pub struct Page {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// The id after which the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

impl Page {
    fn of(rows: &[Row], limit: u32) -> Self {
        let tenants: Vec<_> = rows.iter().map(Tenant::from_row).collect();
        let next = tenants
            .last()
            .filter(|_| tenants.len() == limit as usize)
            .map(|tenant| tenant.id.clone());
        Self { tenants, next }
    }
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
        match self.ask(client, Scope::Ids, &tail, &[id]).await {
            Ok(rows) => Ok(rows.first().map(Tenant::from_row)),
            // A payload that the id's type cannot hold names no tenant.
            Err(error)
                if error
                    .code()
                    .is_some_and(|code| code.code().starts_with("22")) =>
            {
                Ok(None)
            }
            Err(source) => Err(Error::Postgres {
                operation: format!("look up tenant {id}"),
                source,
            }),
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

    /// The head check: one page of the tenants that may need something by registry and ledger alone,
    /// after this id, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn behind(&self, client: &Client, after: &str, limit: u32) -> Result<Page> {
        let sql = self.registry.render(HEAD_CHECK, Scope::All) + &format!("LIMIT {limit}");
        let rows = client
            .query_typed(&sql, &[(&self.head, Type::TEXT), (&after, Type::TEXT)])
            .await
            .during("check the fleet's heads")?;
        let ids: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let next = ids
            .last()
            .filter(|_| ids.len() == limit as usize)
            .map(|&id| id.to_owned());
        if ids.is_empty() {
            return Ok(Page {
                tenants: Vec::new(),
                next,
            });
        }
        let tail = format!("{TENANT} ORDER BY tenant_id COLLATE \"C\"");
        let rows = self
            .ask(client, Scope::Ids, &tail, &ids)
            .await
            .during("look up tenants")?;
        Ok(Page {
            tenants: rows.iter().map(Tenant::from_row).collect(),
            next,
        })
    }

    /// The full sweep: one page of the tenants that may need something once every schema was looked
    /// into, after this id, in order of id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn doubtful(&self, client: &Client, after: &str, limit: u32) -> Result<Page> {
        let tail = format!(
            "{TENANT}
             WHERE tenant_id COLLATE \"C\" > $5[1]
               AND (state <> 'current' OR known_state IS DISTINCT FROM state OR known_schema IS DISTINCT FROM schema
                    OR known_name IS DISTINCT FROM name OR known_namespace IS DISTINCT FROM namespace)
             ORDER BY tenant_id COLLATE \"C\" LIMIT {limit}"
        );
        let rows = self
            .ask(client, Scope::All, &tail, &[after])
            .await
            .during("scan the fleet")?;
        Ok(Page::of(&rows, limit))
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
    ) -> Result<Page> {
        let states = states.map_or_else(String::new, |states| {
            let names: Vec<_> = states.iter().map(|state| format!("'{state}'")).collect();
            format!("AND state IN ({})", names.join(", "))
        });
        let tail = format!(
            "{TENANT} WHERE tenant_id COLLATE \"C\" > $5[1] {states}
             ORDER BY tenant_id COLLATE \"C\" LIMIT {limit}"
        );
        let rows = self
            .ask(client, Scope::All, &tail, &[after])
            .await
            .during("list the tenants")?;
        Ok(Page::of(&rows, limit))
    }

    /// All tenants, or those in some states, in order of id; read page by page.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, client: &Client, states: Option<&[State]>) -> Result<Vec<Tenant>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.page(client, states, &after, LIST_PAGE).await?;
            all.extend(page.tenants);
            match page.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
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
        let mut sql = self.registry.render(CENSUS, scope) + tail;
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
