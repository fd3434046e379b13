//! The periodic scan: whatever no event told of, found by asking for it.
//!
//! A head check asks registry and ledger only, a full sweep looks into every schema and sets the gauges. Both ask
//! for those in doubt, window by window, and judge these alone. What they find goes to the queue in pages, so memory
//! does not grow with the fleet; when the queue is full the rest waits for the next round, which starts as soon as
//! there is room.
//!
//! Of several daemons one leads and does this by the clock. The others do it after a new connection, on a
//! signal, and for a request that they took.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{debug, info, warn};

use super::{
    findings::Findings,
    health::{Health, Loop},
    lead::Lead,
    rollout::Rollout,
    work::{CAPACITY, SharedQueue},
};
use crate::{
    config,
    error::Result,
    failpoint,
    fleet::{Counts, Depth, Group, State, Tenant, Verifier, ledger, requests, verify},
    metrics::{Metrics, SweepKind},
    pg::Connection,
    reconcile::{
        Loaded, Reason, Reconciler,
        brake::{self, Brake},
        queue::Woken,
    },
};

/// Tenants written down in one statement.
const PAGE: usize = 500;
const RETRY: Duration = Duration::from_secs(1);
/// For one question. A fleet of a hundred thousand is counted in seconds; the watchdog waits longer.
const LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_secs(10);
const REQUESTS: i64 = 500;
/// Tenants that are looked up at once to be verified one by one.
const VERIFIED_AT_ONCE: usize = 20;

/// Asks the sweeper for something between its rounds.
#[derive(Default)]
pub struct Nudge {
    wanted: AtomicU8,
    changed: Notify,
}

/// The requests, and the fleet if we lead.
const LOOK: u8 = 1;
const HEAD: u8 = 2;
const FULL: u8 = 4;

impl Nudge {
    /// Look at the whole fleet, and at what was requested.
    pub fn sweep(&self, kind: SweepKind) {
        self.want(match kind {
            SweepKind::Head => HEAD,
            SweepKind::Full => FULL,
        });
    }

    /// Look at what was requested, and at the whole fleet if no other daemon does.
    pub fn look(&self) {
        self.want(LOOK);
    }

