//! Whether this daemon does the periodic sweeps: one of several does, the one that holds the lease in the ledger.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;
use tracing::info;

use super::health::Health;
use crate::{
    fleet::instances::LEASE,
    metrics::{LabelSet as _, Metrics, State},
};

/// We stop before the others start: clocks tick a little differently.
const MARGIN: Duration = Duration::from_millis(500);

/// What this daemon knows of the lead.
pub struct Lead {
    until: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Lead {
    /// Nobody has told us yet.
    pub fn new(metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self {
            until: Mutex::new(None),
            metrics,
            health,
        }
    }

    /// Whether we lead now. A process that was frozen finds its lease over.
    pub fn leads(&self) -> bool {
        let until = *self
            .until
            .lock()
            .expect("no code panics while it holds this lock");
        until.is_some_and(|until| Instant::now() < until)
    }

    /// A heartbeat that began at `start` was told so. Whether we have just taken over from another.
    pub fn confirmed(&self, leads: bool, start: Instant) -> bool {
        let led = self.metrics.leading.get() == 1;
        let first = {
            let mut until = self
                .until
                .lock()
                .expect("no code panics while it holds this lock");
            until
                .replace(if leads { start + LEASE - MARGIN } else { start })
                .is_none()
        };
        self.metrics.leading.set(i64::from(leads));
        self.health.leading(leads);
        if leads && !led {
            info!("this daemon leads: it does the periodic sweeps");
        }
        if !leads && (led || first) {
            info!("another daemon leads: this one answers events and requests");
            self.forget_the_fleet();
        }
        leads && !led && !first
    }

    /// A heartbeat failed: the lease runs on, but not for ever.
    pub fn unconfirmed(&self) {
        if !self.leads() {
            self.metrics.leading.set(0);
        }
    }

    /// The numbers of the fleet come from who leads; ours would grow old.
    fn forget_the_fleet(&self) {
        let metrics = &self.metrics;
        for gauge in [
            &metrics.tenants,
            &metrics.schemas_existing,
            &metrics.schemas_with_tables,
            &metrics.schemas_without_tables,
            &metrics.tenants_drifted,
            &metrics.tenants_unrecorded,
            &metrics.trigger_missing,
            &metrics.spares,
        ] {
            gauge.set(0);
        }
        for state in State::all() {
            metrics.tenants_by_state.get(state).set(0);
        }
    }
}
