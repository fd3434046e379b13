//! Many tenants at once: one look for all of them, one answer for those that are current, and shared transactions
//! for those that lack the same quick files. Whoever needs more gets a run of its own.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tracing::debug;

use super::{
    apply,
    disposition::{self, Kind},
    queue::{Key, Reason},
    quick::HOLD,
    reconciler::{Asker, Loaded, Outcome, Reconciler, Verdict},
    together::Together,
};
use crate::{
    error::Result,
    failpoint,
    fleet::{Tenant, ledger},
    metrics::ReconcileOutcome,
    migrations::Migration,
    pg::{
        Connection,
        pool::{self, Held},
    },
};

/// Tenants looked at in one query.
pub const BATCH: usize = 256;
/// Batches a connection serves before it is replaced: what a quick file leaves in its server process is a few
/// kilobytes a tenant.
const BATCHES_PER_CONNECTION: usize = 8;
/// Tenants that may fail out of a batch before the rest are worked on alone.
const FAULTS: usize = 3;
/// How long the server may take to confirm a cancel.
const CONFIRM: Duration = Duration::from_secs(5);

/// What a batch did with one of its tenants.
#[derive(Debug)]
pub enum Taken {
    /// It is done.
    Done(Box<Outcome>),
    /// It needs a run of its own.
    Alone,
}

/// Why a shared transaction failed.
enum Fault {
    /// A statement for one of the tenants, where that is known; the others may go on.
    Statement(Option<usize>),
    /// It was cancelled because it took too long; the connection is not to be used again.
    Slow,
    /// Something else; the connection is not to be used again.
    Lost,
}

