//! A file outside a transaction and no session to run it in: refused before anything is begun.
//!
//! Its guard is a lock of the session's (`outside.rs`). Behind a transaction pooler the lock would be taken
//! in one session and the statements sent in others: nobody would be kept out, and nobody would let it go.

use tracing::warn;

use super::{
    disposition::{self, Disposition, Kind},
    reconciler::Outcome,
};
use crate::{
    config::Retry,
    error::Result,
    fleet::{Release, Tenant, ledger},
    metrics::ReconcileOutcome,
    migrations::Migration,
    pg::Pool,
};

/// Writes down that `file` cannot run over connections of `way`. It is tried again with backoff, as whatever
/// passes without the file being changed.
pub(super) async fn refuse(
    way: &Pool,
    pool: &Pool,
    (release, tenant, file): (&Release, &Tenant, &Migration),
    retry: &Retry,
    outcome: &mut Outcome,
) -> Result<()> {
    let Disposition {
        state,
        attempts,
        retry_in,
    } = disposition::decide(Kind::Transient, disposition::Before::of(tenant), retry);
    let text = format!(
        "apply {} to schema {}: {} runs outside a transaction and needs a session of its own, and a pooler is in \
         between ({}): set database.listen_url to an address past it, with the same user as database.url",
        file.version,
        tenant.schema,
        file.file,
        way.target()
    );
    let failure = ledger::Failure {
        tenant,
        state,
        digest: tenant.digest.as_deref(),
        attempts,
        next_in: retry_in,
        error: &text,
        sqlstate: None,
        version: Some(&file.version),
        head: &release.head().digest,
    };
    ledger::record_failure(&*pool.get().await?, &failure).await?;
    warn!(
        tenant.schema = tenant.schema, migration.version = file.version, %state, attempts,
        retry_in = retry_in.map(|delay| delay.as_secs_f64()), "{text}"
    );
    outcome.kind = ReconcileOutcome::Failed;
    outcome.applied = 0;
    outcome.version.clone_from(&tenant.version);
    outcome.retry_in = retry_in;
    outcome.message = Some(text);
    Ok(())
}
