//! A run that failed: what it means, what is written down, what people are told.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tracing::{debug, error, warn};

use super::{
    apply::ApplyError,
    brake,
    causes::{Cause, Causes},
    disposition::{self, Disposition, Kind},
    reconciler::{Loaded, Outcome},
    watch::{self, Cancelled},
};
use crate::{
    config::Retry,
    error::{Result, explain},
    failpoint,
    fleet::{Release, State, Tenant, breaker, ledger},
    metrics::ReconcileOutcome,
    pg::Pool,
};

/// How soon a tenant is looked at again that somebody else works on.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// An apply that ended early, and all that is known of it.
pub(super) struct Failed<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) causes: &'a Causes,
    /// Whether it is evidence against the version: not when a person tried this one tenant.
    pub(super) counts: bool,
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
            loaded,
            causes,
            counts,
            tenant,
            error,
            seen,
            committed,
        } = self;
        let release = &loaded.release;
        let (kind, cancel) = judge(&error, &seen, committed);
        if kind == Kind::Raced {
            outcome.kind = ReconcileOutcome::Busy;
            outcome.retry_in = Some(BUSY_RETRY);
            outcome.message = Some(explain(&error.source));
            debug!(tenant.schema = tenant.schema, "{}", explain(&error.source));
            return Ok(());
        }
        if kind == Kind::Server {
            outcome.kind = ReconcileOutcome::Failed;
            outcome.trouble = brake::reason_of(&error.source);
            outcome.message = Some(describe(release, tenant, &error, &seen, cancel));
            return Ok(());
        }
        let Disposition {
            state,
            attempts,
            retry_in,
        } = disposition::decide(kind, disposition::Before::of(tenant), retry);
        let text = describe(release, tenant, &error, &seen, cancel);
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
        if counts && matches!(kind, Kind::Terminal | Kind::Unknown) {
            let ordinal = blamed(&error, tenant, committed, release);
            outcome.tripped = count(&connection, loaded, ordinal, tenant, &text).await?;
        }
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
        let first = causes.is_first(&Cause {
            state,
            sqlstate: sqlstate.map(ToOwned::to_owned),
            version: version.map(ToOwned::to_owned),
        });
        if first {
            warn!(tenant.schema = tenant.schema, migration.version = version, sqlstate, %state, "{text}");
        }
        debug!(
            tenant.schema = tenant.schema, migration.version = version, sqlstate, %state, attempts,
            retry_in = retry_in.map(|delay| delay.as_secs_f64()), told = first, "failed: {text}"
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

/// The kind of a failure, after what was seen from outside; and the cancel of ours, if it was one.
fn judge<'a>(
    error: &ApplyError,
    seen: &'a watch::Seen,
    committed: usize,
) -> (Kind, Option<&'a Cancelled>) {
    let kind = disposition::kind(&error.source);
    let cancelled = error.source.code() == Some(&SqlState::QUERY_CANCELED);
    match (kind, &seen.cancel) {
        // Cancelled on request, and the request was ours.
        (Kind::Unknown, Some(cancel)) if cancelled && cancel.came_late(committed) => {
            (Kind::Raced, None)
        }
        (Kind::Unknown, Some(cancel)) if cancelled => (Kind::Terminal, Some(cancel)),
        // A concurrent build waits for others under its own deadline, which is no fault of the file's.
        (Kind::Terminal, None) if cancelled && error.alone && seen.blocker.is_some() => {
            (Kind::Blocked, None)
        }
        _ => (kind, None),
    }
}

/// The file that a failure counts against. An error of ours at the end of a transaction names none: that
/// transaction held the next file, or all of them where the schema was empty.
fn blamed(error: &ApplyError, tenant: &Tenant, committed: usize, release: &Release) -> usize {
    match error.place {
        Some((ordinal, _)) => ordinal,
        // Not past the last one: a cancel may come when all is committed.
        None if tenant.has_tables => (committed + 1).min(release.head),
        None => release.head,
    }
}

/// Feeds the breaker; whether it tripped.
async fn count(
    client: &tokio_postgres::Client,
    loaded: &Loaded,
    ordinal: usize,
    tenant: &Tenant,
    text: &str,
) -> Result<bool> {
    let file = &loaded.release.set.files()[ordinal - 1];
    let successes = loaded.tally.take(ordinal);
    let Some(counted) = breaker::count(client, file, &tenant.id, successes, text).await? else {
        loaded.tally.put_back(ordinal, successes);
        return Ok(false);
    };
    if counted.tripped {
        error!(
            migration.version = file.version,
            migration.file = file.file,
            failures = counted.failures,
            tried = counted.tried,
            "version {} ({}) is stopped for the whole fleet: it failed on {} of {} tenants; correct the file and reload, \
             or run `tenantd release {}`; the last error: {text}",
            file.version,
            file.file,
            counted.failures,
            counted.tried,
            file.version
        );
    }
    Ok(counted.tripped)
}

/// One line: what failed, where, why, what is in the way, what to do.
fn describe(
    release: &Release,
    tenant: &Tenant,
    error: &ApplyError,
    seen: &watch::Seen,
    cancel: Option<&Cancelled>,
) -> String {
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
    if let Some(cancel) = cancel {
        text.push_str(&format!(
            "; cancelled because it held a lock that blocks the application for {:.1} s: split the file, or allow \
             more with a first line `-- tenantd: max_hold=30s`",
            cancel.held.as_secs_f64()
        ));
    } else if let Some(blocker) = &seen.blocker {
        text.push_str(&format!("; waited for {blocker}"));
    }
    text
}
