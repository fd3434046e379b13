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
    pg::{
        pool::{Held, is_fresh},
        session::Session,
    },
};

/// Faults of tenants that a batch bears: beyond, more of it fails than is shared.
const FAULTS: usize = 3;
/// Tenants that are worked on alone where files are slow, before it is seen whether they still are.
const SLOW: usize = 8;
/// Tenants in the first shared transaction of a connection, whose server process has its caches to fill: more would take
/// longer than they may. Each one after it takes twice as many.
const FEW: usize = 4;
/// How long the server may take to confirm a cancel or a rollback.
const CONFIRM: Duration = Duration::from_secs(5);

/// Why a shared transaction failed.
enum Fault {
    /// A statement, for one of the tenants where that is known: the others may go on.
    Statement(Option<usize>),
    /// Somebody else was in the way of one of them, and nobody knows of which; or one is no longer as it was seen.
    Passing,
    /// It was cancelled because it took too long, at one of the tenants where that is known; the connection is not to
    /// be used again.
    Slow(Option<usize>),
    /// Something else; the connection is not to be used again.
    Lost,
}

/// Tenants that stand at the same version, with their places among those that were asked for.
pub(super) struct Batch<'a> {
    /// What they are compared with.
    pub(super) loaded: &'a Loaded,
    /// The tenants.
    pub(super) tenants: Vec<(usize, Tenant)>,
    /// They were looked at just now, not only seen by a sweep some time ago.
    pub(super) looked_at: bool,
}

/// How the groups of a batch are taken forward.
struct Way<'a> {
    connection: &'a Held,
    loaded: &'a Loaded,
    looked_at: bool,
    session: Session,
}

impl Reconciler {
    /// Takes tenants forward together, and says in `taken` which. The connection comes back if it is as good as before.
    pub(super) async fn share(
        &self,
        connection: Held,
        batch: Batch<'_>,
        taken: &mut [Taken],
    ) -> Option<Held> {
        let (loaded, mut tenants) = (batch.loaded, batch.tenants);
        let (before, head) = (tenants[0].1.ordinal.unwrap_or(0), loaded.release.head);
        let way = Way {
            connection: &connection,
            loaded,
            looked_at: batch.looked_at,
            session: self.pool().session(&connection).await.ok()?,
        };
        let mut bearable = match is_fresh(&connection) {
            true => FEW,
            false => usize::MAX,
        };
        let (mut faults, mut warm) = (0, false);
        while !tenants.is_empty() {
            let quick = loaded.quick.at_once(before, head);
            let most = quick.min(bearable).min(tenants.len());
            bearable = bearable.saturating_mul(2);
            let mut group: Vec<_> = tenants.drain(..most).collect();
            set(&group, Taken::Alone, taken);
            let start = Instant::now();
            let advanced = self.advance(&way, &mut group, &mut faults, warm).await;
            warm = true;
            match advanced {
                Ok(()) if most > 0 => {}
                // The files are slow, or the machine is just now.
                Ok(()) => {
                    set(&tenants[..SLOW.min(tenants.len())], Taken::Alone, taken);
                    return Some(connection);
                }
                // The file or the server may be at fault.
                Err(Fault::Statement(_)) => {
                    set(&tenants, Taken::Alone, taken);
                    return Some(connection);
                }
                Err(Fault::Passing) => {
                    if !way.looked_at {
                        set(&group, Taken::Later, taken);
                    }
                    faults += 1;
                    if faults >= FAULTS {
                        return Some(connection);
                    }
                    continue;
                }
                // Those before and after the one that took long come again, with fewer beside them.
                Err(Fault::Slow(Some(at))) => {
                    set(&group[..at], Taken::Later, taken);
                    set(&group[at + 1..], Taken::Later, taken);
                    return None;
                }
                Err(Fault::Slow(None)) if group.len() > 1 => {
                    set(&group, Taken::Later, taken);
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

    /// Applies to all of a group what it lacks, file by file. Who fails falls out of it. `warm`: this connection has
    /// done so before; else it tells too little of files that nobody knows yet.
    async fn advance(
        &self,
        way: &Way<'_>,
        group: &mut Vec<(usize, Tenant)>,
        faults: &mut usize,
        warm: bool,
    ) -> Result<(), Fault> {
        let loaded = way.loaded;
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
                    counted: way.session.counts_settings,
                };
                let start = Instant::now();
                let fault = self.send(way, &together).await.err();
                let each = match fault {
                    Some(Fault::Slow(_)) => HOLD * 2 / count,
                    _ => start.elapsed() / count,
                };
                let slow = matches!(fault, Some(Fault::Slow(_)));
                if slow || fault.is_none() && (known || warm) {
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
    async fn send(&self, way: &Way<'_>, together: &Together<'_>) -> Result<(), Fault> {
        let (connection, sql) = (way.connection, together.sql());
        let cancel = self.pool().cancel(connection);
        let _running = self.enter(&together.tenants[0].schema, cancel.clone());
        let sending = apply::send(connection, &sql);
        tokio::pin!(sending);
        // A pooler lets it wait for a session first, which holds nobody up, and PgBouncer 1.18 may end at a cancel
        // whose client does not wait for the answer (pgbouncer#801): the server bounds each statement there.
        let ended = match way.session.own {
            true => timeout(HOLD, &mut sending).await,
            false => Ok((&mut sending).await),
        };
        let Ok((answered, result)) = ended else {
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
        if !matches!(rolled_back, Ok(Ok(()))) || self.stopping() {
            return Err(Fault::Lost);
        }
        let culprit = together.at_fault(answered, &error);
        Err(match disposition::kind(&error) {
            Kind::Transient | Kind::Server => Fault::Statement(None),
            Kind::Raced if !way.looked_at => Fault::Passing,
            Kind::Raced | Kind::Blocked | Kind::Conflict
                if culprit.is_none() || together.tenants.len() == 1 =>
            {
                Fault::Passing
            }
            _ => Fault::Statement(culprit),
        })
    }
}

fn set(tenants: &[(usize, Tenant)], how: Taken, taken: &mut [Taken]) {
    for &(index, _) in tenants {
        taken[index] = how.clone();
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
