//! The ledger's writes: what the census saw, what failed, what was asked for, who runs.
//! The record of an apply is written by `tenantd.record`, inside the transaction that did the work.

use std::time::Duration;

use tokio_postgres::{Client, types::Type};

use super::{
    census::{Release, Tenant},
    state::State,
};
use crate::error::{During, Result};

/// A failed attempt, as the ledger keeps it.
#[derive(Debug, Clone)]
pub struct Failure<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Blocked, failed or quarantined.
    pub state: State,
    /// The digest the schema has after what was committed before the failure.
    pub digest: Option<&'a str>,
    /// Attempts in this state, this one included.
    pub attempts: u32,
    /// Time to the next attempt by itself.
    pub next_in: Option<Duration>,
    /// One line for people.
    pub error: &'a str,
    /// SQLSTATE, where the server gave one.
    pub sqlstate: Option<&'a str>,
    /// The version that failed.
    pub version: Option<&'a str>,
    /// Digest of the head that was aimed at.
    pub head: &'a str,
}

/// A daemon that sent a heartbeat not long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The host it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
}

/// What somebody asked the daemons to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Scan the whole fleet now.
    Sweep,
    /// Bring this tenant to head now.
    Migrate(String),
}

/// How long a heartbeat counts.
pub const HEARTBEAT_COUNTS: Duration = Duration::from_secs(30);

/// Notes what a census page saw.
///
/// # Errors
/// When the database does not answer.
pub async fn note(client: &Client, tenants: &[Tenant]) -> Result<()> {
    if tenants.is_empty() {
        return Ok(());
    }
    let refused = |tenant: &&Tenant| tenant.state == State::Refused;
    let text = |field: fn(&Tenant) -> Option<&str>| tenants.iter().map(field).collect::<Vec<_>>();
    let schemas: Vec<_> = tenants
        .iter()
        .map(|t| (!refused(&t)).then_some(t.schema.as_str()))
        .collect();
    let problems: Vec<_> = tenants
        .iter()
        .map(|t| t.error.as_deref().filter(|_| refused(&t)))
        .collect();
    let namespaces: Vec<_> = tenants.iter().map(|t| t.namespace).collect();
    client
        .execute_typed(
            include_str!("note.sql"),
            &[
                (&text(|t| Some(&t.id)), Type::TEXT_ARRAY),
                (&schemas, Type::TEXT_ARRAY),
                (&text(|t| t.name.as_deref()), Type::TEXT_ARRAY),
                (&namespaces, Type::OID_ARRAY),
                (&text(|t| t.digest.as_deref()), Type::TEXT_ARRAY),
                (&text(|t| t.version.as_deref()), Type::TEXT_ARRAY),
                (&text(|t| Some(t.state.as_str())), Type::TEXT_ARRAY),
                (&text(|t| t.known_state.as_deref()), Type::TEXT_ARRAY),
                (&problems, Type::TEXT_ARRAY),
            ],
        )
        .await
        .during("note the tenants' states")?;
    Ok(())
}

/// Marks ledger rows whose registry row is gone, and forgets who a login would help where it no longer does.
/// `registered` is a query that yields the registry's ids.
///
/// # Errors
/// When the database does not answer.
pub async fn note_orphans(client: &Client, registered: &str) -> Result<u64> {
    let sql = format!(
        "WITH orphans AS (
             UPDATE tenantd.tenant t SET state = 'orphan'
             WHERE t.tenant_id IS NOT NULL AND t.state <> 'orphan'
               AND NOT EXISTS (SELECT FROM ({registered}) r (id) WHERE r.id = t.tenant_id)
             RETURNING t.tenant_id
         ), gone AS (
             DELETE FROM tenantd.behind b WHERE b.tenant_id IN (SELECT tenant_id FROM orphans)
                 OR NOT EXISTS (SELECT FROM tenantd.tenant t WHERE t.tenant_id = b.tenant_id)
         ) SELECT pg_catalog.count(*) FROM orphans"
    );
    let row = client
        .query_typed(&sql, &[])
        .await
        .during("look for orphan schemas")?;
    Ok(row[0].get::<_, i64>(0).unsigned_abs())
}

