//! How many batches of a rollout are worked on at once: as many as the server has use for.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a batch takes of the workers' number where nobody waits for the disk, so that half of them share transactions.
/// Two keep two cores busy, and live work, which the others are for, takes a third longer beside four, by measurement.
const WIDE: u32 = 2;
/// Batches at once at the least, if there are as many workers.
const LEAST: usize = 2;

/// The places for batches of what a sweep found.
pub struct Places {
    free: Arc<Semaphore>,
    /// Whether commits do not wait for the disk.
    asynchronous: bool,
}

/// A place for one batch, until it is dropped.
pub struct Place(#[allow(dead_code, reason = "is held, not read")] OwnedSemaphorePermit);

impl Places {
    /// For so many workers.
    pub(super) fn new(workers: usize, asynchronous: bool) -> Self {
        let number = workers.max(LEAST * WIDE as usize);
        Self {
            free: Arc::new(Semaphore::new(number)),
            asynchronous,
        }
    }

    /// A place, if one is free. `waits`: the files make tenants wait for the disk.
    pub fn try_take(&self, waits: bool) -> Option<Place> {
        let free = Arc::clone(&self.free);
        let permit = free.try_acquire_many_owned(self.width(waits)).ok()?;
        Some(Place(permit))
    }

    /// As [`Self::try_take`], when one is free.
    pub async fn take(&self, waits: bool) -> Place {
        let free = Arc::clone(&self.free);
        let permit = free.acquire_many_owned(self.width(waits)).await;
        Place(permit.expect("nobody closes it"))
    }

    /// While a batch waits for the disk, others can work.
    fn width(&self, waits: bool) -> u32 {
        match waits || !self.asynchronous {
            true => 1,
            false => WIDE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_once(places: &Places, waits: bool) -> usize {
        std::iter::from_fn(|| places.try_take(waits))
            .collect::<Vec<_>>()
            .len()
    }

    #[test]
    fn half_of_the_workers_share_transactions_and_all_where_they_wait_for_the_disk() {
        let fast = Places::new(8, true);
        assert_eq!(at_once(&fast, false), 4);
        assert_eq!(at_once(&fast, true), 8);
        assert_eq!(at_once(&Places::new(8, false), false), 8);
        assert_eq!(at_once(&Places::new(2, true), false), 2);
    }
}
