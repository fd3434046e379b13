//! Spares in the ledger: schemas filled ahead of need, and the sets whose schemas cannot be renamed unnoticed.
//! See `migrations/control/0012_spares.sql`.

use serde::Serialize;
use tokio_postgres::{Client, types::Type};

use super::{census::Release, fingerprint::Fingerprint};
use crate::{
    error::{During, Result},
    pg::{Connection, ident::Literal},
};

/// What a spare's schema is called; followed by a token of its own, which can be looked for in it.
const PREFIX: &str = "tenantd_spare_";

/// The spares in numbers, for people.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Numbers {
    /// Those that a new tenant can be given.
    pub ready: i64,
    /// How many are to be kept.
    pub keep: u32,
    /// All there are, those included that are not at head yet.
    pub existing: i64,
    /// Why the loaded set has none, if so.
    pub refused: Option<String>,
}

/// One spare.
#[derive(Debug, Clone)]
pub struct Spare {
    /// Its schema.
    pub schema: String,
    /// The schema's pg_namespace oid, as the ledger has it.
    pub namespace: u32,
    /// Whether the schema is still that one, with its stamp.
    pub exists: bool,
    /// The last version it has.
    pub version: String,
    /// The digest of its files.
    pub digest: String,
    /// How many files of the set it has; `None`: it was filled from another set.
    pub ordinal: Option<usize>,
    /// A table of it whose rows hold its name.
    pub holds: Option<String>,
    /// Its name was looked for in it as it is, and not found.
    pub checked: bool,
    /// It was made as a fresh schema would be made now.
    pub made: bool,
}

/// What there is, and whether now is the time to change it.
#[derive(Debug, Clone)]
pub struct Stock {
    /// The spares, oldest first.
    pub spares: Vec<Spare>,
    /// Why the set has none, if so.
    pub refused: Option<String>,
    /// Tenants wait for a rollout, or a version is stopped, or our head is not the released one.
    pub later: bool,
}

impl Stock {
    /// How many can be given away.
    pub fn ready(&self, release: &Release) -> usize {
        let is_ready =
            |it: &&Spare| it.exists && it.made && it.checked && it.digest == release.head().digest;
        self.spares.iter().filter(is_ready).count()
    }
}

/// A name for a new spare.
pub fn new_name() -> String {
    let token = uuid::Uuid::new_v4().simple().to_string();
    format!("{PREFIX}{}", &token[..8])
}

/// What there is; `made`: how a fresh schema is made.
///
/// # Errors
/// When the database does not answer.
pub async fn stock(client: &Client, release: &Release, made: &str) -> Result<Stock> {
    let what = "look at the spares";
    let digests: Vec<_> = release.set.files().iter().map(|f| &*f.digest).collect();
    let head = &release.head().digest;
    let rows = client
        .query_typed(
            "SELECT t.schema, t.namespace, n.oid IS NOT NULL, t.version, t.digest,
                    pg_catalog.array_position($1, t.digest), s.holds,
                    s.checked IS NOT DISTINCT FROM t.digest, s.made = $2
             FROM tenantd.spare s JOIN tenantd.tenant t ON t.id = s.tenant
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.namespace AND n.nspname = t.schema
              AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE '%tenantd: % ' || t.digest
             WHERE t.tenant_id IS NULL ORDER BY t.id",
            &[(&digests, Type::TEXT_ARRAY), (&made, Type::TEXT)],
        )
        .await
        .during(what)?;
    let spares = rows.iter().map(|row| Spare {
        schema: row.get(0),
        namespace: row.get(1),
        exists: row.get(2),
        version: row.get(3),
        digest: row.get(4),
        ordinal: row
            .get::<_, Option<i32>>(5)
            .map(|n| n.unsigned_abs() as usize),
        holds: row.get(6),
        checked: row.get(7),
        made: row.get(8),
    });
    let spares = spares.collect();
    let rows = client
        .query_typed(
            "SELECT (SELECT r.why FROM tenantd.spare_refused r WHERE r.digest = $1),
                    NOT EXISTS (SELECT FROM tenantd.head h WHERE h.digest = $1)
                    OR EXISTS (SELECT FROM tenantd.breaker b WHERE b.opened_at IS NOT NULL AND b.digest = ANY ($2))
                    OR EXISTS (SELECT FROM tenantd.behind b JOIN tenantd.tenant t USING (tenant_id)
                               WHERE t.held_by IS NULL AND t.state IN ('current', 'behind', 'unprovisioned', 'empty'))",
            &[(head, Type::TEXT), (&digests, Type::TEXT_ARRAY)],
        )
        .await
        .during(what)?;
    Ok(Stock {
        spares,
        refused: rows[0].get(0),
        later: rows[0].get(1),
    })
}

