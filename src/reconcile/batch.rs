//! Many tenants at once: one look for all of them, one answer for those that are current, and shared transactions
//! for those that lack the same quick files. Whoever needs more gets a run of its own.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use super::{
    queue::{Key, Reason},
    reconciler::{Asker, Outcome, Reconciler, Verdict},
    share::Batch,
};
use crate::{
    error::Result,
    failpoint,
    fleet::{Census, Tenant, ledger},
    metrics::ReconcileOutcome,
    pg::{
        Connection,
        pool::{self, Held},
    },
};

/// Batches a connection serves before it is replaced: what a quick file leaves in its server process is a few
/// kilobytes a tenant.
const BATCHES_PER_CONNECTION: usize = 16;
/// What a batch did with one of its tenants.
#[derive(Debug, Clone)]
pub enum Taken {
    /// It is done.
    Done(Box<Outcome>),
    /// It needs a run of its own.
    Alone,
    /// Its turn did not come, or was undone with that of others: it may be taken with others again.
    Later,
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
        let mut remembered = match reason {
            Reason::Sweep => loaded.seen.take(ids),
            _ => HashMap::new(),
        };
        let mut others: Vec<&str> = ids.iter().map(|id| &**id).collect();
        others.retain(|id| !remembered.contains_key(*id));
        let Some(mut tenants) = look(&loaded.census, &connection, others, reason).await? else {
            return Ok(ids.iter().map(|_| Taken::Alone).collect());
        };
        failpoint::pass("reconcile.looked").await?;
        let mut settled = Vec::new();
        let mut noted = Vec::new();
        let mut pending: BTreeMap<(usize, bool), Vec<(usize, Tenant)>> = BTreeMap::new();
        let mut taken = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            let known = remembered.remove(&**id);
            let looked_at = known.is_none();
            let known = known.map(|it| loaded.census.behind(it));
            let Some(tenant) = known.or_else(|| tenants.remove(&**id)) else {
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
                    let alike = (tenant.ordinal.unwrap_or(0), looked_at);
                    pending.entry(alike).or_default().push((index, tenant));
                    taken.push(Taken::Later);
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
        let mut connection = Some(Held::new(connection));
        for ((_, looked_at), tenants) in pending {
            if let Some(held) = connection.take() {
                let batch = Batch {
                    loaded: &loaded,
                    tenants,
                    looked_at,
                };
                connection = self.share(held, batch, &mut taken).await;
            }
        }
        if let Some(connection) = connection {
            give_back(connection.release());
        }
        Ok(taken)
    }
}

/// All of these tenants, by id; a rollout's are mostly told by the cheaper question. `None`: one of them cannot be an id.
async fn look(
    census: &Census,
    connection: &Connection,
    mut ids: Vec<&str>,
    reason: Reason,
) -> Result<Option<HashMap<String, Tenant>>> {
    let by_id = |tenant: Tenant| (tenant.id.clone(), tenant);
    let mut tenants = HashMap::new();
    if reason == Reason::Sweep && !ids.is_empty() {
        let lagging = census.lagging(connection, &ids).await?.into_iter();
        tenants.extend(lagging.map(|it| by_id(census.behind(it))));
        ids.retain(|id| !tenants.contains_key(*id));
    }
    if !ids.is_empty() {
        let Some(others) = census.tenants(connection, &ids).await? else {
            return Ok(None);
        };
        tenants.extend(others.into_iter().map(by_id));
    }
    Ok(Some(tenants))
}

pub(super) fn done(outcome: Outcome) -> Taken {
    Taken::Done(Box::new(outcome))
}

fn give_back(connection: Connection) {
    if Connection::metrics(&connection).recycle_count >= BATCHES_PER_CONNECTION {
        pool::discard(connection);
    }
}
