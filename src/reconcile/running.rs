//! The applies that run, so that a daemon that stops can end them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use crate::pg::Cancel;

/// A cancel is a connection of its own; a server that does not take it gets no second one.
const CANCEL: Duration = Duration::from_secs(1);

/// The applies that run, by their schema.
#[derive(Default)]
pub(super) struct Running {
    sessions: Arc<Mutex<HashMap<String, Cancel>>>,
    ended: AtomicBool,
}

/// An apply that runs; no longer when dropped.
pub(super) struct Entry {
    sessions: Arc<Mutex<HashMap<String, Cancel>>>,
    schema: String,
}

impl Running {
    /// Notes an apply.
    pub(super) fn enter(&self, schema: &str, cancel: Cancel) -> Entry {
        let entry = Entry {
            sessions: Arc::clone(&self.sessions),
            schema: schema.to_owned(),
        };
        let key = entry.schema.clone();
        with(&self.sessions, |sessions| sessions.insert(key, cancel));
        entry
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        with(&self.sessions, |sessions| sessions.len())
    }

    /// Asks the server to cancel all of them; they roll back. How many there were.
    pub(super) async fn cancel(&self) -> usize {
        self.ended.store(true, Ordering::Release);
        let tokens: Vec<_> = with(&self.sessions, |sessions| {
            sessions.values().cloned().collect()
        });
        let asked = tokens.iter().map(|token| timeout(CANCEL, token.send()));
        futures::future::join_all(asked).await;
        tokens.len()
    }

    /// Whether they were cancelled: what fails now is not the tenant's fault.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        with(&self.sessions, |sessions| sessions.remove(&self.schema));
    }
}

fn with<T>(
    sessions: &Mutex<HashMap<String, Cancel>>,
    change: impl FnOnce(&mut HashMap<String, Cancel>) -> T,
) -> T {
    change(
        &mut sessions
            .lock()
            .expect("no code panics while it holds this lock"),
    )
}
