//! Keeps spares ready: whoever leads builds and migrates them, one at a time, while nobody waits for anything.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::warn;

use super::{lead::Lead, work::SharedQueue};
use crate::{
    metrics::Metrics,
    reconcile::{
        Reconciler,
        brake::{self, Brake},
        spare::Tended,
    },
};

/// How long nothing may have been to do before a spare is touched.
const CALM: Duration = Duration::from_millis(200);
/// Other daemons claim too, and people drop schemas.
const LOOK: Duration = Duration::from_secs(10);
/// While something goes first.
const LATER: Duration = Duration::from_secs(1);
/// After something went wrong.
const AGAIN: Duration = Duration::from_secs(60);

/// Looks after the spares of one database.
pub struct Keeper {
    /// What builds them.
    pub reconciler: Arc<Reconciler>,
    /// What goes first.
    pub queue: SharedQueue,
    /// Whether the server is in trouble.
    pub brake: Arc<Brake>,
    /// Whether we do it.
    pub lead: Arc<Lead>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// That of the files.
    pub search_path: Vec<String>,
    /// How many are wanted.
    pub keep: usize,
}

impl Keeper {
    /// Goes on for ever; does nothing more where none are wanted and none are there.
    pub async fn run(self) -> Infallible {
        let spares = self.reconciler.spares();
        let mut said = None;
        loop {
            let pause = match self.is_calm() {
                true => self.round(&mut said).await,
                false => Some(CALM),
            };
            self.tell();
            let Some(pause) = pause else { pending().await };
            let _ = timeout(pause, spares.wait()).await;
            self.tell();
            while timeout(CALM, spares.wait()).await.is_ok() {
                self.tell();
            }
        }
    }

    fn tell(&self) {
        let (spares, metrics) = (self.reconciler.spares(), &self.metrics);
        metrics.spares_claimed_total.inc_by(spares.take_claimed());
        if self.lead.leads() {
            let ready = i64::try_from(spares.ready()).unwrap_or(i64::MAX);
            metrics.spares.set(ready);
        }
    }

    /// Whether nobody waits for anything.
    fn is_calm(&self) -> bool {
        let idle = self
            .queue
            .with(|queue| queue.depth() == 0 && queue.in_flight() == 0);
        idle && self.brake.on().is_none()
    }

    /// Does one thing; how long to wait then, `None`: for ever. `said`: what went wrong before.
    async fn round(&self, said: &mut Option<String>) -> Option<Duration> {
        let tends = self.lead.leads();
        let tended = self
            .reconciler
            .tend_spares(self.keep, &self.search_path, tends)
            .await;
        let (pause, trouble) = match tended {
            Ok(Tended::Did(files)) => {
                self.metrics.migrations_applied_total.inc_by(files as u64);
                (Duration::ZERO, None)
            }
            Ok(Tended::Nothing) => (LOOK, None),
            Ok(Tended::Later) => (LATER, None),
            Ok(Tended::Never) => return None,
            Ok(Tended::Refused(why)) => (
                LOOK,
                Some(format!("no spares are kept for this set: {why}")),
            ),
            Err(error) => {
                if let Some(reason) = brake::reason(&error) {
                    // One line a cause: the brake writes it.
                    self.brake.trouble(reason, &error.to_string());
                    return Some(LOOK);
                }
                (
                    AGAIN,
                    Some(format!(
                        "spares wait, new tenants are built as usual: {error}"
                    )),
                )
            }
        };
        if let Some(text) = trouble.as_ref().filter(|_| trouble != *said) {
            warn!("{text}");
        }
        if pause != Duration::ZERO {
            *said = trouble;
        }
        Some(pause)
    }
}
