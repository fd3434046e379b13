//! The places for connections. When all are taken, a newcomer pushes somebody out: the oldest connection without a
//! request in hand, or else the oldest whose answer is long in coming (only `/status` can be).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Left to a connection to send its request, so that a burst of clients cannot push out an honest one.
const PATIENCE: Duration = Duration::from_millis(20);
/// Left to an answer, so that a database that hangs cannot hide the metrics.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Hands out places.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Oldest first; those whose place is given back are dropped at the next [`Places::take`].
    taken: Mutex<Vec<Weak<Place>>>,
}

/// A place, given back when its last reference goes.
pub(super) struct Place {
    since: Instant,
    answering: AtomicBool,
    evicted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(number: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(number)),
            taken: Mutex::default(),
        }
    }

    /// A place, freed by eviction if need be.
    pub(super) async fn take(&self) -> Arc<Place> {
        loop {
            if self.free.available_permits() == 0 {
                self.evict_oldest();
            }
            let permit = Arc::clone(&self.free).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(PATIENCE, permit).await {
                return self.remember(permit);
            }
        }
    }

    fn remember(&self, permit: OwnedSemaphorePermit) -> Arc<Place> {
        let place = Arc::new(Place {
            since: Instant::now(),
            answering: AtomicBool::new(false),
            evicted: CancellationToken::new(),
            _permit: permit,
        });
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|place| place.strong_count() > 0);
        taken.push(Arc::downgrade(&place));
        place
    }

    fn evict_oldest(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let places: Vec<_> = taken.iter().filter_map(Weak::upgrade).collect();
        let idle = places.iter().find(|place| place.waited(false, PATIENCE));
        let slow = || {
            places
                .iter()
                .find(|place| place.waited(true, ANSWER_PATIENCE))
        };
        if let Some(place) = idle.or_else(slow) {
            place.evicted.cancel();
        }
    }
}

impl Place {
    fn waited(&self, answering: bool, patience: Duration) -> bool {
        self.answering.load(Ordering::Relaxed) == answering && self.since.elapsed() > patience
    }

    /// Marks the connection as being answered until the guard is dropped.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.answering.store(true, Ordering::Relaxed);
        Answering(self)
    }

    /// Waits until the place is needed for somebody else.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

/// A request is being answered.
pub(super) struct Answering<'a>(&'a Place);

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}
