//! What to apply comes through one seam. SQL files are the first implementation of it.

use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::{
    apply::{ApplyError, apply},
    message::{Envelope, Message, Settings},
};
use crate::{
    fleet::{Release, Tenant},
    migrations::Plan,
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
            release.head,
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
            let message = Message::new(release, tenant, plan, &self.settings, envelope);
            apply(client, release, &message).await
        })
    }
}
