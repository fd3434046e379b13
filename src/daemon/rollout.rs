//! Obeys what people say about a rollout, tells how far it is, and holds it up while it costs others too much.
//!
//! The orders come with each heartbeat, and at once when somebody hints at them. Only what a sweep found is held
//! up; whom an event woke is never.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::{engine::Engine, sweeper::Nudge, work::SharedQueue};
use crate::{
    error::Result,
    fleet::{
        ledger,
        load::{Load, TooMuch},
        rollout::{Orders, Progress, orders},
    },
    metrics::{BrakeReason, Metrics, Reason, ReconcileOutcome, SweepKind},
    reconcile::pace::Pace,
};

const TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks while nothing is to be done.
const AT_REST: u32 = 10;
const LIMIT: Duration = Duration::from_secs(5);
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The rollout of one database, as this daemon takes part in it.
pub struct Rollout {
    /// Its database.
    pub engine: Arc<Engine>,
    /// The rate that is obeyed.
    pub pace: Arc<Pace>,
    /// What is held up.
    pub queue: SharedQueue,
    /// Where a sweep is asked for.
    pub nudge: Arc<Nudge>,
    /// What is told.
    pub metrics: Arc<Metrics>,
    /// Why it stands back, if it does; and whether it was said that the standbys cannot be seen.
    pub back: Mutex<(Option<TooMuch>, bool)>,
}

/// A rollout that this daemon works on.
struct Running {
    since: Instant,
    said: Instant,
    /// Tenants brought forward here before it began.
    before: u64,
}

impl Rollout {
    /// Asks for the orders and obeys them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look(&self) -> Result<()> {
        let pool = self.engine.reconciler.pool();
        let orders = pool.ask("ask how the rollout is to go", LIMIT, async |c| {
            orders(c).await
        });
        self.obey(&orders.await?).await
    }

    /// Goes by these orders from now on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn obey(&self, orders: &Orders) -> Result<()> {
        let paused = i64::from(orders.paused);
        if self.metrics.rollout_paused.get() != paused {
            self.metrics.rollout_paused.set(paused);
            info!(
                "{}",
                if orders.paused {
                    "the fleet is paused: no existing schema is migrated until `tenantd resume`"
                } else {
                    "the fleet goes on"
                }
            );
        }
        let configured = self.engine.config.rollout.max_rate;
        let max_rate = orders.max_rate.unwrap_or(configured);
        if self.pace.set(max_rate) {
            info!(
                max_rate,
                "a rollout goes at {max_rate} tenants a second now (0: no limit)"
            );
        }
        if self.engine.follow(orders.head.as_deref()).await? {
            self.nudge.sweep(SweepKind::Head);
        }
        Ok(())
    }

    /// Looks every second while something is to be done.
    pub async fn run(self: Arc<Self>) -> Infallible {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut running, mut last, mut rested) = (None, 0, AT_REST);
        loop {
            ticks.tick().await;
            rested += 1;
            if self.in_trouble() {
                continue;
            }
            let working = running.is_some();
            let busy = self
                .queue
                .with(|queue| queue.has_sweeps() || working && queue.in_flight() > 0);
            let applied = self.applied();
            if running.is_none() && applied > last {
                running = Some(Running {
                    since: Instant::now() - TICK,
                    said: Instant::now(),
                    before: last,
                });
            }
            last = applied;
            if !busy && running.is_none() && self.stands_back().is_none() && rested < AT_REST {
                continue;
            }
            rested = 0;
            if let Err(error) = self.tick(&mut running, busy).await {
                debug!("cannot tell how far the rollout is: {error}");
            }
        }
    }

    async fn tick(&self, running: &mut Option<Running>, busy: bool) -> Result<()> {
        let pool = self.engine.reconciler.pool();
        let config = &self.engine.config.rollout;
        let loaded = self.engine.reconciler.loaded();
        let load = pool.ask("measure what the rollout costs", LIMIT, async |c| {
            Load::measure(c, config).await
        });
        self.stand_back(&load.await?);
        let progress = pool.ask("ask how far the rollout is", LIMIT, async |c| {
            Progress::ask(c, &loaded.release, config, None).await
        });
        let progress = progress.await?;
        self.metrics.rollout_pending.set(progress.pending);
        self.metrics.rollout_rate.set(progress.rate);
        let eta = progress.eta_seconds.unwrap_or(0.0);
        self.metrics.rollout_eta_seconds.set(eta);
        let Some(now) = running else { return Ok(()) };
        let head = &loaded.release.head().version;
        let (here, pending) = (self.applied() - now.before, progress.pending);
        if !busy {
            if self.engine.reconciler.asynchronous() {
                pool.ask("wait for the disk", LIMIT, async |c| ledger::flush(c).await)
                    .await?;
            }
            info!(
                migration.version = head,
                tenants = here,
                pending,
                "rollout of {head}: {here} tenants done here in {:.1} s, {pending} pending",
                now.since.elapsed().as_secs_f64()
            );
            *running = None;
        } else if now.said.elapsed() >= SAY_AGAIN {
            now.said = Instant::now();
            let left = progress
                .eta_seconds
                .map_or_else(|| "?".into(), |eta| format!("{eta:.0}"));
            info!(
                migration.version = head,
                tenants = here,
                pending,
                "rollout of {head} goes on: {here} tenants done here, {pending} pending, {:.0} a second, {left} s left",
                progress.rate
            );
        }
        Ok(())
    }

    /// Holds up what a sweep found while something is too much.
    fn stand_back(&self, load: &Load) {
        let limits = &self.engine.config.rollout;
        let mut back = self
            .back
            .lock()
            .expect("no code panics while it holds this lock");
        if load.hidden && !std::mem::replace(&mut back.1, true) {
            warn!(
                "cannot see how far the standbys lag, so max_replication_lag is not kept: GRANT pg_monitor to the role \
                 that is connected, or set it to \"0s\""
            );
        }
        let now = load.too_much(limits, back.0.is_some());
        for reason in [BrakeReason::ReplicationLag, BrakeReason::Waiting] {
            let on = now.as_ref().is_some_and(|now| now.reason == reason);
            self.metrics.brake.get(reason).set(i64::from(on));
        }
        let before = back.0.as_ref().map(|before| before.reason);
        match &now {
            Some(now) if before != Some(now.reason) => warn!(
                reason = %now.reason,
                "the rollout stands back ({}): {}; new tenants and logins go on", now.reason, now.text
            ),
            None if before.is_some() => info!("the rollout goes on: nobody waits for it any more"),
            _ => {}
        }
        self.queue.hold_sweeps(now.is_some());
        back.0 = now;
    }

    fn stands_back(&self) -> Option<BrakeReason> {
        let back = self
            .back
            .lock()
            .expect("no code panics while it holds this lock");
        back.0.as_ref().map(|back| back.reason)
    }

    /// Whether the server cannot answer: whoever asks it then only adds to that.
    fn in_trouble(&self) -> bool {
        let load = [BrakeReason::ReplicationLag, BrakeReason::Waiting];
        let mut others = BrakeReason::ALL.iter().filter(|it| !load.contains(it));
        others.any(|&reason| self.metrics.brake.get(reason).get() > 0)
    }

    fn applied(&self) -> u64 {
        let which = (Reason::Sweep, ReconcileOutcome::Applied);
        self.metrics.reconciles_total.get(which).get()
    }
}
