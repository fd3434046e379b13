//! Tells in the ledger that this daemon runs, so that a command can say when nobody will answer it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use crate::{fleet::instances, pg::Pool};

const EVERY: Duration = Duration::from_secs(10);

/// Beats for ever; a beat that fails is made up for by the next.
pub async fn run(pool: Pool, instance: Arc<str>, host: String) -> Infallible {
    let mut beats = interval(EVERY);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let beat = async { instances::heartbeat(&*pool.get().await?, &instance, &host).await };
        if let Err(error) = beat.await {
            debug!("no heartbeat: {error}");
        }
    }
}