/// Looks for the name of a spare in its catalog and its rows. What keeps it, in words; `None`: nothing does, and it
/// may be given away now.
///
/// # Errors
/// When the database does not answer.
pub async fn check(
    connection: &mut Connection,
    spare: &Spare,
    search_path: &[String],
) -> Result<Option<String>> {
    let found = Fingerprint::of(connection, &spare.schema, spare.namespace, search_path).await?;
    let line = found.line_with(&spare.schema);
    let table = spare.holds.as_ref().map(|it| format!("rows of table {it}"));
    if let Some(why) = line.map(|line| object(line, &spare.schema)).or(table) {
        return Ok(Some(why));
    }
    connection
        .execute_typed(
            "UPDATE tenantd.spare s SET checked = $2 FROM tenantd.tenant t
             WHERE t.id = s.tenant AND t.schema = $1 AND t.digest = $2 AND t.tenant_id IS NULL",
            &[(&spare.schema, Type::TEXT), (&spare.digest, Type::TEXT)],
        )
        .await
        .during(format!("note that spare {} is ready", spare.schema))?;
    Ok(None)
}

/// The first line that tells which object it is.
fn object(line: &str, schema: &str) -> String {
    let first = line.lines().next().unwrap_or_default();
    first.replace(schema, "the schema's name").trim().to_owned()
}

/// Remembers that the schemas of a set keep their name.
///
/// # Errors
/// When the database does not answer.
pub async fn refuse(client: &Client, release: &Release, why: &str) -> Result<()> {
    client
        .execute_typed(
            "INSERT INTO tenantd.spare_refused (digest, why) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[(&release.head().digest, Type::TEXT), (&why, Type::TEXT)],
        )
        .await
        .during("note that the set has no spares")?;
    Ok(())
}

/// The numbers for people; `keep`: how many are to be kept.
///
/// # Errors
/// When the database does not answer.
pub async fn numbers(client: &Client, release: &Release, keep: u32) -> Result<Numbers> {
    let rows = client
        .query_typed(
            "SELECT pg_catalog.count(n.oid) FILTER (WHERE t.digest = $1 AND s.checked = $1), pg_catalog.count(*),
                    (SELECT r.why FROM tenantd.spare_refused r WHERE r.digest = $1)
             FROM tenantd.spare s JOIN tenantd.tenant t ON t.id = s.tenant
             LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.namespace AND n.nspname = t.schema
             WHERE t.tenant_id IS NULL",
            &[(&release.head().digest, Type::TEXT)],
        )
        .await
        .during("count the spares")?;
    Ok(Numbers {
        ready: rows[0].get(0),
        keep,
        existing: rows[0].get(1),
        refused: rows[0].get(2),
    })
}

/// The schemas of all spares; none where the ledger knows no spares yet, or may not be read.
///
/// # Errors
/// When the database does not answer.
pub async fn all(client: &Client) -> Result<Vec<String>> {
    let what = "look for spares";
    let known = client
        .query_typed(
            "SELECT coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), false)
             FROM (SELECT pg_catalog.max(c.oid) AS oid FROM pg_catalog.pg_class c
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'tenantd' AND c.relname = 'spare') c",
            &[],
        )
        .await
        .during(what)?;
    if !known[0].get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query_typed(
            "SELECT t.schema FROM tenantd.spare s JOIN tenantd.tenant t ON t.id = s.tenant
             WHERE t.tenant_id IS NULL ORDER BY t.id",
            &[],
        )
        .await
        .during(what)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Removes a spare, unless somebody has put rows into it. What became of it.
///
/// # Errors
/// When the server refuses.
pub async fn remove(client: &Client, schema: &str) -> Result<String> {
    let sql = format!("SELECT tenantd.spare_drop({})", Literal(schema));
    let rows = client.query_typed(&sql, &[]).await;
    Ok(rows.during(format!("drop spare {schema}"))?[0].get(0))
}

/// Removes all of them; a line each.
///
/// # Errors
/// As [`remove`].
pub async fn remove_all(client: &Client) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for schema in all(client).await? {
        done.push(remove(client, &schema).await?);
    }
    Ok(done)
}
