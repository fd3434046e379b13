//! The heartbeat: tells in the ledger that this daemon runs, keeps the lead, and proves that NOTIFY arrives.
//!
//! ```text
//! heartbeat ── working connection ──> one statement: instance, lease, pg_notify ──┐
//! listener <─────────────── LISTEN connection <───────────────── the same number ─┘
//! ```
//!
//! The notification takes the way of the application's: sent by one session, heard by another. What a session
//! sends itself proves nothing, because a transaction pooler hands it through.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{engine::Engine, lead::Lead, rollout::Rollout, sweeper::Nudge, work::SharedQueue};
use crate::{
    error::{Error, Result},
    fleet::{control, instances},
    metrics::{Metrics, SweepKind},
    pg::{pool, primary},
};

/// The leader renews its lease this often; a third of what the lease lasts.
const LEADING: Duration = Duration::from_secs(3);
/// The others look this often, or when the lease ends.
const FOLLOWING: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// For one statement.
const LIMIT: Duration = Duration::from_secs(4);
/// How long a notification of our own may take from its commit.
const ECHO: Duration = Duration::from_secs(3);
/// Above this share of the server's notification queue somebody should look.
const QUEUE_ALARM: f64 = 0.10;
const ALARM_AGAIN: Duration = Duration::from_secs(60);

/// The notifications we send ourselves, numbered.
#[derive(Default)]
pub struct Echo {
    numbers: Mutex<Numbers>,
    asked: Notify,
}

#[derive(Default)]
struct Numbers {
    sent: u64,
    heard: u64,
    due: Option<Instant>,
}

impl Echo {
    fn with<T>(&self, change: impl FnOnce(&mut Numbers) -> T) -> T {
        change(
            &mut self
                .numbers
                .lock()
                .expect("no code panics while it holds this lock"),
        )
    }

    /// A new connection listens: whatever was sent before is not for it. Asks for a heartbeat now.
    pub fn listening(&self) {
        self.with(|numbers| {
            numbers.heard = numbers.sent;
            numbers.due = None;
        });
        self.ask();
    }

    /// Asks for a heartbeat now.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// One was heard.
    pub fn heard(&self, number: u64) {
        self.with(|numbers| {
            numbers.heard = numbers.heard.max(number);
            numbers.due = None;
        });
    }

    /// Whether one was sent long ago and not heard.
    pub fn overdue(&self) -> bool {
        self.with(|numbers| numbers.due.is_some_and(|due| due <= Instant::now()))
    }

    fn number(&self) -> u64 {
        self.with(|numbers| {
            numbers.sent += 1;
            numbers.sent
        })
    }

    fn committed(&self, number: u64) {
        self.with(|numbers| {
            if numbers.heard < number {
                numbers.due.get_or_insert(Instant::now() + ECHO);
            }
        });
    }
}

/// Beats for one daemon.
pub struct Heartbeat {
    /// Its database.
    pub engine: Arc<Engine>,
    /// What the listener waits for.
    pub echo: Arc<Echo>,
    /// Whether this daemon leads.
    pub lead: Arc<Lead>,
    /// Where a sweep is asked for.
    pub nudge: Arc<Nudge>,
    /// Worked off in another order by those who do not lead.
    pub queue: SharedQueue,
    /// What obeys the orders that a beat brings back.
    pub rollout: Arc<Rollout>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// When the notification queue was last complained about.
    pub alarmed: Mutex<Option<Instant>>,
}

