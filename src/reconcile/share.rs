//! Takes tenants forward that lack the same quick files, several in a transaction, and finds out who keeps the others
//! from it.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;

use super::{
    apply,
    batch::{Taken, done},
    disposition::{self, Kind},
    quick::HOLD,
    reconciler::{Loaded, Outcome, Reconciler},
    together::Together,
};
use crate::{
    fleet::Tenant,
    metrics::ReconcileOutcome,
    pg::{pool::Held, session},
};

/// Tenants that may fail out of a batch before the rest are worked on alone.
const FAULTS: usize = 3;
/// How long the server may take to confirm a cancel or a rollback.
const CONFIRM: Duration = Duration::from_secs(5);

/// Why a shared transaction failed.
enum Fault {
    /// A statement, for one of the tenants where that is known: the others may go on.
    Statement(Option<usize>),
    /// It was cancelled because it took too long, at one of the tenants where that is known; the connection is not to
    /// be used again.
    Slow(Option<usize>),
    /// Something else; the connection is not to be used again.
    Lost,
}

impl Reconciler {
    /// Takes tenants forward that stand at the same version, and says in `taken` which. The connection comes back if
    /// it is as good as before.
    pub(super) async fn share(
        &self,
        connection: Held,
        loaded: &Loaded,
        mut tenants: Vec<(usize, Tenant)>,
        taken: &mut [Taken],
    ) -> Option<Held> {
        let (before, head) = (tenants[0].1.ordinal.unwrap_or(0), loaded.release.head);
        // Not once and for all: a restarted server may count what it did not before.
        let counted = session::counts_settings(&connection).await.ok()?;
        let mut faults = 0;
        while !tenants.is_empty() {
            let most = loaded.quick.at_once(before, head).min(tenants.len());
            let mut group: Vec<_> = tenants.drain(..most).collect();
            for &(index, _) in &group {
                taken[index] = Taken::Alone;
            }
            let start = Instant::now();
            match self
                .advance(&connection, loaded, &mut group, &mut faults, counted)
                .await
            {
                Ok(()) if most > 0 => {}
                // The files are slow, or some tenant's data may be: each alone.
                Ok(()) | Err(Fault::Statement(_)) => {
                    for (index, _) in tenants {
                        taken[index] = Taken::Alone;
                    }
                    return Some(connection);
                }
                Err(Fault::Slow(Some(culprit))) => {
                    // The others come again, with fewer beside them.
                    for (at, (index, _)) in group.iter().enumerate() {
                        if at != culprit {
                            taken[*index] = Taken::Later;
                        }
                    }
                    return None;
                }
                Err(Fault::Slow(None) | Fault::Lost) => return None,
            }
            for (index, tenant) in group {
                loaded.tally.succeeded(before, head);
                taken[index] = done(applied(loaded, before, tenant, start.elapsed()));
            }
        }
        Some(connection)
    }

    /// Applies to all of a group what it lacks, file by file. Who fails falls out of it.
    async fn advance(
        &self,
        connection: &Held,
        loaded: &Loaded,
        group: &mut Vec<(usize, Tenant)>,
        faults: &mut usize,
        counted: bool,
    ) -> Result<(), Fault> {
        let Some((_, first)) = group.first() else {
            return Ok(());
        };
        let release = &loaded.release;
        let plan = self.plan(loaded, first);
        let Some(settings) = self.together(release, &plan) else {
            return Err(Fault::Statement(None));
        };
        let mut digest = first.digest.clone().unwrap_or_default();
        let before = first.ordinal.unwrap_or(0);
        for file in &release.set.files()[before..release.head] {
            let known = loaded.quick.knows(file.ordinal - 1, file.ordinal);
            loop {
                let tenants: Vec<_> = group.iter().map(|(_, tenant)| tenant).collect();
                let count = u32::try_from(tenants.len()).unwrap_or(u32::MAX);
                let together = Together {
                    release,
                    settings,
                    tenants: &tenants,
                    before: &digest,
                    file,
                    asynchronous: self.asynchronous(),
                    counted,
                };
                let start = Instant::now();
                let fault = self.send(connection, &together).await.err();
                let each = match fault {
                    Some(Fault::Slow(_)) => HOLD * 2 / count,
                    _ => start.elapsed() / count,
                };
                if matches!(fault, None | Some(Fault::Slow(_))) {
                    loaded.quick.took(file.ordinal - 1, file.ordinal, each);
                }
                match fault {
                    None => break,
                    Some(Fault::Statement(Some(culprit))) if known && *faults < FAULTS => {
                        *faults += 1;
                        group.remove(culprit);
                        if group.is_empty() {
                            return Ok(());
                        }
                    }
                    // A file that nobody took yet may be at fault for all of them.
                    Some(fault) => return Err(fault),
                }
            }
            digest.clone_from(&file.digest);
        }
        Ok(())
    }

    /// Sends one message for several tenants.
    async fn send(&self, connection: &Held, together: &Together<'_>) -> Result<(), Fault> {
        let sql = together.sql();
        let cancel = self.pool().cancel(connection);
        let _running = self.enter(&together.tenants[0].schema, cancel.clone());
        let sending = apply::send(connection, &sql);
        tokio::pin!(sending);
        let Ok((answered, result)) = timeout(HOLD, &mut sending).await else {
            // It may have come to its end meanwhile: those tenants are looked at again.
            let ended = timeout(CONFIRM, async { tokio::join!(cancel.send(), sending) }).await;
            let culprit = ended
                .ok()
                .and_then(|(_, (answered, _))| together.culprit(answered));
            return Err(Fault::Slow(culprit));
        };
        let Err(error) = result else { return Ok(()) };
        debug!(
            tenants = together.tenants.len(),
            "not all of them could be taken forward together: {error}"
        );
        let rolled_back = timeout(CONFIRM, connection.batch_execute("ROLLBACK")).await;
        let whose = match disposition::kind(&error) {
            Kind::Transient | Kind::Server | Kind::Raced => None,
            _ => together.culprit(answered),
        };
        match rolled_back {
            Ok(Ok(())) if !self.stopping() => Err(Fault::Statement(whose)),
            _ => Err(Fault::Lost),
        }
    }
}

fn applied(loaded: &Loaded, before: usize, tenant: Tenant, took: Duration) -> Outcome {
    let release = &loaded.release;
    let version = &release.head().version;
    debug!(
        tenant.schema = tenant.schema,
        migration.version = version,
        "schema {} is at {version}",
        tenant.schema
    );
    Outcome {
        kind: ReconcileOutcome::Applied,
        applied: release.head - before,
        version: Some(version.clone()),
        message: None,
        retry_in: None,
        trouble: None,
        tripped: false,
        took,
        tenant: Some(tenant),
    }
}
