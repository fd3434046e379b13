//! The queue shared by those who wake tenants, and the workers that empty it.

use std::{
    sync::{Arc, Mutex},
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
        Outcome, Queue, Reason, Reconciler,
        brake::{self, Brake, Proof},
        disposition,
        pace::Pace,
        queue::{Job, Woken},
    },
};

/// Tenants the queue holds at most; what is beyond is left to the next sweep.
pub const CAPACITY: usize = 4096;

/// A queue that several tasks use.
#[derive(Clone)]
pub struct SharedQueue {
    queue: Arc<Mutex<Queue>>,
    changed: Arc<Notify>,
}

impl Default for SharedQueue {
    fn default() -> Self {
        Self {
            queue: Arc::new(Mutex::new(Queue::new(CAPACITY))),
            changed: Arc::new(Notify::new()),
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
        if woken == Woken::Queued {
            self.changed.notify_one();
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

    /// Waits for the next run.
    async fn next(&self) -> Job {
        loop {
            // Armed before looking, so that a wakeup in between is not missed.
            let changed = self.changed.notified();
            let (job, due) = self.with(|queue| (queue.next(Instant::now()), queue.next_due()));
            if let Some(job) = job {
                // One wakeup may stand for several tenants: pass it on.
                self.changed.notify_one();
                return job;
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

    fn done(&self, key: &str, retry_at: Option<Instant>) {
        self.with(|queue| queue.done(key, retry_at));
        self.changed.notify_one();
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

/// One worker: takes the most urgent tenant, brings it to head, and again until told to stop. `number` counts
/// the workers from 0.
pub async fn run(shop: Shop, number: usize, shutdown: CancellationToken) {
    let Shop {
        queue,
        reconciler,
        retry,
        pace,
        brake,
        metrics,
    } = shop;
    let mut trouble = 0;
    loop {
        let next = async {
            // Where the server gives us fewer connections, fewer work, and one is left for the sweep.
            while number > 0 && number + 1 >= reconciler.pool().room() {
                sleep(STAND_BACK).await;
            }
            let job = queue.next().await;
            (brake.pass().await, job)
        };
        let (pass, job) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        if job.reason == Reason::Sweep {
            pace.pass().await;
        }
        // A task of its own: a panic costs this tenant an attempt and nobody else anything.
        let run = tokio::spawn({
            let (reconciler, key) = (Arc::clone(&reconciler), job.key.clone());
            async move { reconciler.reconcile(&key, job.reason).await }
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
                trouble = 0;
                let wrote = outcome.kind == ReconcileOutcome::Applied;
                brake.ease(
                    &job.key,
                    pass,
                    if wrote { Proof::Wrote } else { Proof::Looked },
                );
                outcome.retry_in
            }
            Err(failure) if let Some(reason) = brake::reason(failure) => {
                Some(brake.pull(reason, &job.key, pass, &failure.to_string()))
            }
            Err(failure) => {
                brake.ease(&job.key, pass, Proof::Looked);
                if matches!(failure, Error::Busy { .. }) {
                    queue.done(&job.key, Some(Instant::now() + BUSY));
                    continue;
                }
                trouble += 1;
                if trouble == 1 {
                    error!(
                        tenant.id = &*job.key,
                        "reconcile tenant {}: {failure}", job.key
                    );
                }
                Some(disposition::backoff(&retry, trouble))
            }
        };
        count(&metrics, &job, &result);
        let _ = failpoint::pass("work.done").await;
        queue.done(&job.key, retry_in.map(|delay| Instant::now() + delay));
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
