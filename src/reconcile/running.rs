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
use tokio_postgres::CancelToken;

use crate::pg::tls::Tls;

/// A cancel is a connection of its own; a server that does not take it gets no second one.
const CANCEL: Duration = Duration::from_secs(1);

/// The applies that run, by the process id of their session.
#[derive(Default)]
pub(super) struct Running {
    sessions: Arc<Mutex<HashMap<i32, CancelToken>>>,
    ended: AtomicBool,
}

/// An apply that runs; no longer when dropped.
pub(super) struct Entry {
    sessions: Arc<Mutex<HashMap<i32, CancelToken>>>,
    backend: i32,
}

impl Running {
    /// Notes an apply.
    pub(super) fn enter(&self, backend: i32, cancel: CancelToken) -> Entry {
        let entry = Entry {
            sessions: Arc::clone(&self.sessions),
            backend,
        };
        with(&self.sessions, |sessions| sessions.insert(backend, cancel));
        entry
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        with(&self.sessions, |sessions| sessions.len())
    }

    /// Asks the server to cancel all of them; they roll back. How many there were.
    pub(super) async fn cancel(&self, tls: &Tls) -> usize {
        self.ended.store(true, Ordering::Release);
        let tokens: Vec<_> = with(&self.sessions, |sessions| {
            sessions.values().cloned().collect()
        });
        let asked = tokens
            .iter()
            .map(|token| timeout(CANCEL, token.cancel_query(tls.clone())));
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
        with(&self.sessions, |sessions| sessions.remove(&self.backend));
    }
}

fn with<T>(
    sessions: &Mutex<HashMap<i32, CancelToken>>,
    change: impl FnOnce(&mut HashMap<i32, CancelToken>) -> T,
) -> T {
    change(
        &mut sessions
            .lock()
            .expect("no code panics while it holds this lock"),
    )
}