    fn want(&self, what: u8) {
        self.wanted.fetch_or(what, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// The sweep that is wanted; takes it.
    fn take(&self, leads: bool) -> Option<SweepKind> {
        match self.wanted.swap(0, Ordering::AcqRel) {
            wanted if wanted & FULL > 0 => Some(SweepKind::Full),
            wanted if wanted & HEAD > 0 || leads => Some(SweepKind::Head),
            _ => None,
        }
    }
}

/// What a sweep found.
#[derive(Default)]
struct Found {
    /// Tenants for the workers.
    tenants: usize,
    /// The queue could not hold all of them.
    dropped: bool,
}

/// Scans the fleet.
pub struct Sweeper {
    /// Tells what to compare with.
    pub reconciler: Arc<Reconciler>,
    /// Where findings go.
    pub queue: SharedQueue,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` reads.
    pub health: Arc<Health>,
    /// How often.
    pub intervals: config::Sweep,
    /// How fresh schemas to compare with are built.
    pub migrations: config::Migrations,
    /// What is told of a server in trouble.
    pub brake: Arc<Brake>,
    /// What is looked at beside the tenants.
    pub findings: Findings,
    /// What obeys orders that somebody hinted at.
    pub rollout: Arc<Rollout>,
    /// What asks for a round now.
    pub nudge: Arc<Nudge>,
    /// Whether the clock does.
    pub lead: Arc<Lead>,
    /// Id of this daemon.
    pub instance: String,
}

impl Sweeper {
    /// Sweeps for ever: at once, at the configured intervals, when nudged, and while the queue could
    /// not hold all that was found.
    pub async fn run(self) -> Infallible {
        let mut head = interval(self.intervals.interval);
        let mut full = interval(self.intervals.full_interval);
        let mut tick = interval(TICK);
        for timer in [&mut head, &mut full, &mut tick] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut more = false;
        loop {
            let kind = tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.health.ticked(Loop::Sweeper);
                    continue;
                }
                _ = full.tick(), if !failpoint::off("sweep.timer") => match self.lead.leads() {
                    true => Some(SweepKind::Full),
                    false => continue,
                },
                () = self.nudge.changed.notified() => self.nudge.take(self.lead.leads()),
                _ = head.tick(), if !failpoint::off("sweep.timer") => match self.lead.leads() {
                    true => Some(SweepKind::Head),
                    false => continue,
                },
                () = self.room(), if more => Some(SweepKind::Head),
            };
            let requested = self.requests().await.then_some(SweepKind::Full);
            if let Err(error) = self.rollout.look().await {
                debug!("the next heartbeat tells how the rollout is to go: {error}");
            }
            let Some(kind) = requested.or(kind) else {
                continue;
            };
            more = match self.sweep_once(kind).await {
                Ok(more) => more,
                Err(error) => {
                    self.health.sweep_failed(&error);
                    match brake::reason(&error) {
                        // One line a cause: the brake writes it.
                        Some(reason) => self.brake.trouble(reason, &error.to_string()),
                        None => warn!(
                            "{} sweep failed, tried again in {RETRY:?}: {error}",
                            kind.as_str()
                        ),
                    }
                    sleep(RETRY).await;
                    self.nudge.sweep(kind);
                    false
                }
            };
        }
    }

    /// One pass. Whether the queue could not hold all of it.
    async fn sweep_once(&self, kind: SweepKind) -> Result<bool> {
        let start = Instant::now();
        failpoint::pass("sweep.begins").await?;
        let loaded = self.reconciler.loaded();
        let found = self.look(&loaded, kind).await?;
        let what = "note whether anybody is behind";
        if !found.dropped
            && let Err(error) = self
                .ask(what, async |c| ledger::note_anybody(c).await)
                .await
        {
            warn!("the next sweep will tell the login trigger: {error}");
        }
        if kind == SweepKind::Full
            && let Err(error) = self.verify_some(&loaded).await
        {
            warn!("the sweep could not verify tenants: {error}");
        }
        let took = start.elapsed();
        self.metrics
            .sweep_duration_seconds
            .get(kind)
            .observe(took.as_secs_f64());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.metrics
            .sweep_last_success_timestamp_seconds
            .set(now.as_secs_f64());
        self.health.swept();
        self.brake.answered();
        debug!(
            found = found.tenants,
            duration_ms = took.as_millis(),
            "{} sweep: {} tenants to look at",
            kind.as_str(),
            found.tenants
        );
        Ok(found.dropped)
    }

    /// Looks at the whole fleet from afar, window by window, and at those in doubt more closely. A head check ends
    /// with a full queue; a full sweep goes on, because it counts.
    async fn look(&self, loaded: &Loaded, kind: SweepKind) -> Result<Found> {
        let depth = match kind {
            SweepKind::Head => Depth::Heads,
            SweepKind::Full => Depth::Tables,
        };
        let (mut found, mut counts, mut after) = (Found::default(), Counts::new(), None);
        let mut known = 0;
        loop {
            let (start, glance) = self
                .ask("look at the fleet", async |c| {
                    loaded.glance(c, depth, after.as_deref()).await
                })
                .await?;
            counts.add_plain(&glance);
            known += glance.known;
            failpoint::pass("sweep.noted").await?;
            let mut lagging = glance.lagging;
            // Who is worked on just now will not be as it was seen.
            lagging.retain(|it| self.wake(&it.id, &mut found) == Woken::Queued);
            loaded.seen.put(start, lagging);
            // For each page anew: what watches the applies shares this connection.
            for ids in glance.doubtful.chunks(PAGE) {
                let ids: Vec<_> = ids.iter().map(String::as_str).collect();
                let tenants = self
                    .ask("look at a page of tenants", async |c| {
                        loaded.census.tenants(c, &ids).await
                    })
                    .await?
                    .unwrap_or_default();
                tenants.iter().for_each(|tenant| counts.add_tenant(tenant));
                self.take(&tenants, &mut found).await?;
                if found.dropped && kind == SweepKind::Head {
                    return Ok(found);
                }
            }
            after = glance.next;
            if after.is_none() || found.dropped && kind == SweepKind::Head {
                break;
            }
        }
        if kind == SweepKind::Full {
            self.tell(&counts);
            self.note_orphans(loaded, known).await?;
        }
        Ok(found)
    }

    async fn note_orphans(&self, loaded: &Loaded, known: i64) -> Result<()> {
        let ids = loaded.census.registry().ids();
        let orphans = self
            .ask("look for orphan schemas", async |c| {
                ledger::note_orphans(c, &ids, known).await
            })
            .await?;
        if orphans > 0 {
            info!(
                orphans,
                "{orphans} tenants left the registry; their schemas stay"
            );
        }
        Ok(())
    }

    /// Writes down what was seen, and hands to the workers what they may do.
    async fn take(&self, tenants: &[Tenant], found: &mut Found) -> Result<()> {
        self.ask("note the tenants' states", async |c| {
            ledger::note(c, tenants).await
        })
        .await?;
        let due = tenants.iter().filter(|tenant| self.acts(tenant));
        self.enqueue(due.map(|tenant| &tenant.id), found).await
    }

    async fn enqueue<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a String>,
        found: &mut Found,
    ) -> Result<()> {
        failpoint::pass("sweep.noted").await?;
        for id in ids {
            self.wake(id, found);
        }
        Ok(())
    }

    fn wake(&self, id: &str, found: &mut Found) -> Woken {
        found.tenants += 1;
        let woken = self.queue.wake(id, Reason::Sweep);
        found.dropped |= woken == Woken::Dropped;
        woken
    }

    /// Compares the configured share of the tenants with fresh schemas, counts what is known to differ, and looks for
    /// what else a person should mend.
    async fn verify_some(&self, loaded: &Loaded) -> Result<()> {
        let share = self.intervals.verify_share;
        if share > 0.0 {
            let verifier = Verifier::new(loaded.release.clone(), self.migrations.clone());
            let ids = self
                .ask("choose tenants to verify", async |c| {
                    verify::due(c, &loaded.release, share).await
                })
                .await?;
            for ids in ids.chunks(VERIFIED_AT_ONCE) {
                let names: Vec<_> = ids.iter().map(String::as_str).collect();
                let tenants = self
                    .ask("look up tenants to verify", async |c| {
                        loaded.census.find(c, &names).await
                    })
                    .await?;
                for tenant in tenants {
                    let found = verifier.verify(self.reconciler.pool(), &tenant).await;
                    self.health.ticked(Loop::Sweeper);
                    let found = found?;
                    if let Some(difference) = found.filter(|it| !it.is_empty()) {
                        debug!(
                            tenant.schema = tenant.schema,
                            "schema {} differs from a fresh one:\n{difference}", tenant.schema
                        );
                    }
                }
            }
        }
        let drifted = self
            .ask("count the drifted tenants", async |c| {
                verify::drifted(c).await
            })
            .await?;
        if drifted > self.metrics.tenants_drifted.get() {
            warn!(
                drifted,
                "{drifted} tenants differ from fresh schemas: `tenantd verify --all` shows how"
            );
        }
        if self.lead.leads() {
            self.metrics.tenants_drifted.set(drifted);
            self.ask("look for triggers and rows that are gone", async |c| {
                self.findings.look(c, &loaded.release).await
            })
            .await?;
        }
        Ok(())
    }

    /// Sets the numbers of the fleet, if they are ours to tell.
    fn tell(&self, counts: &Counts) {
        if !self.lead.leads() {
            return;
        }
        let metrics = &self.metrics;
        metrics.tenants.set(counts.tenants);
        metrics.schemas_existing.set(counts.schemas_existing);
        metrics.schemas_with_tables.set(counts.schemas_with_tables);
        metrics
            .schemas_without_tables
            .set(counts.schemas_without_tables);
        for (&state, &count) in &counts.by_state {
            metrics.tenants_by_state.get(state).set(count);
        }
    }

    /// Whether a sweep hands this tenant to the workers.
    fn acts(&self, tenant: &Tenant) -> bool {
        match tenant.state.group() {
            Group::Fine => false,
            Group::Healing if tenant.stopped.is_some() || tenant.waits_for_resume().is_some() => {
                false
            }
            Group::Healing => {
                !tenant.state.waits() || tenant.next_in.is_none_or(|delay| delay.is_zero())
            }
            Group::NeedsPerson => tenant.state == State::Lost && self.reconciler.rebuilds_lost(),
        }
    }

    /// Takes what was asked for. Whether a sweep was.
    async fn requests(&self) -> bool {
        let mut sweep = false;
        loop {
            // What does not fit into the queue is left for later, or for another daemon.
            let room = CAPACITY.saturating_sub(self.queue.with(|queue| queue.len()));
            let limit = REQUESTS.min(i64::try_from(room).unwrap_or(REQUESTS));
            if limit == 0 {
                return sweep;
            }
            let taken = self.ask("take requests", async |c| {
                requests::take(c, &self.instance, limit).await
            });
            let requests = match taken.await {
                Ok(requests) => requests,
                Err(error) => {
                    match brake::reason(&error) {
                        Some(reason) => self.brake.trouble(reason, &error.to_string()),
                        None => warn!("requests wait: {error}"),
                    }
                    return sweep;
                }
            };
            let all = requests.len() < usize::try_from(limit).unwrap_or(0);
            let mut back = Vec::new();
            for request in requests {
                match request {
                    requests::Request::Sweep => sweep = true,
                    requests::Request::Migrate(id) => {
                        if self.queue.wake(&id, Reason::Manual) == Woken::Dropped {
                            back.push(id);
                        }
                    }
                }
            }
            if !back.is_empty() {
                self.ask_again(&back).await;
                return sweep;
            }
            if all {
                return sweep;
            }
        }
    }

    /// Puts back what the queue had no room for, because events filled it meanwhile.
    async fn ask_again(&self, ids: &[String]) {
        let asked = self.ask("put requests back", async |c| {
            requests::migrate(c, ids).await
        });
        if let Err(error) = asked.await {
            warn!("{} requests are left to the sweep: {error}", ids.len());
        }
    }

    /// Asks the database within bounds. Whatever the answer, the loop has come round.
    async fn ask<T>(
        &self,
        what: &str,
        question: impl AsyncFnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let answer = self.reconciler.pool().ask(what, LIMIT, question).await;
        self.health.ticked(Loop::Sweeper);
        answer
    }

    /// Waits until the queue has room for another page or two.
    async fn room(&self) {
        while self.queue.with(|queue| queue.depth() + queue.in_flight()) > CAPACITY / 2 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}
