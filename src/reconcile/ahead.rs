//! Who lags behind a new release, seen while the release is still being written down: each takes the server a while, and
//! a core. For commands, which tell of the moment they were given. A daemon looks after the release: a tenant that is
//! inserted and built in between would be missed.

use std::{sync::Mutex, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::reconciler::Loaded;
use crate::{
    error::{Error, Result},
    fleet::{
        Depth,
        glance::{Glance, LOOKED_AT},
    },
    pg::{Pool, pool::Held},
};

/// How long a look ahead may take, and how long it is worth something.
const AHEAD: Duration = Duration::from_secs(1);

/// The beginning of the fleet, and since when it is known.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<(Instant, Glance)>>);

impl Ahead {
    fn replace(&self, glance: Option<(Instant, Glance)>) -> Option<(Instant, Glance)> {
        let mut ahead = self
            .0
            .lock()
            .expect("no code panics while it holds this lock");
        std::mem::replace(&mut ahead, glance)
    }
}

impl Loaded {
    /// Looks at the beginning of the fleet for whoever asks for it next. Without an answer in time, they look
    /// themselves.
    pub async fn look_ahead(&self, pool: &Pool) {
        let looking = async {
            // Closed if it is cut short: its next user would wait for the answer.
            let connection = Held::new(pool.get().await?);
            let glance = self.glance(&connection, Depth::Heads, None).await?;
            drop(connection.release());
            Ok::<_, Error>(glance)
        };
        if let Ok(Ok(glance)) = timeout(AHEAD, looking).await {
            self.ahead.replace(Some(glance));
        }
    }

    /// What was seen ahead, and since when that is known, unless it is old. It is told once.
    pub fn take_ahead(&self) -> Option<(Instant, Glance)> {
        let ahead = self.ahead.replace(None);
        ahead.filter(|(start, _)| start.elapsed() < AHEAD)
    }

    /// Who may need something, of the tenants after this id, and since when that is known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn glance(
        &self,
        client: &Client,
        depth: Depth,
        after: Option<&str>,
    ) -> Result<(Instant, Glance)> {
        let start = Instant::now();
        let glance = self.census.glance(client, depth, after, LOOKED_AT).await?;
        Ok((start, glance))
    }
}
