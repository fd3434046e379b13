//! What to apply comes through one seam. SQL files are the first implementation of it.

use futures::future::BoxFuture;
use tokio_postgres::{Client, types::Type};

use super::{
    apply::{ApplyError, apply},
    message::Message,
    outside,
    work::{Envelope, Settings, Work},
};
use crate::{
    fleet::{Release, Tenant},
    migrations::{Markers, Migration, Plan, Step, check::Known},
};

/// Brings one schema from what was observed to the released head.
pub trait Runner: Send + Sync {
    /// What would be done to this tenant: pure.
    fn plan(&self, release: &Release, tenant: &Tenant) -> Plan;

    /// Does it, under a guard that the plan still holds, and records it in the same transactions.
    fn apply<'a>(
        &'a self,
        client: &'a Client,
        release: &'a Release,
        tenant: &'a Tenant,
        plan: &'a Plan,
        envelope: Envelope,
    ) -> BoxFuture<'a, Result<(), ApplyError>>;

    /// How the files are run, where several tenants may take this plan's in one transaction.
    fn together(&self, release: &Release, plan: &Plan) -> Option<&Settings>;

    /// What a fresh schema depends on besides the files: see [`Settings::made`].
    fn made(&self) -> String;
}

/// Runs the SQL files of the migration set, one message a tenant.
#[derive(Debug)]
pub struct SqlFiles {
    /// How files are run.
    pub settings: Settings,
}

impl Runner for SqlFiles {
    fn plan(&self, release: &Release, tenant: &Tenant) -> Plan {
        Plan::new(
            tenant.namespace.is_some(),
            tenant.has_tables,
            tenant.ordinal.unwrap_or(0),
            &release.set.files()[..release.head],
        )
    }

    fn apply<'a>(
        &'a self,
        client: &'a Client,
        release: &'a Release,
        tenant: &'a Tenant,
        plan: &'a Plan,
        envelope: Envelope,
    ) -> BoxFuture<'a, Result<(), ApplyError>> {
        Box::pin(async move {
            let mut tenant = tenant.clone();
            let mut create = plan.create_schema;
            let mut committed = None;
            // One message for all transactions up to a file that runs outside.
            for steps in plan
                .steps
                .chunk_by(|a, b| !a.is_outside() && !b.is_outside())
            {
                if !create && tenant.namespace.is_none() {
                    tenant.namespace = namespace(client, &tenant.schema).await?;
                }
                let work = Work {
                    release,
                    tenant: &tenant,
                    settings: &self.settings,
                    envelope,
                };
                let files: Vec<&[Migration]> = steps
                    .iter()
                    .map(|step| step.files(release.set.files()))
                    .collect();
                let result = match steps {
                    [Step::Outside(_)] => outside::run(client, work, &files[0][0]).await,
                    _ => apply(client, &Message::new(work, create, &files)).await,
                };
                result.map_err(|error| ApplyError {
                    committed: error.committed.or(committed),
                    ..error
                })?;
                create = false;
                let last = files.last().and_then(|files| files.last());
                committed = last.map(|file| file.ordinal);
                tenant.digest = last.map(|file| file.digest.clone());
            }
            Ok(())
        })
    }

    fn together(&self, release: &Release, plan: &Plan) -> Option<&Settings> {
        let shares = |file: &Migration| {
            !file.opaque
                && file.markers == Markers::default()
                && file.pieces(&mut Known::default()).len() == 1
        };
        let all = plan.steps.iter().all(|step| !step.is_outside())
            && plan.files(release.set.files()).all(shares);
        (all && !plan.create_schema).then_some(&self.settings)
    }

    fn made(&self) -> String {
        self.settings.made()
    }
}

/// The oid of a schema that the message before has created.
async fn namespace(client: &Client, schema: &str) -> Result<Option<u32>, ApplyError> {
    let rows = client
        .query_typed(
            "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name",
            &[(&schema, Type::TEXT)],
        )
        .await
        .map_err(ApplyError::without_place)?;
    Ok(rows.first().map(|row| row.get(0)))
}
