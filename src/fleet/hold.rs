//! Holding one tenant: nothing is done to it until a person lets it go.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, types::Type};

use super::{state::State, tenant::Tenant};
use crate::error::{During, Result};

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Holds a tenant, also one that the ledger does not know yet.
///
/// # Errors
/// When the database does not answer.
pub async fn hold(client: &Client, tenant: &Tenant, by: &str, why: &str) -> Result<()> {
    let schema = (tenant.state != State::Refused).then_some(&tenant.schema);
    client
        .execute_typed(
            "WITH held AS (
                 INSERT INTO tenantd.tenant (tenant_id, schema, name, state, held_by, held_why, held_at)
                 VALUES ($1, $2, $3, 'held', $4, $5, pg_catalog.clock_timestamp())
                 ON CONFLICT (tenant_id) DO UPDATE
                 SET state = excluded.state, held_by = excluded.held_by, held_why = excluded.held_why,
                     held_at = excluded.held_at
                 RETURNING tenant_id)
             DELETE FROM tenantd.behind b USING held h WHERE b.tenant_id = h.tenant_id",
            &[
                (&tenant.id, Type::TEXT),
                (&schema, Type::TEXT),
                (&tenant.name, Type::TEXT),
                (&by, Type::TEXT),
                (&why, Type::TEXT),
            ],
        )
        .await
        .during(format!("hold tenant {}", tenant.id))?;
    Ok(())
}

/// Lets a tenant go; whether it was held. A failure from before is forgotten: somebody has looked at it.
///
/// # Errors
/// When the database does not answer.
pub async fn unhold(client: &Client, id: &str) -> Result<bool> {
    let changed = client
        .execute_typed(
            "UPDATE tenantd.tenant t
             SET held_by = NULL, held_why = NULL, held_at = NULL, attempts = 0, next_attempt = NULL, error_head = NULL,
                 state = CASE WHEN t.digest IS NULL THEN 'unprovisioned'
                              WHEN t.digest = (SELECT h.digest FROM tenantd.head h) THEN 'current' ELSE 'behind' END
             WHERE t.tenant_id = $1 AND t.held_by IS NOT NULL",
            &[(&id, Type::TEXT)],
        )
        .await
        .during(format!("let tenant {id} go"))?;
    Ok(changed > 0)
}

/// Waits until nothing of ours runs on a schema that is held; who still does when `limit` is over.
///
/// The guard takes its lock first and asks the ledger afterwards. So whoever gets the lock after the hold was
/// committed finds it, and whoever had it before is waited for.
///
/// # Errors
/// When the database does not answer.
pub async fn until_idle(client: &Client, schema: &str, limit: Duration) -> Result<Option<String>> {
    let start = Instant::now();
    loop {
        let rows = client
            .query_typed(include_str!("at_work.sql"), &[(&schema, Type::TEXT)])
            .await
            .during(format!("ask who works on schema {schema}"))?;
        if rows[0].get(0) {
            return Ok(None);
        }
        if start.elapsed() >= limit {
            let who: Option<String> = rows[0].get(1);
            return Ok(Some(
                who.unwrap_or_else(|| "a session that cannot be seen".into()),
            ));
        }
        sleep(LOOK_AGAIN).await;
    }
}
