//! What a full sweep finds beside the states of tenants: it harms nobody today, and a person should mend it.

use std::sync::{Arc, Mutex};

use tokio_postgres::Client;
use tracing::warn;

use crate::{
    config::Config,
    error::Result,
    fleet::{Release, gaps, triggers},
    metrics::Metrics,
};

/// Says what is found, once until it changes.
pub struct Findings {
    config: Config,
    metrics: Arc<Metrics>,
    said: Mutex<Vec<String>>,
}

impl Findings {
    /// Nothing was found yet.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            metrics,
            said: Mutex::default(),
        }
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
        let unrecorded = gaps::unrecorded(client, release).await?;
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
