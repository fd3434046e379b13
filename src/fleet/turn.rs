//! Turns: installs at the same time go one after another, because two that replace one function fail.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Transaction;

use crate::error::{During, Error, Result};

const LIMIT: Duration = Duration::from_secs(60);

/// Whether it is ours; it ends with the transaction. The lock is tried, never waited for, because a
/// waiting statement would hold a snapshot.
pub(super) async fn taken(transaction: &Transaction<'_>, what: &str) -> Result<bool> {
    let rows = transaction
        .query_typed(
            "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('tenantd install', 0))",
            &[],
        )
        .await
        .during(what)?;
    Ok(rows[0].get(0))
}

/// Lets the others go on for a while.
///
/// # Errors
/// When that has taken too long since `start`.
pub(super) async fn pause(start: Instant) -> Result<()> {
    if start.elapsed() > LIMIT {
        return Err(Error::Timeout {
            operation: "wait for another tenantd install".into(),
            limit: LIMIT,
        });
    }
    sleep(Duration::from_millis(50)).await;
    Ok(())
}
