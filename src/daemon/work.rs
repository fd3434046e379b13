//! The queue shared by those who wake tenants, and the workers that empty it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    error::{Error, Result},
    failpoint,
    metrics::{Channel, Metrics, ReconcileOutcome},
    reconcile::{
        Outcome, Queue, Reason, Reconciler, Taken,
        brake::{self, Brake, Pass, Proof},
        disposition,
        pace::Pace,
        places::Place,
        queue::{Job, Looked, Serves, Woken},
    },
};

/// Tenants the queue holds at most; what is beyond is left to the next sweep.
pub const CAPACITY: usize = 16_384;

/// A queue that several tasks use.
#[derive(Clone)]
pub struct SharedQueue {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<Changed>,
    /// Whether what a sweep found has to wait.
    sweeps_held: Arc<AtomicBool>,
}

/// Told when there is something for those who wait. Whoever serves live work only is told apart, or a wakeup that is
/// not for it would end with it.
#[derive(Default)]
struct Changed {
    anything: Notify,
    live: Notify,
}

impl Changed {
    fn of(&self, serves: Serves) -> &Notify {
        match serves {
            Serves::Everything | Serves::NoBatches => &self.anything,
            Serves::Live => &self.live,
        }
    }

    fn tell(&self) {
        self.anything.notify_one();
        self.live.notify_one();
    }
}

/// Runs to be made together.
struct Next {
    jobs: Vec<Job>,
    place: Option<Place>,
}

impl Default for SharedQueue {
    fn default() -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue::new(CAPACITY))),
            changed: Arc::default(),
            sweeps_held: Arc::default(),
        }
    }
}

impl SharedQueue {
    /// See [`Queue::wake`].
    pub fn wake(&self, key: &str, reason: Reason) -> Woken {
        self.wake_in(Duration::ZERO, key, reason)
    }

    /// See [`Queue::wake_at`].
    pub fn wake_in(&self, delay: Duration, key: &str, reason: Reason) -> Woken {
        let now = Instant::now();
        let woken = self.with(|queue| match delay {
            Duration::ZERO => queue.wake(key, reason, now),
            _ => queue.wake_at(now + delay, key, reason, now),
        });
        if woken != Woken::Dropped {
            self.changed.tell();
        }
        woken
    }

    /// Looks at or changes the queue.
    pub fn with<T>(&self, look: impl FnOnce(&mut Queue) -> T) -> T {
        look(
            &mut self
                .queue
                .lock()
                .expect("no code panics while it holds this lock"),
        )
    }

    /// Keeps the workers from what a sweep found, or lets them have it again.
    pub fn hold_sweeps(&self, held: bool) {
        if self.sweeps_held.swap(held, Ordering::AcqRel) && !held {
            self.changed.tell();
        }
    }

