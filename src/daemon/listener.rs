//! Keeps a LISTEN connection alive and turns notifications into wakeups.
//!
//! Notifications are hints: after each (re)connection the sweeper looks at the whole fleet, because
//! whatever was sent meanwhile is gone. Where they never arrive, it looks every few seconds instead.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{Instant, interval, sleep};
use tokio_postgres::Notification;
use tracing::{debug, info, warn};

use super::{
    health::{Health, Loop},
    heartbeat::Echo,
    peers::Peers,
    retry::{self, Said},
    sweeper::Nudge,
    work::SharedQueue,
};
use crate::{
    error::Error,
    failpoint,
    metrics::{Channel, EventOutcome, Metrics, SweepKind},
    pg::{Listener, Target},
    reconcile::{
        Reason, Reconciler,
        brake::{self, BrakeReason},
        queue::Woken,
    },
};

/// When nothing was heard for so long, the session is asked whether it is there: longer than the time between two
/// heartbeats, which show the same. With the time it has to answer: 9 s.
const QUIET: Duration = Duration::from_millis(5500);
/// How often we look for an echo that is overdue, and for silence.
const CHECK: Duration = Duration::from_millis(500);
/// Connections in a row on which nothing was heard, until NOTIFY is taken for broken.
const DEAF: u32 = 3;
/// It is tried again after so many looks at the fleet.
const PROBE: u32 = 30;
/// To LISTEN, when connected.
const LISTEN: Duration = Duration::from_secs(5);
/// To connect and LISTEN for a while after a working connection was lost: an attempt that hangs should not outlast the trouble.
const RECONNECT: Duration = Duration::from_millis(1500);
const WHILE: Duration = Duration::from_secs(60);
const BEAT: &str = "tenantd_beat";
/// A refused password is not tried often: some servers lock an account.
const PASSWORD: Duration = Duration::from_secs(20);