/// Records a failed attempt, unless another daemon got further meanwhile.
///
/// # Errors
/// When the database does not answer.
pub async fn record_failure(client: &Client, failure: &Failure<'_>) -> Result<()> {
    let tenant = failure.tenant;
    let next_in = failure.next_in.map(|delay| delay.as_secs_f64());
    let attempts = i32::try_from(failure.attempts).unwrap_or(i32::MAX);
    client
        .execute_typed(
            "WITH failed AS (
                 INSERT INTO tenantd.tenant AS t (tenant_id, schema, name, state, attempts, next_attempt,
                                                  error, error_sqlstate, error_version, error_at, error_head)
                 VALUES ($1, $2, $3, $4, $5, pg_catalog.now() + $6 * interval '1 second',
                         $7, $8, $9, pg_catalog.now(), $10)
                 ON CONFLICT (tenant_id) DO UPDATE
                 SET state = excluded.state, attempts = excluded.attempts, next_attempt = excluded.next_attempt,
                     error = excluded.error, error_sqlstate = excluded.error_sqlstate,
                     error_version = excluded.error_version, error_at = excluded.error_at,
                     error_head = excluded.error_head
                 WHERE t.digest IS NOT DISTINCT FROM $11 AND t.held_by IS NULL
                 RETURNING tenant_id)
             DELETE FROM tenantd.behind b USING failed f WHERE b.tenant_id = f.tenant_id",
            &[
                (&tenant.id, Type::TEXT),
                (&tenant.schema, Type::TEXT),
                (&tenant.name, Type::TEXT),
                (&failure.state.as_str(), Type::TEXT),
                (&attempts, Type::INT4),
                (&next_in, Type::FLOAT8),
                (&failure.error, Type::TEXT),
                (&failure.sqlstate, Type::TEXT),
                (&failure.version, Type::TEXT),
                (&failure.head, Type::TEXT),
                (&failure.digest, Type::TEXT),
            ],
        )
        .await
        .during(format!("record the failure of tenant {}", tenant.id))?;
    Ok(())
}

/// Forgets the failure of a tenant, so that it is tried again at once.
///
/// # Errors
/// When the database does not answer.
pub async fn release_quarantine(client: &Client, id: &str) -> Result<bool> {
    let rows = client
        .execute_typed(
            "UPDATE tenantd.tenant
             SET state = CASE WHEN digest IS NULL THEN 'unprovisioned' ELSE 'behind' END,
                 attempts = 0, next_attempt = NULL, error_head = NULL
             WHERE tenant_id = $1 AND state IN ('blocked', 'failed', 'quarantined')",
            &[(&id, Type::TEXT)],
        )
        .await
        .during(format!("release tenant {id} from quarantine"))?;
    Ok(rows > 0)
}

/// Publishes the loaded set, and releases its head when told to or when nothing was released yet.
///
/// # Errors
/// When the database does not answer.
pub async fn publish(client: &mut Client, release: &Release, by: &str) -> Result<()> {
    let what = || format!("publish migration set {}", release.head().version);
    let files = release.set.files();
    let ordinals: Vec<i32> = (1..).take(files.len()).collect();
    let column = |field: fn(&crate::migrations::Migration) -> &str| {
        files.iter().map(field).collect::<Vec<_>>()
    };
    let head = release.head();
    let transaction = client.transaction().await.during(what())?;
    // Two starters take turns; readers never wait. The rows are replaced only where they differ.
    transaction
        .batch_execute("LOCK TABLE tenantd.migration IN SHARE ROW EXCLUSIVE MODE")
        .await
        .during(what())?;
    transaction
        .execute_typed(
            "WITH loaded AS (
                 SELECT * FROM ROWS FROM (
                     pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]),
                     pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]))
                     AS l (ordinal, version, name, checksum, digest)
             )
             DELETE FROM tenantd.migration m
             WHERE NOT EXISTS (SELECT FROM loaded l WHERE l.ordinal = m.ordinal AND l.digest = m.digest)",
            &[
                (&ordinals, Type::INT4_ARRAY),
                (&column(|f| &f.version), Type::TEXT_ARRAY),
                (&column(|f| &f.name), Type::TEXT_ARRAY),
                (&column(|f| &f.checksum), Type::TEXT_ARRAY),
                (&column(|f| &f.digest), Type::TEXT_ARRAY),
            ],
        )
        .await
        .during(what())?;
    transaction
        .execute_typed(
            "INSERT INTO tenantd.migration (ordinal, version, name, checksum, digest)
             SELECT * FROM ROWS FROM (
                 pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]),
                 pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]))
             ON CONFLICT DO NOTHING",
            &[
                (&ordinals, Type::INT4_ARRAY),
                (&column(|f| &f.version), Type::TEXT_ARRAY),
                (&column(|f| &f.name), Type::TEXT_ARRAY),
                (&column(|f| &f.checksum), Type::TEXT_ARRAY),
                (&column(|f| &f.digest), Type::TEXT_ARRAY),
            ],
        )
        .await
        .during(what())?;
    transaction
        .execute_typed(
            include_str!("release.sql"),
            &[
                (&i32::try_from(head.ordinal).unwrap_or(i32::MAX), Type::INT4),
                (&head.version, Type::TEXT),
                (&head.digest, Type::TEXT),
                (&by, Type::TEXT),
            ],
        )
        .await
        .during(what())?;
    transaction.commit().await.during(what())
}

