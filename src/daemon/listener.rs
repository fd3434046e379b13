//! Keeps a LISTEN connection alive and turns notifications into wakeups.
//!
//! Notifications are hints: after each (re)connection the sweeper looks at the whole fleet, because
//! whatever was sent meanwhile is gone.

use std::{convert::Infallible, sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{
    health::{Health, Loop},
    sweeper::Nudge,
    work::SharedQueue,
};
use crate::{
    error::Result,
    failpoint,
    metrics::{Channel, EventOutcome, Metrics, SweepKind},
    pg::{Listener, Target},
    reconcile::{Reason, Reconciler, queue::Woken},
};

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
    /// Id of this daemon: the payload of its own pulse.
    pub instance: String,
}

impl Ears {
    /// Listens for ever, with backoff between connections.
    pub async fn run(self) -> Infallible {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(30))
            .with_jitter()
            .without_max_times();
        let mut delays = backoff.build();
        loop {
            let start = Instant::now();
            let Err(error) = self.listen_once().await;
            self.metrics.listener_connected.set(0);
            self.health.listener(Err(error.to_string()));
            if start.elapsed() > Duration::from_secs(10) {
                delays = backoff.build();
            }
            let delay = delays
                .next()
                .unwrap_or(Duration::from_secs(30))
                .min(Duration::from_secs(30));
            warn!(
                "not listening, tried again in {:.1} s: {error}",
                delay.as_secs_f64()
            );
            sleep(delay).await;
            self.health.ticked(Loop::Listener);
            self.metrics.listener_reconnects_total.inc();
        }
    }

    /// One connection, from LISTEN to its loss.
    async fn listen_once(&self) -> Result<Infallible> {
        let channels: Vec<_> = Channel::ALL
            .iter()
            .map(|channel| channel.as_str())
            .collect();
        let listener = Listener::open(&self.target, &channels, &self.instance).await?;
        info!("listening on {}", channels.join(", "));
        self.metrics.listener_connected.set(1);
        self.health.listener(Ok(()));
        failpoint::pass("listener.listening").await?;
        // What was sent before LISTEN took effect is found by looking.
        if !failpoint::off("listener.resync") {
            self.nudge.sweep(SweepKind::Head);
        }
        listener
            .drain(
                |channel, payload| self.receive(channel, payload),
                || self.health.ticked(Loop::Listener),
            )
            .await
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
                self.nudge.sweep(SweepKind::Head);
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
            Some(id) => match self.queue.wake(&id, reason) {
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
