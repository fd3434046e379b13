//! One apply under watch, and what becomes of its connection.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tracing::info;

use super::{
    super::{disposition, failure::Failed, pooled, queue::Reason, watch, work::Envelope},
    Asker, Loaded, Outcome, Reconciler,
};
use crate::{
    error::Result,
    failpoint,
    fleet::{Release, Tenant},
    metrics::ReconcileOutcome,
    migrations::{Plan, Step},
    pg::{
        Connection,
        pool::{self, Held},
        session::Session,
    },
};

/// Tenants a working connection serves before it is replaced: each leaves a few hundred kilobytes of
/// catalog cache behind in its server process.
const TENANTS_PER_CONNECTION: usize = 250;
const ROLLBACK: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Applies what is pending to a tenant whose turn it is.
    pub(super) async fn bring(
        &self,
        connection: Connection,
        loaded: &Loaded,
        tenant: Tenant,
        (reason, asker): (Reason, Asker),
        start: Instant,
    ) -> Result<Outcome> {
        let release = &loaded.release;
        let plan = self.runner.plan(release, &tenant);
        let mut lock_timeout = disposition::lock_timeout(self.limits.lock_timeout, tenant.attempts);
        if failpoint::off("apply.lock-timeout") {
            lock_timeout = Duration::ZERO;
        }
        // Whoever signed up waits, although a sweep was first or the event was lost.
        let awaited = reason.is_event() || tenant.digest.is_none();
        let envelope = Envelope {
            lock_timeout,
            notify: awaited,
            asynchronous: self.limits.asynchronous && !awaited,
            spare: false,
        };
        failpoint::pass("reconcile.planned").await?;
        let before = tenant.ordinal.unwrap_or(0);
        let outside = plan.steps.iter().find(|step| step.is_outside());
        let (way, connection) = match self.pool.direct() {
            Some(direct) if outside.is_some() => {
                drop(connection);
                (direct, direct.get().await?)
            }
            _ => (&self.pool, connection),
        };
        let mut outcome = Outcome {
            kind: ReconcileOutcome::Applied,
            applied: release.head.saturating_sub(before),
            version: Some(release.head().version.clone()),
            message: None,
            retry_in: None,
            trouble: None,
            tripped: false,
            took: start.elapsed(),
            tenant: None,
        };
        if let Some(step) = outside
            && !Session::of(&connection).await?.own
        {
            drop(connection);
            let what = (release, &tenant, &step.files(release.set.files())[0]);
            pooled::refuse(way, &self.pool, what, &self.limits.retry, &mut outcome).await?;
            outcome.tenant = Some(tenant);
            return Ok(outcome);
        }
        let applying_since = Instant::now();
        let mut seen = watch::Seen::default();
        let connection = Held::new(connection);
        let cancel = way.cancel(&connection);
        let running = self.running.enter(&tenant.schema, cancel.clone());
        let result = {
            let applying = self
                .runner
                .apply(&connection, release, &tenant, &plan, envelope);
            let watched = tenant.has_tables || tenant.attempts > 0;
            if watched && !failpoint::off("reconcile.watch") {
                let max_hold = |first| self.max_hold(release, &plan, first);
                tokio::select! {
                    result = applying => result,
                    () = watch::watch(&self.pool, &tenant.schema, cancel, max_hold, &mut seen) => {
                        unreachable!("it watches until it is dropped")
                    }
                }
            } else {
                // Nobody can hold a lock on, or wait behind one on, what does not exist yet.
                applying.await
            }
        };
        drop(running);
        outcome.took = start.elapsed();
        match result {
            Ok(()) => {
                failpoint::pass("reconcile.applied").await?;
                loaded.tally.succeeded(before, release.head);
                if tenant.has_tables && envelope.asynchronous {
                    let quick = &loaded.quick;
                    quick.took(before, release.head, applying_since.elapsed());
                }
                give_back(connection.release(), seen.cancel.is_some());
                let ms = outcome.took.as_millis();
                info!(
                    tenant.schema = tenant.schema, migration.version = release.head().version, duration_ms = ms,
                    %reason, files = outcome.applied, "schema {} is at {}", tenant.schema, release.head().version
                );
            }
            Err(error) => {
                let committed = error.committed.unwrap_or(before);
                outcome.applied = committed.saturating_sub(before);
                outcome.version = committed
                    .checked_sub(1)
                    .map(|index| release.set.files()[index].version.clone());
                failpoint::pass("reconcile.failed").await?;
                let read_only = error.source.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
                let used_up = error.place.is_some()
                    || seen.cancel.is_some()
                    || read_only
                    || outside.is_some();
                recover(connection, used_up || self.running.ended()).await;
                if read_only {
                    // A failover: the others of this pool are connected to the old primary too.
                    self.pool.forget_idle();
                }
                if self.running.ended() {
                    outcome.kind = ReconcileOutcome::Busy;
                    return Ok(outcome);
                }
                loaded.tally.succeeded(before, committed);
                Failed {
                    loaded,
                    causes: &self.causes,
                    counts: asker == Asker::Fleet,
                    tenant: &tenant,
                    error,
                    seen,
                    committed,
                }
                .handle(&self.pool, &self.limits.retry, &mut outcome)
                .await?;
            }
        }
        outcome.tenant = Some(tenant);
        Ok(outcome)
    }

    /// How long the transaction that begins with this file may hold a lock; where it is not known, as long as
    /// any file of the plan.
    fn max_hold(&self, release: &Release, plan: &Plan, first: Option<usize>) -> Duration {
        let of = |step: &&Step| {
            let first_of_it = step.files(release.set.files()).first();
            first.is_none() || first_of_it.map(|file| file.ordinal) == first
        };
        plan.steps
            .iter()
            .filter(of)
            .flat_map(|step| step.files(release.set.files()))
            .filter_map(|file| file.markers.max_hold)
            .max()
            .unwrap_or(self.limits.max_hold)
            .max(self.limits.max_hold)
    }
}

/// A connection that has served many tenants, or that a cancel is on its way to, is replaced.
pub(in crate::reconcile) fn give_back(connection: Connection, cancelled: bool) {
    if cancelled || Connection::metrics(&connection).recycle_count >= TENANTS_PER_CONNECTION {
        pool::discard(connection);
    }
}

/// A failed transaction is rolled back before anybody else gets the connection. A session in which a
/// file failed is not used again: what the file left in it is unknown, a lock of the session's for one.
async fn recover(connection: Held, in_a_file: bool) {
    let rolled_back = tokio::time::timeout(ROLLBACK, connection.batch_execute("ROLLBACK")).await;
    if !in_a_file && matches!(rolled_back, Ok(Ok(()))) {
        drop(connection.release());
    }
}
