//! What a full sweep finds beside the states of tenants: it harms nobody today, and a person should mend it.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tokio_postgres::Client;
use tracing::warn;

use crate::{
    config::Config,
    error::Result,
    fleet::{
        Release,
        gaps::{self, Unrecorded},
        triggers,
    },
    metrics::Metrics,
};

/// The look at every row of `tenantd.applied` takes at most one part in so many of the time.
const SELDOM: u32 = 100;

/// Says what is found, once until it changes.
pub struct Findings {
    config: Config,
    metrics: Arc<Metrics>,
    said: Mutex<Vec<String>>,
    /// What the rows told, and when they are looked at again.
    rows: tokio::sync::Mutex<Option<(Unrecorded, Instant)>>,
}

impl Findings {
    /// Nothing was found yet.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            metrics,
            said: Mutex::default(),
            rows: tokio::sync::Mutex::default(),
        }
    }

    /// Seldom where it takes long: it reads a row for each file of each tenant.
    async fn unrecorded(&self, client: &Client, release: &Release) -> Result<Unrecorded> {
        let mut rows = self.rows.lock().await;
        if let Some((told, until)) = &*rows
            && Instant::now() < *until
        {
            return Ok(told.clone());
        }
        let start = Instant::now();
        let told = gaps::unrecorded(client, release).await?;
        *rows = Some((told.clone(), Instant::now() + start.elapsed() * SELDOM));
        Ok(told)
    }

    /// Looks at the triggers, and whether the ledger has a row for each file that tenants have.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn look(&self, client: &Client, release: &Release) -> Result<()> {
        let mut found = triggers::missing(client, &self.config).await?;
        self.metrics
            .trigger_missing
            .set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        let unrecorded = self.unrecorded(client, release).await?;
        self.metrics.tenants_unrecorded.set(unrecorded.tenants);
        found.extend(unrecorded.sentence());
        let said = {
            let mut said = self
                .said
                .lock()
                .expect("no code panics while it holds this lock");
            std::mem::replace(&mut *said, found.clone())
        };
        for new in found.iter().filter(|sentence| !said.contains(sentence)) {
            warn!("{new}");
        }
        Ok(())
    }
}
