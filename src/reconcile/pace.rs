//! The rate of a rollout: work that nobody waits for is spread over time.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// What may pass at once is what may pass in so long.
const EVEN: Duration = Duration::from_millis(100);

/// Lets `max_rate` tenants a second pass.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// 0 means no limit.
    pub fn new(max_rate: u32) -> Self {
        let gap = if max_rate == 0 {
            Duration::ZERO
        } else {
            Duration::from_secs(1) / max_rate
        };
        Self {
            gap,
            next: Mutex::new(Instant::now()),
        }
    }

    /// How many tenants may pass at once without the rate becoming uneven: a tenth of a second's.
    pub fn at_once(&self) -> usize {
        match self.gap {
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

    /// Waits for the next so many places; they begin together.
    pub async fn pass_all(&self, tenants: usize) {
        if self.gap.is_zero() {
            return;
        }
        let place = {
            let mut next = self.next.lock().await;
            let place = (*next).max(Instant::now());
            *next = place + self.gap * u32::try_from(tenants).unwrap_or(u32::MAX);
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
}