impl Reconciler {
    /// Looks at these tenants and does what can be done for many at once; the answers are in their order.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn batch(&self, ids: &[Key], reason: Reason) -> Result<Vec<Taken>> {
        let start = Instant::now();
        let loaded = self.loaded();
        let connection = self.pool().get().await?;
        let names: Vec<&str> = ids.iter().map(|id| &**id).collect();
        let Some(tenants) = loaded.census.tenants(&connection, &names).await? else {
            return Ok(ids.iter().map(|_| Taken::Alone).collect());
        };
        failpoint::pass("reconcile.looked").await?;
        let mut tenants: HashMap<String, Tenant> = tenants
            .into_iter()
            .map(|tenant| (tenant.id.clone(), tenant))
            .collect();
        let mut settled = Vec::new();
        let mut noted = Vec::new();
        let mut pending: BTreeMap<usize, Vec<(usize, Tenant)>> = BTreeMap::new();
        let mut taken = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            let Some(tenant) = tenants.remove(&**id) else {
                taken.push(done(Outcome::without_tenant(start)));
                continue;
            };
            let (kind, message) = match self.judge(&tenant, reason, Asker::Fleet) {
                Verdict::Settle => {
                    settled.push(tenant.clone());
                    (ReconcileOutcome::Current, None)
                }
                Verdict::Note(kind, message) => {
                    noted.push(tenant.clone());
                    (kind, message)
                }
                Verdict::Wait(message, retry_in) => {
                    let waits = Outcome::of(tenant, ReconcileOutcome::Waiting, message, start);
                    taken.push(done(Outcome { retry_in, ..waits }));
                    continue;
                }
                Verdict::Bring
                    if reason == Reason::Sweep && tenant.has_tables && tenant.attempts == 0 =>
                {
                    let before = tenant.ordinal.unwrap_or(0);
                    pending.entry(before).or_default().push((index, tenant));
                    taken.push(Taken::Alone);
                    continue;
                }
                Verdict::Bring | Verdict::Rebuild => {
                    taken.push(Taken::Alone);
                    continue;
                }
            };
            taken.push(done(Outcome::of(tenant, kind, message, start)));
        }
        ledger::note(&connection, &noted).await?;
        self.settle(&connection, &settled, reason).await?;
        let mut connection = Held::new(connection);
        let mut sound = true;
        for (before, tenants) in pending {
            if sound {
                sound = self
                    .share(&mut connection, &loaded, before, tenants, &mut taken)
                    .await;
            }
        }
        if sound {
            give_back(connection.release());
        }
        Ok(taken)
    }

    /// Takes tenants forward that stand at the same file, several in a transaction. Whether the connection is
    /// as good as before.
    async fn share(
        &self,
        connection: &mut Held,
        loaded: &Loaded,
        before: usize,
        tenants: Vec<(usize, Tenant)>,
        taken: &mut [Taken],
    ) -> bool {
        let release = &loaded.release;
        let plan = self.plan(loaded, &tenants[0].1);
        let Some(settings) = self.together(release, &plan) else {
            return true;
        };
        let files = &release.set.files()[before..release.head];
        let mut rest = &tenants[..];
        let mut known: Vec<&(usize, Tenant)>;
        let mut faults = 0;
        while !rest.is_empty() {
            let most = loaded.quick.at_once(before, release.head).min(rest.len());
            if most == 0 {
                return true;
            }
            let (now, later) = rest.split_at(most);
            rest = later;
            known = now.iter().collect();
            while !known.is_empty() {
                let group: Vec<&Tenant> = known.iter().map(|(_, tenant)| tenant).collect();
                let together = Together {
                    release,
                    settings,
                    tenants: &group,
                    files,
                    asynchronous: self.asynchronous(),
                    statement_timeout: HOLD,
                };
                let start = Instant::now();
                match self.send(connection, &together).await {
                    Ok(()) => {
                        let took = start.elapsed();
                        let each = took / u32::try_from(known.len()).unwrap_or(1);
                        loaded.quick.took(before, release.head, each);
                        for (index, tenant) in known {
                            loaded.tally.succeeded(before, release.head);
                            taken[*index] = done(self.applied(loaded, tenant.clone(), files, took));
                        }
                        break;
                    }
                    Err(Fault::Statement(culprit)) => {
                        faults += 1;
                        // A version that nobody took yet may be at fault for all of them.
                        let one = faults < FAULTS && loaded.quick.knows(before, release.head);
                        let Some(culprit) = culprit.filter(|_| one) else {
                            return true;
                        };
                        known.remove(culprit);
                    }
                    Err(Fault::Slow) => {
                        let each = HOLD * 2 / u32::try_from(known.len()).unwrap_or(1);
                        loaded.quick.took(before, release.head, each);
                        return false;
                    }
                    Err(Fault::Lost) => return false,
                }
            }
        }
        true
    }

    /// Sends one message for several tenants.
    async fn send(
        &self,
        connection: &Held,
        together: &Together<'_>,
    ) -> std::result::Result<(), Fault> {
        let sql = together.sql();
        let cancel = self.pool().cancel(connection);
        let _running = self.enter(&together.tenants[0].schema, cancel.clone());
        let sending = apply::send(connection, &sql);
        tokio::pin!(sending);
        let Ok((answered, result)) = timeout(HOLD, &mut sending).await else {
            // It may have come to its end meanwhile: those tenants are looked at again.
            let _ = timeout(CONFIRM, async { tokio::join!(cancel.send(), sending) }).await;
            return Err(Fault::Slow);
        };
        let Err(error) = result else { return Ok(()) };
        debug!(
            tenants = together.tenants.len(),
            "tenants are taken forward one by one: {error}"
        );
        let rolled_back = timeout(CONFIRM, connection.batch_execute("ROLLBACK")).await;
        if self.stopping() || !matches!(rolled_back, Ok(Ok(()))) {
            return Err(Fault::Lost);
        }
        let kind = disposition::kind(&error);
        let ours = matches!(kind, Kind::Transient | Kind::Server | Kind::Raced);
        let nothing = !ours && together.committed(answered) == 0;
        Err(Fault::Statement(
            together.culprit(answered).filter(|_| nothing),
        ))
    }

    fn applied(
        &self,
        loaded: &Loaded,
        tenant: Tenant,
        files: &[Migration],
        took: Duration,
    ) -> Outcome {
        let head = loaded.release.head();
        debug!(
            tenant.schema = tenant.schema,
            migration.version = head.version,
            "schema {} is at {}",
            tenant.schema,
            head.version
        );
        Outcome {
            kind: ReconcileOutcome::Applied,
            applied: files.len(),
            version: Some(head.version.clone()),
            message: None,
            retry_in: None,
            trouble: None,
            tripped: false,
            took,
            tenant: Some(tenant),
        }
    }
}

fn done(outcome: Outcome) -> Taken {
    Taken::Done(Box::new(outcome))
}

fn give_back(connection: Connection) {
    if Connection::metrics(&connection).recycle_count >= BATCHES_PER_CONNECTION {
        pool::discard(connection);
    }
}
