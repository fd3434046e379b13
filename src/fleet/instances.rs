//! The daemons that run, by their heartbeats: so that a command can say that nobody will answer it.

use std::time::Duration;

use tokio_postgres::{Client, types::Type};

use crate::error::{During, Result};

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

/// How long a heartbeat counts.
pub const HEARTBEAT_COUNTS: Duration = Duration::from_secs(30);

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
pub async fn running(client: &Client) -> Result<Vec<Instance>> {
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
