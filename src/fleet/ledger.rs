//! The ledger's writes: what the census saw, what failed.
//! The record of an apply is written by `tenantd.record`, inside the transaction that did the work.

use std::time::Duration;

use tokio_postgres::{Client, error::SqlState, types::Type};

use super::{state::State, tenant::Tenant};
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

/// Notes what a census page saw.
///
/// # Errors
/// When the database does not answer.
pub async fn note(client: &Client, tenants: &[Tenant]) -> Result<()> {
    // A release marks everybody who lags; that a current tenant does is not written a second time.
    let lags =
        |t: &&Tenant| t.state == State::Behind && t.known_state.as_deref() == Some("current");
    let tenants: Vec<_> = tenants.iter().filter(|tenant| !lags(tenant)).collect();
    if tenants.is_empty() {
        return Ok(());
    }
    let refused = |tenant: &Tenant| tenant.state == State::Refused;
    let text =
        |field: fn(&Tenant) -> Option<&str>| tenants.iter().map(|t| field(t)).collect::<Vec<_>>();
    let schemas: Vec<_> = tenants
        .iter()
        .map(|t| (!refused(t)).then_some(t.schema.as_str()))
        .collect();
    let problems: Vec<_> = tenants
        .iter()
        .map(|t| t.error.as_deref().filter(|_| refused(t)))
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
/// `registered` is a query that yields the registry's ids. Of these, `known` tenants were in the ledger: where it has no
/// others, and a login helps nobody, there is nothing to be done.
///
/// # Errors
/// When the database does not answer.
pub async fn note_orphans(client: &Client, registered: &str, known: i64) -> Result<u64> {
    let asked = "SELECT pg_catalog.count(*), EXISTS (SELECT FROM tenantd.behind)
                 FROM tenantd.tenant WHERE tenant_id IS NOT NULL AND state <> 'orphan'";
    let row = client.query_typed(asked, &[]).await;
    let row = &row.during("look for orphan schemas")?[0];
    if (row.get(0), row.get(1)) == (known, false) {
        return Ok(0);
    }
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

/// Notes whether a login might help anybody, for the login trigger, where that has changed. While somebody writes who is
/// behind it is left to the next time.
///
/// # Errors
/// When the database does not answer.
pub async fn note_anybody(client: &Client) -> Result<()> {
    let what = "note whether anybody is behind";
    let asked = "SELECT EXISTS (SELECT FROM tenantd.behind)
                     <> (pg_catalog.pg_sequence_last_value('tenantd.any_behind') IS NOT NULL)";
    if !client.query_typed(asked, &[]).await.during(what)?[0].get::<_, bool>(0) {
        return Ok(());
    }
    let noted = client
        .batch_execute(
            "LOCK TABLE tenantd.behind IN SHARE MODE NOWAIT;
             SELECT pg_catalog.setval('tenantd.any_behind', 1, EXISTS (SELECT FROM tenantd.behind))",
        )
        .await;
    match noted {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(()),
        noted => noted.during(what),
    }
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

/// Waits until everything that was committed before, by whomever and however, is on disk. Only a write that
/// changes a row does that: an empty commit or a SELECT waits for nothing.
///
/// # Errors
/// When the database does not answer.
pub async fn flush(client: &Client) -> Result<()> {
    client
        .batch_execute(
            "BEGIN; SET LOCAL synchronous_commit = on; UPDATE tenantd.head SET released_at = released_at; COMMIT",
        )
        .await
        .during("wait until the rollout is on disk")
}
