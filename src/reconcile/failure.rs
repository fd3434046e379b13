//! A run that failed: what it means, what is written down, what people are told.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tracing::{debug, warn};

use super::{
    apply::ApplyError,
    disposition::{self, Disposition, Kind},
    reconciler::Outcome,
    watch,
};
use crate::{
    config::Retry,
    error::{Result, explain},
    failpoint,
    fleet::{Release, State, Tenant, ledger},
    metrics::ReconcileOutcome,
    pg::Pool,
};

/// How soon a tenant is looked at again that somebody else works on.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// An apply that ended early, and all that is known of it.
pub(super) struct Failed<'a> {
    pub(super) release: &'a Release,
    pub(super) tenant: &'a Tenant,
    pub(super) error: ApplyError,
    pub(super) seen: watch::Seen,
    /// Files the schema has, the ones committed before the failure included.
    pub(super) committed: usize,
}

impl Failed<'_> {
    /// Decides what it means and writes it down.
    pub(super) async fn handle(
        self,
        pool: &Pool,
        retry: &Retry,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let Self {
            release,
            tenant,
            error,
            seen,
            committed,
        } = self;
        let mut kind = disposition::kind(&error.source);
        if kind == Kind::Terminal && error.alone && seen.blocker.is_some() && seen.held.is_none() {
            // A concurrent build waits for others under its own deadline: 57014, but no fault of the file's.
            kind = Kind::Blocked;
        }
        if kind == Kind::Raced {
            outcome.kind = ReconcileOutcome::Busy;
            outcome.retry_in = Some(BUSY_RETRY);
            outcome.message = Some(explain(&error.source));
            debug!(tenant.schema = tenant.schema, "{}", explain(&error.source));
            return Ok(());
        }
        let Disposition {
            state,
            attempts,
            retry_in,
        } = disposition::decide(kind, tenant.state, tenant.attempts, retry);
        let text = describe(release, tenant, &error, &seen);
        let sqlstate = error.source.code().map(SqlState::code);
        let version = error
            .place
            .map(|(ordinal, _)| release.set.files()[ordinal - 1].version.as_str());
        let digest = match committed.checked_sub(1) {
            Some(index) => Some(release.set.files()[index].digest.as_str()),
            None => tenant.digest.as_deref(),
        };
        failpoint::pass("reconcile.rolled-back").await?;
        let connection = pool.get().await?;
        ledger::record_failure(
            &connection,
            &ledger::Failure {
                tenant,
                state,
                digest,
                attempts,
                next_in: retry_in,
                error: &text,
                sqlstate,
                version,
                head: &release.head().digest,
            },
        )
        .await?;
        failpoint::pass("reconcile.recorded").await?;
        warn!(
            tenant.schema = tenant.schema, migration.version = version, sqlstate, %state, attempts,
            retry_in = retry_in.map(|delay| delay.as_secs_f64()), "{text}"
        );
        outcome.kind = match state {
            State::Blocked => ReconcileOutcome::Blocked,
            State::Quarantined => ReconcileOutcome::Quarantined,
            _ => ReconcileOutcome::Failed,
        };
        outcome.retry_in = retry_in;
        outcome.message = Some(text);
        Ok(())
    }
}

/// One line: what failed, where, why, what is in the way, what to do.
fn describe(release: &Release, tenant: &Tenant, error: &ApplyError, seen: &watch::Seen) -> String {
    let schema = &tenant.schema;
    let what = match error.place {
        Some((ordinal, line)) => {
            let file = &release.set.files()[ordinal - 1];
            format!(
                "apply {} to schema {schema}: {}:{line}",
                file.version, file.file
            )
        }
        None => format!("migrate schema {schema}"),
    };
    let mut text = format!("{what}: {}", explain(&error.source));
    if let Some(held) = seen.held {
        text.push_str(&format!(
            "; cancelled because it held a lock that blocks the application for {:.1} s: split the file, or allow \
             more with a first line `-- tenantd: max_hold=30s`",
            held.as_secs_f64()
        ));
    } else if let Some(blocker) = &seen.blocker {
        text.push_str(&format!("; waited for {blocker}"));
    }
    text
}