    /// Waits for the next runs that may be made together: at least one, at most so many. What a sweep found comes
    /// with a place of its own.
    async fn next(&self, most: usize, serves: Serves, reconciler: &Reconciler) -> Next {
        loop {
            // Armed before looking, so that a wakeup in between is not missed.
            let changed = self.changed.of(serves).notified();
            let held = self.sweeps_held.load(Ordering::Acquire);
            let waits = reconciler.loaded().waits();
            // A place that turns out not to be needed is free before anybody else looks.
            let (jobs, place, due) = self.with(|queue| {
                let place = reconciler.places().try_take(waits);
                let now = match serves {
                    _ if held => Serves::Live,
                    Serves::Everything if place.is_none() => Serves::NoBatches,
                    _ => serves,
                };
                let jobs = queue.take(Instant::now(), most, now);
                let batch = |job: &Job| job.shared && job.reason == Reason::Sweep;
                let place = place.filter(|_| jobs.first().is_some_and(batch));
                (jobs, place, queue.next_due())
            });
            if !jobs.is_empty() {
                // One wakeup may stand for several tenants: pass it on.
                self.changed.tell();
                return Next { jobs, place };
            }
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Gives a place back.
    fn shared(&self, place: Option<Place>) {
        drop(place);
        self.changed.tell();
    }

    fn done(&self, key: &str, retry_at: Option<Instant>) {
        self.with(|queue| queue.done(key, retry_at));
        self.changed.tell();
    }

    /// Gives back what was not done.
    fn give_back(&self, job: &Job, looked: Looked) {
        self.with(|queue| queue.give_back(job, looked));
        self.changed.tell();
    }
}

/// How often a worker that stands back looks whether it still has to.
const STAND_BACK: Duration = Duration::from_millis(500);
/// When a tenant is looked at again for which there was no connection.
const BUSY: Duration = Duration::from_secs(1);

/// What the workers of one database share.
#[derive(Clone)]
pub struct Shop {
    /// Where work comes from.
    pub queue: SharedQueue,
    /// What does it.
    pub reconciler: Arc<Reconciler>,
    /// How long to wait after an error.
    pub retry: crate::config::Retry,
    /// The rate of a rollout.
    pub pace: Arc<Pace>,
    /// What stops all of them when the server is in trouble.
    pub brake: Arc<Brake>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// One worker: takes the most urgent tenants, brings them to head, and again until told to stop. `number` counts
/// the workers from 0. The last one of three or more leaves the sweep's finds to the others.
pub async fn run(shop: Shop, number: usize, workers: usize, shutdown: CancellationToken) {
    let serves = match number + 1 == workers && workers > 2 {
        true => Serves::Live,
        false => Serves::Everything,
    };
    let mut trouble = 0;
    loop {
        let next = async {
            // Where the server gives us fewer connections, fewer work, and one is left for the sweep.
            while number > 0 && number + 1 >= shop.reconciler.pool().room() {
                sleep(STAND_BACK).await;
            }
            let most = shop.pace.at_once();
            let next = shop.queue.next(most, serves, &shop.reconciler).await;
            (shop.brake.pass().await, next)
        };
        let (pass, Next { mut jobs, place }) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let sweeps = jobs[0].reason == Reason::Sweep;
        if sweeps {
            // Who was looked at with others and goes alone has had a place.
            let places = if jobs[0].shared { jobs.len() } else { 0 };
            shop.pace.pass_all(places).await;
        }
        if pass == Pass::Free && jobs[0].shared && (sweeps || jobs.len() > 1) {
            let later = shop.batch(&jobs).await;
            if sweeps {
                shop.pace.give_back(later);
            }
            shop.queue.shared(place);
            continue;
        }
        shop.queue.shared(place);
        for job in jobs.drain(1..) {
            shop.queue.give_back(&job, Looked::Alone);
        }
        shop.one(&jobs[0], pass, &mut trouble).await;
    }
}

impl Shop {
    /// Many tenants with one look. Who needs a run of its own is given back; how many come again with others.
    async fn batch(&self, jobs: &[Job]) -> usize {
        let run = tokio::spawn({
            let reconciler = Arc::clone(&self.reconciler);
            let keys: Vec<_> = jobs.iter().map(|job| Arc::clone(&job.key)).collect();
            let reason = jobs[0].reason;
            async move { reconciler.batch(&keys, reason).await }
        });
        let taken = match run.await {
            Ok(Ok(taken)) => taken,
            // What is wrong is told by the first of them that is tried alone.
            _ => jobs.iter().map(|_| Taken::Alone).collect(),
        };
        let mut later = 0;
        for (job, taken) in jobs.iter().zip(taken) {
            match taken {
                Taken::Alone => self.queue.give_back(job, Looked::Alone),
                Taken::Later => {
                    later += 1;
                    self.queue.give_back(job, Looked::NotYet);
                }
                Taken::Done(outcome) => {
                    let retry_at = outcome.retry_in.map(|delay| Instant::now() + delay);
                    count(&self.metrics, job, &Ok(*outcome));
                    self.queue.done(&job.key, retry_at);
                }
            }
        }
        later
    }

    /// One tenant. `trouble` counts errors in a row.
    async fn one(&self, job: &Job, pass: Pass, trouble: &mut u32) {
        let brake = &self.brake;
        // A task of its own: a panic costs this tenant an attempt and nobody else anything.
        let run = tokio::spawn({
            let (reconciler, key) = (Arc::clone(&self.reconciler), job.key.clone());
            let reason = job.reason;
            async move { reconciler.reconcile(&key, reason).await }
        });
        let result = run
            .await
            .unwrap_or_else(|panic| Err(Error::Refused(format!("the worker panicked: {panic}"))));
        let retry_in = match &result {
            Ok(Outcome {
                trouble: Some(reason),
                message,
                ..
            }) => {
                let text = message.as_deref().unwrap_or_default();
                Some(brake.pull(*reason, &job.key, pass, text))
            }
            Ok(outcome) => {
                *trouble = 0;
                let wrote = outcome.kind == ReconcileOutcome::Applied;
                let proof = if wrote { Proof::Wrote } else { Proof::Looked };
                brake.ease(&job.key, pass, proof);
                outcome.retry_in
            }
            Err(failure) if let Some(reason) = brake::reason(failure) => {
                Some(brake.pull(reason, &job.key, pass, &failure.to_string()))
            }
            Err(failure) => {
                brake.ease(&job.key, pass, Proof::Looked);
                if matches!(failure, Error::Busy { .. }) {
                    self.queue.done(&job.key, Some(Instant::now() + BUSY));
                    return;
                }
                *trouble += 1;
                if *trouble == 1 {
                    error!(
                        tenant.id = &*job.key,
                        "reconcile tenant {}: {failure}", job.key
                    );
                }
                Some(disposition::backoff(&self.retry, *trouble))
            }
        };
        count(&self.metrics, job, &result);
        let _ = failpoint::pass("work.done").await;
        let retry_at = retry_in.map(|delay| Instant::now() + delay);
        self.queue.done(&job.key, retry_at);
    }
}

fn count(metrics: &Metrics, job: &Job, result: &Result<Outcome>) {
    let kind = result
        .as_ref()
        .map_or(ReconcileOutcome::Failed, |outcome| outcome.kind);
    metrics.reconciles_total.get((job.reason, kind)).inc();
    let Ok(outcome) = result else { return };
    if outcome.tripped {
        metrics.breaker_open.set(1);
    }
    metrics
        .reconcile_duration_seconds
        .observe(outcome.took.as_secs_f64());
    metrics
        .migrations_applied_total
        .inc_by(outcome.applied as u64);
    let channel = match job.reason {
        Reason::Login => Channel::DashboardLogin,
        Reason::Insert => Channel::TenantInserted,
        Reason::Manual => Channel::TenantdWake,
        Reason::Retry | Reason::Sweep => return,
    };
    if matches!(kind, ReconcileOutcome::Applied | ReconcileOutcome::Current) {
        metrics
            .event_to_ready_seconds
            .get(channel)
            .observe(job.since.elapsed().as_secs_f64());
    }
}
