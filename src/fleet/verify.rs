//! Verification: whether a schema's catalog is what its files build. It finds what somebody changed by hand.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::Mutex;
use tokio_postgres::{Client, types::Type};

use super::{
    census::Release,
    fingerprint::{Difference, Fingerprint},
    tenant::Tenant,
};
use crate::{
    config::Migrations,
    error::{During, Result},
    pg::{Connection, Pool},
};

/// For reading one schema and writing down what differs.
const LIMIT: Duration = Duration::from_secs(30);

/// Compares tenants with fresh schemas, each of which is built once.
pub struct Verifier {
    release: Release,
    migrations: Migrations,
    /// By ordinal of the last file.
    fresh: Mutex<HashMap<usize, Arc<Fingerprint>>>,
}

impl Verifier {
    /// A verifier for this set.
    pub fn new(release: Release, migrations: Migrations) -> Self {
        Self {
            release,
            migrations,
            fresh: Mutex::default(),
        }
    }

    /// How the tenant's schema differs from a fresh one at its version, written to the ledger too.
    /// `None`: there is nothing to compare, because the set does not say what the schema should be.
    ///
    /// # Errors
    /// When the files do not apply to an empty schema, or the database does not answer.
    pub async fn verify(&self, pool: &Pool, tenant: &Tenant) -> Result<Option<Difference>> {
        let reached = tenant.ordinal.filter(|&ordinal| ordinal > 0);
        let (Some(ordinal), Some(namespace)) = (reached, tenant.namespace) else {
            return Ok(None);
        };
        let fresh = self.fresh(pool, ordinal).await?;
        let path = &self.migrations.search_path;
        let compare = async |connection: &mut Connection| {
            let found = Fingerprint::of(connection, &tenant.schema, namespace, path).await?;
            let difference = found.difference(&fresh);
            self.record(connection, tenant, ordinal, &difference)
                .await?;
            Ok(Some(difference))
        };
        let what = format!("verify schema {}", tenant.schema);
        pool.ask(&what, LIMIT, compare).await
    }

    async fn fresh(&self, pool: &Pool, ordinal: usize) -> Result<Arc<Fingerprint>> {
        let mut built = self.fresh.lock().await;
        if let Some(fresh) = built.get(&ordinal) {
            return Ok(Arc::clone(fresh));
        }
        let files = &self.release.set.files()[..ordinal];
        let fresh = Arc::new(Fingerprint::built(pool, files, &self.migrations).await?);
        built.insert(ordinal, Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Unless the tenant was migrated meanwhile: then the comparison says nothing.
    async fn record(
        &self,
        client: &Client,
        tenant: &Tenant,
        ordinal: usize,
        difference: &Difference,
    ) -> Result<()> {
        let version = &self.release.set.files()[ordinal - 1].version;
        let text = (!difference.is_empty()).then(|| difference.to_string());
        client
            .execute_typed(
                "INSERT INTO tenantd.verified AS v (tenant, version, difference)
                 SELECT t.id, $2, $3 FROM tenantd.tenant t
                 WHERE t.tenant_id = $1 AND t.digest IS NOT DISTINCT FROM $4
                 ON CONFLICT (tenant) DO UPDATE
                 SET version = excluded.version, verified_at = excluded.verified_at, difference = excluded.difference",
                &[
                    (&tenant.id, Type::TEXT),
                    (version, Type::TEXT),
                    (&text, Type::TEXT),
                    (&tenant.digest, Type::TEXT),
                ],
            )
            .await
            .during(format!("record the verification of tenant {}", tenant.id))?;
        Ok(())
    }
}

/// The ids of this share (0 to 1) of the tenants, those first that were not verified for longest.
///
/// # Errors
/// When the database does not answer.
pub async fn due(client: &Client, release: &Release, share: f64) -> Result<Vec<String>> {
    // Of others nobody can say what they should be.
    let files = release.set.files();
    let digests: Vec<_> = files.iter().map(|file| file.digest.as_str()).collect();
    let rows = client
        .query_typed(
            "SELECT t.tenant_id FROM tenantd.tenant t LEFT JOIN tenantd.verified v ON v.tenant = t.id
             WHERE t.tenant_id IS NOT NULL AND t.digest = ANY ($2)
               AND t.state IN ('current', 'behind', 'blocked', 'failed', 'quarantined')
             ORDER BY v.verified_at NULLS FIRST, t.id
             LIMIT (SELECT pg_catalog.ceil($1 * pg_catalog.count(*)) FROM tenantd.tenant)::bigint",
            &[(&share, Type::FLOAT8), (&digests, Type::TEXT_ARRAY)],
        )
        .await
        .during("choose tenants to verify")?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// How many tenants differed when they were last verified.
///
/// # Errors
/// When the database does not answer.
pub async fn drifted(client: &Client) -> Result<i64> {
    let rows = client
        .query_typed(
            "SELECT pg_catalog.count(*) FROM tenantd.verified v JOIN tenantd.tenant t ON t.id = v.tenant
             WHERE v.difference IS NOT NULL AND t.tenant_id IS NOT NULL AND t.state <> 'orphan'",
            &[],
        )
        .await
        .during("count the drifted tenants")?;
    Ok(rows[0].get(0))
}