impl Heartbeat {
    /// Beats until the control schema is newer than this program; a beat that fails is made up for by the next.
    pub async fn run(self) -> Error {
        let mut pause = RETRY;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.echo.asked.notified() => {}
            }
            pause = match self.once().await {
                Ok(pause) => pause,
                Err(error @ Error::Newer { .. }) => return error,
                Err(error) => {
                    debug!("no heartbeat: {error}");
                    self.lead.unconfirmed();
                    RETRY
                }
            };
        }
    }

    /// One beat; the time to the next.
    ///
    /// # Errors
    /// When the database does not answer, or its control schema is newer than this program.
    pub async fn once(&self) -> Result<Duration> {
        let (start, number) = (Instant::now(), self.echo.number());
        let own = self.engine.own();
        let pool = self.engine.reconciler.pool();
        let timeline = pool.server().identity().map_or(0, |seen| seen.timeline);
        let echo = format!("{} {number}", own.id);
        let connection = pool.get().await?;
        let beat = timeout(LIMIT, instances::beat(&connection, &own, timeline, &echo)).await;
        let Ok(beat) = beat else {
            // The statement may still be under way on it.
            pool::discard(connection);
            return Err(late("write the heartbeat"));
        };
        let beat = match beat {
            Ok(beat) => beat,
            Err(error) => {
                pool::discard(connection);
                if error.sqlstate().is_some_and(|code| code.code() == "25006") {
                    pool.forget_idle();
                }
                return Err(error);
            }
        };
        if beat.control > control::VERSION {
            return Err(control::newer_than_we_know(beat.control));
        }
        if beat.notified {
            self.echo.committed(number);
        }
        self.metrics
            .notification_queue_usage_ratio
            .set(beat.queue_usage);
        let release = &self.engine.reconciler.loaded().release;
        let open = release.has_any(&beat.stopped);
        self.metrics.breaker_open.set(i64::from(open));
        if beat.queue_usage > QUEUE_ALARM {
            self.alarm(&connection, beat.queue_usage).await;
        }
        drop(connection);
        self.queue.with(|queue| queue.scatter(!beat.leads));
        if self.lead.confirmed(beat.leads, start) {
            self.nudge.sweep(SweepKind::Full);
        }
        let caught_up = timeout(LIMIT, self.engine.catch_up(&own, &beat)).await;
        if caught_up.unwrap_or_else(|_| Err(late("release our head")))? {
            info!("released our head: no daemon that runs has a newer one");
            self.nudge.sweep(SweepKind::Head);
        }
        let obeyed = timeout(LIMIT, self.rollout.obey(&beat.orders)).await;
        obeyed.unwrap_or_else(|_| Err(late("follow the released head")))?;
        Ok(if beat.leads {
            LEADING
        } else {
            (beat.lease_ends_in + Duration::from_millis(100)).min(FOLLOWING)
        })
    }

    /// Says who keeps the queue from being emptied, as far as that can be seen.
    async fn alarm(&self, client: &pool::Connection, usage: f64) {
        {
            let mut alarmed = self
                .alarmed
                .lock()
                .expect("no code panics while it holds this lock");
            if alarmed.is_some_and(|at| at.elapsed() < ALARM_AGAIN) {
                return;
            }
            *alarmed = Some(Instant::now());
        }
        let culprit = match timeout(LIMIT, primary::blocks_the_queue(client)).await {
            Ok(Ok(Some(culprit))) => format!("the likely reason is {culprit}"),
            _ => "no session shows that could be the reason".to_owned(),
        };
        warn!(
            "the notification queue of the server is {:.0} % full: a session listens and does not finish its \
             transaction; {culprit}. When it is full, no commit with a NOTIFY succeeds",
            usage * 100.0
        );
    }
}

fn late(operation: &str) -> Error {
    Error::Timeout {
        operation: operation.into(),
        limit: LIMIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_was_committed_and_not_heard_in_time_is_overdue() {
        let echo = Echo::default();
        let first = echo.number();
        tokio::time::advance(ECHO * 2).await;
        assert!(!echo.overdue(), "nothing was committed");
        echo.committed(first);
        assert!(!echo.overdue());
        tokio::time::advance(ECHO).await;
        assert!(echo.overdue());
        echo.heard(first);
        assert!(!echo.overdue());
        let second = echo.number();
        echo.heard(second);
        echo.committed(second);
        tokio::time::advance(ECHO * 2).await;
        assert!(!echo.overdue(), "it was heard before we knew of its commit");
        let third = echo.number();
        echo.committed(third);
        tokio::time::advance(ECHO * 2).await;
        echo.listening();
        assert!(
            !echo.overdue(),
            "a new connection is not asked for what was sent before"
        );
    }
}
