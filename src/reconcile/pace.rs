//! The rate of a rollout: work that nobody waits for is spread over time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// What may pass at once is what may pass in so long.
const EVEN: Duration = Duration::from_millis(100);

/// Lets `max_rate` tenants a second pass.
#[derive(Debug)]
pub struct Pace {
    max_rate: AtomicU32,
    next: Mutex<Instant>,
    held: watch::Sender<bool>,
}

impl Pace {
    /// 0 means no limit.
    pub fn new(max_rate: u32) -> Self {
        Self {
            max_rate: AtomicU32::new(max_rate),
            next: Mutex::new(Instant::now()),
            held: watch::Sender::new(false),
        }
    }

    /// Another rate from now on; whether it is another one.
    pub fn set(&self, max_rate: u32) -> bool {
        if self.max_rate.swap(max_rate, Ordering::Relaxed) == max_rate {
            return false;
        }
        // Places given at the old rate may lie far ahead.
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        true
    }

    /// Lets nobody pass until told otherwise.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    fn gap(&self) -> Duration {
        match self.max_rate.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        }
    }

    /// How many tenants may pass at once without the rate becoming uneven: a tenth of a second's.
    pub fn at_once(&self) -> usize {
        match self.gap() {
            Duration::ZERO => usize::MAX,
            gap => usize::try_from(EVEN.as_nanos() / gap.as_nanos())
                .unwrap_or(usize::MAX)
                .max(1),
        }
    }

    /// Waits for the next place.
    pub async fn pass(&self) {
        self.pass_all(1).await;
    }

    /// Gives places back that were not used.
    pub fn give_back(&self, tenants: usize) {
        let unused = self.gap() * u32::try_from(tenants).unwrap_or(u32::MAX);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = next.checked_sub(unused).unwrap_or(*next);
    }

    /// Waits for the next so many places; they begin together. None: only while all are held.
    pub async fn pass_all(&self, tenants: usize) {
        // An error means that we are gone ourselves.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let gap = self.gap();
        if gap.is_zero() {
            return;
        }
        let place = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let place = (*next).max(Instant::now());
            *next = place + gap * u32::try_from(tenants).unwrap_or(u32::MAX);
            place
        };
        sleep_until(place).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tenants_pass_no_faster_than_the_rate() {
        let pace = Pace::new(10);
        let start = Instant::now();
        for _ in 0..11 {
            pace.pass().await;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn places_that_are_given_back_are_used_by_the_next() {
        let pace = Pace::new(10);
        let start = Instant::now();
        pace.pass_all(10).await;
        pace.give_back(8);
        pace.pass_all(10).await;
        assert_eq!(start.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_from_the_next_place_on() {
        let pace = Pace::new(1);
        pace.pass().await;
        assert!(pace.set(100) && !pace.set(100));
        let start = Instant::now();
        for _ in 0..100 {
            pace.pass().await;
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        pace.set(0);
        assert_eq!(pace.at_once(), usize::MAX);
        pace.hold(true);
        let waits = tokio::time::timeout(Duration::from_secs(9), pace.pass()).await;
        assert!(waits.is_err());
        pace.hold(false);
        pace.pass().await;
    }
}
