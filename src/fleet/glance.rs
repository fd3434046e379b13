//! The fleet from afar: what is plain without judging it, at a fraction of the census's cost. Who is not plain is left to
//! the census, and whoever acts on what was seen is held to it by the guard.

use tokio_postgres::{Client, Row, types::Type};

use super::{
    census::{Census, count, is_no_id},
    registry::Scope,
    tenant::Tenant,
};
use crate::error::{During, Result};

const DOUBTFUL: &str = include_str!("doubtful.sql");
const LAGGING: &str = include_str!("lagging.sql");
const NEWCOMER: &str = include_str!("newcomer.sql");
/// Filled by us, not held, never failed since; and neither is the fleet paused nor a version stopped.
const LAGS: &str = "t.state IN ('current', 'behind') AND t.attempts = 0 AND t.held_by IS NULL
    AND NOT EXISTS (SELECT FROM tenantd.breaker WHERE opened_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM tenantd.rollout WHERE paused_at IS NOT NULL)";
/// The schema is the one that the registry says and that we filled.
const FITS: &str = "t.held_by IS NULL AND t.schema = {schema} AND n.nspname = t.schema::name
    AND t.name IS NOT DISTINCT FROM {name} {tables}";
/// Rows of the registry that one such statement should look at, which does less with each.
pub const LOOKED_AT: u32 = 20_000;
/// What the full sweep asks beside: that the schema has tables (as in `census.sql`) and the stamp the ledger expects.
const TABLES: &str = "
           AND coalesce(pg_catalog.right(s.description, 32) = t.digest, true)
           AND (f.tables > 0 OR (
                SELECT true FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid
                  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p') LIMIT 1))";
const STAMPS: &str = "LEFT JOIN pg_catalog.pg_description s
       ON s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = n.oid AND s.objsubid = 0
LEFT JOIN (
    SELECT c.relnamespace, pg_catalog.count(*) AS tables FROM pg_catalog.pg_class c
    WHERE {at_once} AND c.relkind IN ('r', 'p') GROUP BY 1
) f ON f.relnamespace = n.oid";
/// Whether the tables of a window of `$1` tenants are better counted by reading all of `pg_class` than by a probe a
/// schema: a probe touches eight pages at random and takes as long as three one after the other, by measurement.
const AT_ONCE: &str = "
SELECT 3 * least($1, l.reltuples) * pg_catalog.current_setting('block_size')::int
     > pg_catalog.pg_relation_size('pg_catalog.pg_class')
FROM pg_catalog.pg_class l WHERE l.oid = 'tenantd.tenant'::pg_catalog.regclass";

/// How closely the fleet is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Registry, ledger and the names of schemas.
    Heads,
    /// Whether there are tables in them too, and their stamps.
    Tables,
}

/// A tenant that plainly lags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lagging {
    /// The registry's id, as text.
    pub id: String,
    /// Its schema.
    pub schema: String,
    /// The schema's pg_namespace oid.
    pub namespace: u32,
    /// How many files of the set it has.
    pub ordinal: usize,
}

/// Consecutive tenants of the fleet, looked at from afar.
#[derive(Debug)]
pub struct Glance {
    /// Those that plainly lag: files of the set are pending, and nothing keeps them from it.
    pub lagging: Vec<Lagging>,
    /// The ids of others that may need something, or of whom the ledger says something else.
    pub doubtful: Vec<String>,
    /// How many others there are: they are current.
    pub plain: i64,
    /// How many of all of them the ledger knows.
    pub known: i64,
    /// The id after which the next window begins; `None`: this was the last.
    pub next: Option<String>,
}

impl Census {
    /// A tenant that plainly lags, as far as it is known.
    pub fn behind(&self, lagging: Lagging) -> Tenant {
        let version = self.versions[lagging.ordinal - 1].clone();
        let digest = self.digests[lagging.ordinal - 1].clone();
        Tenant::behind(lagging, version, digest)
    }