/// Asks the daemons for something and hints at it.
///
/// # Errors
/// When the database does not answer.
pub async fn request(client: &Client, request: &Request) -> Result<()> {
    let (kind, tenant) = match request {
        Request::Sweep => ("sweep", None),
        Request::Migrate(id) => ("migrate", Some(id.as_str())),
    };
    client
        .execute_typed(
            "WITH r AS (INSERT INTO tenantd.request (kind, tenant_id) VALUES ($1, $2) RETURNING 1)
             SELECT pg_catalog.pg_notify('tenantd_wake', '') FROM r
             WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
            &[(&kind, Type::TEXT), (&tenant, Type::TEXT)],
        )
        .await
        .during(format!("request {kind}"))?;
    Ok(())
}

/// Asks for every tenant without tables that tenantd may fill; how many those are.
///
/// # Errors
/// When the database does not answer.
pub async fn request_all(client: &Client, ids: &[String]) -> Result<()> {
    client
        .execute_typed(
            "WITH r AS (INSERT INTO tenantd.request (kind, tenant_id)
                        SELECT 'migrate', id FROM pg_catalog.unnest($1::text[]) AS id RETURNING 1)
             SELECT pg_catalog.pg_notify('tenantd_wake', '') FROM (SELECT FROM r LIMIT 1) one
             WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
            &[(&ids, Type::TEXT_ARRAY)],
        )
        .await
        .during("request migrations")?;
    Ok(())
}

/// Takes up to `limit` open requests, oldest first, and forgets those of long ago. Each goes to one daemon.
///
/// # Errors
/// When the database does not answer.
pub async fn take_requests(client: &Client, instance: &str, limit: i64) -> Result<Vec<Request>> {
    let rows = client
        .query_typed(
            "WITH old AS (
                 DELETE FROM tenantd.request WHERE taken_at < pg_catalog.now() - interval '7 days'
             ), open AS (
                 SELECT id FROM tenantd.request WHERE taken_at IS NULL
                 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
             )
             UPDATE tenantd.request r SET taken_at = pg_catalog.clock_timestamp(), taken_by = $1
             FROM open o WHERE r.id = o.id
             RETURNING r.kind, r.tenant_id",
            &[(&instance, Type::TEXT), (&limit, Type::INT8)],
        )
        .await
        .during("take requests")?;
    Ok(rows
        .iter()
        .map(|row| match row.get::<_, Option<String>>(1) {
            Some(tenant) => Request::Migrate(tenant),
            None => Request::Sweep,
        })
        .collect())
}

/// Tells that this daemon runs, and forgets daemons that have long stopped telling.
///
/// # Errors
/// When the database does not answer.
pub async fn heartbeat(client: &Client, instance: &str, host: &str) -> Result<()> {
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    client
        .execute_typed(
            "WITH old AS (
                 DELETE FROM tenantd.instance
                 WHERE heartbeat_at < pg_catalog.now() - interval '1 day' AND id <> $1
             )
             INSERT INTO tenantd.instance (id, host, pid, version) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET heartbeat_at = pg_catalog.now()",
            &[
                (&instance, Type::TEXT),
                (&host, Type::TEXT),
                (&pid, Type::INT4),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
            ],
        )
        .await
        .during("write the heartbeat")?;
    Ok(())
}

/// Tells that this daemon stops.
///
/// # Errors
/// When the database does not answer.
pub async fn sign_off(client: &Client, instance: &str) -> Result<()> {
    client
        .execute_typed(
            "DELETE FROM tenantd.instance WHERE id = $1",
            &[(&instance, Type::TEXT)],
        )
        .await
        .during("sign off")?;
    Ok(())
}

/// The daemons whose heartbeat counts.
///
/// # Errors
/// When the database does not answer.
pub async fn instances(client: &Client) -> Result<Vec<Instance>> {
    let rows = client
        .query_typed(
            "SELECT id, host, pid FROM tenantd.instance
             WHERE heartbeat_at > pg_catalog.now() - $1 * interval '1 second' ORDER BY started_at",
            &[(&HEARTBEAT_COUNTS.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .during("look for running daemons")?;
    Ok(rows
        .iter()
        .map(|r| Instance {
            id: r.get(0),
            host: r.get(1),
            pid: r.get(2),
        })
        .collect())
}