/// Turns notifications of one database into wakeups.
pub struct Ears {
    /// Where to listen.
    pub target: Target,
    /// Tells which payloads are tenant ids.
    pub reconciler: Arc<Reconciler>,
    /// Where wakeups go.
    pub queue: SharedQueue,
    /// Where requests and resyncs go.
    pub nudge: Arc<Nudge>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` reads.
    pub health: Arc<Health>,
    /// What we notify ourselves of.
    pub echo: Arc<Echo>,
    /// Time between two looks where NOTIFY does not work.
    pub poll_interval: Duration,
    /// Id of this daemon, in the payload of its echoes.
    pub instance: String,
    /// The others, who hear the same events.
    pub peers: Peers,
}

/// How a connection ended.
enum Ended {
    Failed(Error),
    /// It answers, but what we notify ourselves of does not arrive.
    Deaf,
    /// Another session answers than the one that listens.
    Pooled,
}

/// What is known of the way to the server.
#[derive(Default)]
struct Path {
    /// Failures since a notification was last heard.
    failures: u32,
    deaf: u32,
    polling: bool,
    lost: Option<Instant>,
    said: Said,
}

impl Ears {
    /// Listens for ever, with backoff between connections.
    pub async fn run(self) -> Infallible {
        let mut path = Path::default();
        loop {
            let ended = self.listen_once(&mut path).await;
            if self.metrics.listener_connected.get() == 1 {
                path.lost = Some(Instant::now());
            }
            self.metrics.listener_connected.set(0);
            self.after(ended, &mut path).await;
            self.health.ticked(Loop::Listener);
            self.metrics.listener_reconnects_total.inc();
        }
    }

    /// Says what happened, and waits as long as that asks for.
    async fn after(&self, ended: Ended, path: &mut Path) {
        let error = match ended {
            Ended::Failed(error) => error,
            Ended::Deaf | Ended::Pooled => {
                path.deaf += 1;
                if path.deaf >= DEAF || matches!(ended, Ended::Pooled) {
                    path.polling |= self.start_polling();
                }
                Error::Pool {
                    operation: "wait for notifications".into(),
                    message: "our own notification did not arrive".into(),
                }
            }
        };
        if path.polling {
            debug!("still polling: {error}");
            return self.poll().await;
        }
        self.health.listener(Err(error.to_string()));
        let mut delay = retry::delay(&error, path.failures);
        match brake::reason(&error) {
            Some(BrakeReason::Password) => delay = delay.max(PASSWORD),
            // The workers have them all: listening comes first.
            Some(BrakeReason::Connections) => self.reconciler.pool().give_way().await,
            _ => {}
        }
        path.failures += 1;
        let wait = delay.as_secs_f64();
        if path.said.is_new(&error.to_string()) {
            warn!("not listening, tried again in {wait:.1} s: {error}");
        } else {
            debug!("still not listening, tried again in {wait:.1} s: {error}");
        }
        sleep(delay).await;
    }

    /// One connection, from LISTEN to its loss.
    async fn listen_once(&self, path: &mut Path) -> Ended {
        let channels = Channel::ALL.iter().map(|channel| channel.as_str());
        let channels: Vec<_> = channels.chain([BEAT]).collect();
        let limit = match path.lost {
            // With several hosts the one that answers may be the last.
            Some(at) if at.elapsed() < WHILE && self.target.hosts() == 1 => RECONNECT,
            _ => self.target.patience() + LISTEN,
        };
        let seen = self.reconciler.pool().server();
        match Listener::open(&self.target, &channels, seen, limit).await {
            Ok(listener) => self.drain(listener, path).await,
            Err(error) => Ended::Failed(error),
        }
    }

    async fn drain(&self, mut listener: Listener, path: &mut Path) -> Ended {
        if path.deaf == 0 && !path.polling {
            self.connected();
        }
        if let Err(error) = failpoint::pass("listener.listening").await {
            return Ended::Failed(error);
        }
        // What was sent before LISTEN took effect is found by looking.
        if !failpoint::off("listener.resync") {
            self.nudge.sweep(SweepKind::Head);
        }
        self.echo.listening();
        let (mut checks, mut heard) = (interval(CHECK), Instant::now());
        loop {
            tokio::select! {
                notification = listener.next() => match notification {
                    Ok(notification) => self.take(&notification, path),
                    Err(error) => return Ended::Failed(error),
                },
                _ = checks.tick(), if !failpoint::off("listener.pulse") => {
                    self.health.ticked(Loop::Listener);
                    if self.echo.overdue() {
                        return Ended::Deaf;
                    }
                    if heard.elapsed() < QUIET {
                        continue;
                    }
                    match listener.ping(|n| self.take(&n, path)).await {
                        Ok(true) => {}
                        Ok(false) => return Ended::Pooled,
                        Err(error) => return Ended::Failed(error),
                    }
                },
            }
            heard = Instant::now();
        }
    }

    fn connected(&self) {
        let channels: Vec<_> = Channel::ALL
            .iter()
            .map(|channel| channel.as_str())
            .collect();
        info!("listening on {}", channels.join(", "));
        self.metrics.listener_connected.set(1);
        self.metrics.listener_polling.set(0);
        self.health.listener(Ok(()));
    }

    /// NOTIFY does not work here; said once.
    fn start_polling(&self) -> bool {
        if self.metrics.listener_polling.get() == 0 {
            warn!(
                "NOTIFY does not work here: notifications do not arrive on this connection, so a transaction pooler \
                 (such as PgBouncer) is probably in between; the fleet is looked at every {} instead. Set \
                 database.listen_url to connect past the pooler (now: {})",
                humantime::format_duration(self.poll_interval),
                self.target
            );
        }
        self.metrics.listener_polling.set(1);
        self.health.listener(Ok(()));
        true
    }

    /// Looks often, until it is time to try whether NOTIFY works by now.
    async fn poll(&self) {
        for _ in 0..PROBE {
            sleep(self.poll_interval).await;
            self.nudge.look();
            self.health.ticked(Loop::Listener);
        }
    }

    fn take(&self, notification: &Notification, path: &mut Path) {
        if notification.channel() != BEAT {
            return self.receive(notification.channel(), notification.payload());
        }
        let (id, number) = notification.payload().split_once(' ').unwrap_or_default();
        if id != self.instance {
            if uuid::Uuid::try_parse(id).is_ok() && self.peers.heard(id) {
                // It has not heard of us either.
                self.echo.ask();
            }
            return;
        }
        let Ok(number) = number.parse() else { return };
        self.echo.heard(number);
        if self.metrics.listener_connected.get() == 0 {
            self.connected();
        }
        *path = Path {
            lost: path.lost,
            ..Path::default()
        };
    }

    fn receive(&self, channel: &str, payload: &str) {
        let Some(&channel) = Channel::ALL.iter().find(|known| known.as_str() == channel) else {
            return;
        };
        let reason = match channel {
            Channel::TenantInserted => Reason::Insert,
            Channel::DashboardLogin => Reason::Login,
            // A hint at requests in the ledger, from the command line or a trigger that lost its column.
            Channel::TenantdWake if payload.is_empty() => {
                self.nudge.look();
                self.metrics
                    .events_total
                    .get((channel, EventOutcome::Queued))
                    .inc();
                return;
            }
            Channel::TenantdWake => Reason::Manual,
        };
        let outcome = match self.reconciler.loaded().census.registry().parse_id(payload) {
            None => {
                debug!(
                    "a notification on {channel} is not a tenant id ({} bytes)",
                    payload.len()
                );
                EventOutcome::Rejected
            }
            Some(id) => match self.queue.wake_in(self.peers.head_start(&id), &id, reason) {
                Woken::Queued => EventOutcome::Queued,
                Woken::Coalesced => EventOutcome::Coalesced,
                Woken::Rerun => EventOutcome::Rerun,
                Woken::Dropped => {
                    self.nudge.sweep(SweepKind::Head);
                    EventOutcome::Dropped
                }
            },
        };
        self.metrics.events_total.get((channel, outcome)).inc();
    }
}