    /// Those of these tenants that plainly lag, at a fraction of the cost of [`Self::tenants`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn lagging(&self, client: &Client, ids: &[&str]) -> Result<Vec<Lagging>> {
        let sql = LAGGING.replace("{lags}", LAGS);
        let rows = client
            .query_typed(
                &self.registry.render(&sql, Scope::Among("$1")),
                &[(&ids, Type::TEXT_ARRAY), (&self.before, Type::TEXT_ARRAY)],
            )
            .await;
        match rows {
            Err(error) if is_no_id(&error) => Ok(Vec::new()),
            rows => Ok(rows
                .during("look who lags")?
                .iter()
                .map(|row| Lagging {
                    id: row.get("tenant_id"),
                    schema: row.get("schema"),
                    namespace: row.get("namespace"),
                    ordinal: self.ordinals[row.get::<_, &str>("digest")],
                })
                .collect()),
        }
    }

    /// Reads what `doubtful.sql` tells of a tenant that plainly lags.
    fn read(&self, told: &str) -> Option<Lagging> {
        let mut fields = told.splitn(4, ' ');
        let namespace = fields.next()?.parse().ok()?;
        let ordinal = *self.ordinals.get(fields.next()?)?;
        let length = fields.next()?.parse().ok()?;
        let rest = fields.next()?;
        let end = rest
            .char_indices()
            .nth(length)
            .map_or(rest.len(), |it| it.0);
        let (schema, id) = rest.split_at(end);
        Some(Lagging {
            id: id.to_owned(),
            schema: schema.to_owned(),
            namespace,
            ordinal,
        })
    }

    /// Who may need something, of the next so many tenants after this id. The census then says what.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn glance(
        &self,
        client: &Client,
        depth: Depth,
        after: Option<&str>,
        size: u32,
    ) -> Result<Glance> {
        let (tables, stamps) = match depth {
            Depth::Heads => ("", String::new()),
            Depth::Tables => {
                let tenants = i64::from(size);
                let rows = client.query_typed(AT_ONCE, &[(&tenants, Type::INT8)]).await;
                let at_once: bool = rows.during("ask how large the catalog is")?[0].get(0);
                (TABLES, STAMPS.replace("{at_once}", &at_once.to_string()))
            }
        };
        let sql = DOUBTFUL
            .replace("{lags}", LAGS)
            .replace("{fits}", FITS)
            .replace("{tables}", tables)
            .replace("{stamps}", &stamps)
            .replace("{size}", &size.to_string())
            .replace("{after}", &self.registry.after("$2"));
        let rows = client
            .query_typed(
                &self.registry.render(&sql, Scope::All),
                &[
                    (&self.head, Type::TEXT),
                    (&after.as_slice(), Type::TEXT_ARRAY),
                    (&self.before, Type::TEXT_ARRAY),
                ],
            )
            .await
            .during(match depth {
                Depth::Heads => "check the fleet's heads",
                Depth::Tables => "look into the schemas of the fleet",
            })?;
        let ids: Option<Vec<&str>> = rows[0].get("ids");
        let ids = ids.unwrap_or_default();
        let lagging = ids.iter().filter_map(|id| id.strip_prefix('+'));
        let lagging = lagging.map(|it| self.read(it).expect("doubtful.sql tells it so"));
        let doubtful = ids.iter().filter_map(|id| id.strip_prefix('?'));
        Ok(Glance {
            plain: rows[0].get::<_, i64>("seen") - count(&ids),
            known: rows[0].get("known"),
            next: rows[0].get("last"),
            lagging: lagging.collect(),
            doubtful: doubtful.map(str::to_owned).collect(),
        })
    }

    /// A tenant that plainly is new, as most are that an insert told of: neither the ledger nor the catalog knows it, and
    /// nothing is stopped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn newcomer(&self, client: &Client, id: &str) -> Result<Option<Tenant>> {
        let sql = self.registry.render(NEWCOMER, Scope::Among("$1"));
        let rows = client
            .query_typed(&sql, &[(&vec![id], Type::TEXT_ARRAY)])
            .await;
        match rows {
            Err(error) if is_no_id(&error) => Ok(None),
            rows => {
                let rows = rows.during(format!("look whether tenant {id} is new"))?;
                let newcomer =
                    |row: &Row| Tenant::newcomer(row.get("id"), row.get("schema"), row.get("name"));
                Ok(rows.first().map(newcomer))
            }
        }
    }
}
