//! Lost schemas: their remains are renamed and kept, never dropped.

use tokio_postgres::{Client, types::Type};

use super::tenant::Tenant;
use crate::{
    error::{During, Error, Result},
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
            "SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('tenantd:' || $1, 0)),
                    pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSMS'),
                    pg_catalog.set_config('lock_timeout', '1s', true)",
            &[(&tenant.schema, Type::TEXT)],
        )
        .await
        .during(what())?;
    let suffix = format!("__lost_{}", rows[0].get::<_, &str>(1));
    let locked: bool = rows[0].get(0);
    let remains = match tenant.namespace {
        Some(_) => format!("{}{suffix}", shorten(&tenant.schema, 63 - suffix.len())),
        None => String::new(),
    };
    // Under the lock that every apply takes, and in a statement of its own, so that it sees what the
    // holder before us committed: the schema is still the one that was seen, and still without tables.
    let detached = transaction
        .execute_typed(
            "UPDATE tenantd.tenant t SET tenant_id = NULL, schema = nullif($2, ''), state = 'orphan'
             WHERE t.tenant_id = $1 AND t.digest IS NOT DISTINCT FROM $3 AND t.held_by IS NULL
               AND (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = $4::text::name) IS NOT DISTINCT FROM $5
               AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
                   WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $5
                     AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p'))",
            &[
                (&tenant.id, Type::TEXT),
                (&remains, Type::TEXT),
                (&tenant.digest, Type::TEXT),
                (&tenant.schema, Type::TEXT),
                (&tenant.namespace, Type::OID),
            ],
        )
        .await
        .during(what())?;
    if !locked || detached == 0 {
        return Err(Error::Refused(format!(
            "{}: it is no longer lost, or somebody works on it; look again",
            what()
        )));
    }
    if !remains.is_empty() {
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
