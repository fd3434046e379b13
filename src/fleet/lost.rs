//! Lost schemas: their remains are renamed and kept, never dropped.

use tokio_postgres::{Client, types::Type};

use super::tenant::Tenant;
use crate::{
    error::{During, Result},
    pg::ident::Ident,
};

/// Renames what is left of a lost schema to `<schema>__lost_<time>` and detaches its ledger row, so that
/// the tenant starts anew. Returns the new name; empty when no schema was left.
///
/// # Errors
/// When the database refuses; nothing is changed then.
pub async fn set_aside(client: &mut Client, tenant: &Tenant) -> Result<String> {
    let what = || format!("set aside what is left of schema {}", tenant.schema);
    let transaction = client.transaction().await.during(what())?;
    let rows = transaction
        .query_typed(
            "SELECT pg_catalog.set_config('lock_timeout', '1s', true),
                    pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSMS')",
            &[],
        )
        .await
        .during(what())?;
    let suffix = format!("__lost_{}", rows[0].get::<_, &str>(1));
    let remains = match tenant.namespace {
        Some(_) => format!("{}{suffix}", shorten(&tenant.schema, 63 - suffix.len())),
        None => String::new(),
    };
    // The row lock is the guard: of two that rebuild, one finds the digest gone.
    let detached = transaction
        .execute_typed(
            "UPDATE tenantd.tenant SET tenant_id = NULL, schema = nullif($2, ''), state = 'orphan'
             WHERE tenant_id = $1 AND digest IS NOT DISTINCT FROM $3",
            &[
                (&tenant.id, Type::TEXT),
                (&remains, Type::TEXT),
                (&tenant.digest, Type::TEXT),
            ],
        )
        .await
        .during(what())?;
    if detached > 0 && !remains.is_empty() {
        let rename = format!(
            "ALTER SCHEMA {} RENAME TO {}",
            Ident(&tenant.schema),
            Ident(&remains)
        );
        transaction.batch_execute(&rename).await.during(what())?;
    }
    transaction.commit().await.during(what())?;
    Ok(remains)
}

/// The longest prefix of at most `bytes` bytes.
fn shorten(name: &str, bytes: usize) -> &str {
    &name[..name.floor_char_boundary(bytes)]
}
