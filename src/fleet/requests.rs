//! What the command line or the application asked for. The rows are kept in the ledger and NOTIFY only
//! hints at them, so nothing is lost while no daemon runs.

use tokio_postgres::{Client, types::Type};

use crate::error::{During, Result};

/// What somebody asked the daemons to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Scan the whole fleet now.
    Sweep,
    /// Bring this tenant to head now.
    Migrate(String),
}

/// Asks the daemons to sweep, and hints at it.
///
/// # Errors
/// When the database does not answer.
pub async fn sweep(client: &Client) -> Result<()> {
    client
        .execute_typed(
            "WITH r AS (INSERT INTO tenantd.request (kind) VALUES ('sweep') RETURNING 1)
             SELECT pg_catalog.pg_notify('tenantd_wake', '') FROM r
             WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
            &[],
        )
        .await
        .during("request a sweep")?;
    Ok(())
}

/// Asks the daemons to bring these tenants to head, and hints at it once.
///
/// # Errors
/// When the database does not answer.
pub async fn migrate(client: &Client, ids: &[String]) -> Result<()> {
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
pub async fn take(client: &Client, instance: &str, limit: i64) -> Result<Vec<Request>> {
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
