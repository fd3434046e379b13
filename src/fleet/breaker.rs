//! The breaker: a version that keeps failing is stopped for the whole fleet, by a row in the ledger that
//! every daemon reads where it plans. So one bad file reaches a handful of tenants and not all of them.

use serde::Serialize;
use tokio_postgres::{Client, types::Type};

use super::census::Release;
use crate::{
    error::{During, Result},
    failpoint,
    migrations::Migration,
};

/// A version that is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// The version.
    pub version: String,
    /// Its file.
    pub file: String,
    /// Tenants it failed on until it was stopped.
    pub failures: i64,
    /// When it was stopped (UTC).
    pub since: String,
    /// The last error.
    pub error: String,
    /// What to do next.
    pub next: String,
}

/// What a counted failure did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Tenants the version failed on.
    pub failures: i64,
    /// Tenants that tried it.
    pub tried: i64,
    /// Whether this failure stopped the version.
    pub tripped: bool,
}

/// What to do about a stopped version.
pub fn advice(version: &str) -> String {
    format!("correct the file and reload, or try it again with `tenantd release {version}`")
}

/// Counts the failure of a file on a tenant. `None`: that tenant is counted already, or the version is stopped.
///
/// # Errors
/// When the database does not answer.
pub async fn count(
    client: &Client,
    file: &Migration,
    tenant: &str,
    successes: u32,
    error: &str,
) -> Result<Option<Counted>> {
    if failpoint::off("breaker.count") {
        return Ok(None);
    }
    let rows = client
        .query_typed(
            include_str!("breaker_count.sql"),
            &[
                (&file.digest, Type::TEXT),
                (&file.version, Type::TEXT),
                (&file.file, Type::TEXT),
                (&tenant, Type::TEXT),
                (&i64::from(successes), Type::INT8),
                (&error, Type::TEXT),
            ],
        )
        .await
        .during(format!("count the failure of version {}", file.version))?;
    Ok(rows.first().map(|row| Counted {
        failures: row.get(0),
        tried: row.get(1),
        tripped: row.get(2),
    }))
}

/// The versions of this release that are stopped, in order. Rows of other sets concern nobody here.
///
/// # Errors
/// When the database does not answer.
pub async fn stopped(client: &Client, release: &Release) -> Result<Vec<Stopped>> {
    let rows = client
        .query_typed(
            "SELECT version, file, failures, error,
                    pg_catalog.to_char(opened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
             FROM tenantd.breaker WHERE opened_at IS NOT NULL AND digest = ANY ($1)
             ORDER BY pg_catalog.array_position($1, digest)",
            &[(&digests(release), Type::TEXT_ARRAY)],
        )
        .await
        .during("look for stopped versions")?;
    Ok(rows
        .iter()
        .map(|row| Stopped {
            next: advice(row.get(0)),
            version: row.get(0),
            file: row.get(1),
            failures: row.get(2),
            error: row.get(3),
            since: row.get(4),
        })
        .collect())
}

/// Lets the stopped versions be tried again, or one of them; forgets what was counted. Returns which.
///
/// # Errors
/// When the database does not answer.
pub async fn close(
    client: &Client,
    release: &Release,
    version: Option<&str>,
) -> Result<Vec<String>> {
    let rows = client
        .query_typed(
            "DELETE FROM tenantd.breaker
             WHERE opened_at IS NOT NULL AND digest = ANY ($1) AND version = coalesce($2, version)
             RETURNING version",
            &[
                (&digests(release), Type::TEXT_ARRAY),
                (&version, Type::TEXT),
            ],
        )
        .await
        .during("release versions")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn digests(release: &Release) -> Vec<&str> {
    release.set.files()[..release.head]
        .iter()
        .map(|file| file.digest.as_str())
        .collect()
}
