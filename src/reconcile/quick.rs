//! Which files are quick: how long one tenant took, as a moving average, and so how many tenants may share a
//! transaction of such a file.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// How long a shared transaction should take; well under [`HOLD`], because tenants differ.
const AIM: Duration = Duration::from_millis(20);
/// How long a shared transaction may hold the locks of the tenants in it.
pub const HOLD: Duration = Duration::from_millis(50);
/// Tenants in a transaction at most: beyond, nothing is left to be shared.
const MOST: usize = 40;
/// A tenant that takes longer mostly waits for the disk, by measurement: up to PostgreSQL 16 an index is synced as soon
/// as it is built. An ADD COLUMN takes a third of it.
const WAITS: Duration = Duration::from_millis(1);

/// Microseconds a tenant took, by file; 0 where nobody knows yet.
#[derive(Debug)]
pub struct Quick(Vec<AtomicU32>);

impl Quick {
    /// For a set of this many files.
    pub fn new(files: usize) -> Self {
        Self((0..files).map(|_| AtomicU32::new(0)).collect())
    }

    /// Tenants took these files (ordinals after `before`, up to and including `reached`), each so long.
    pub fn took(&self, before: usize, reached: usize, each: Duration) {
        let files = u32::try_from(reached.saturating_sub(before))
            .unwrap_or(u32::MAX)
            .max(1);
        let new = u32::try_from((each / files).as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        for file in self.0.iter().take(reached).skip(before) {
            // Two workers may overwrite one another: an average either way.
            let old = file.load(Ordering::Relaxed);
            // The first ones meet cold caches: what is quicker counts for more.
            let average = match old {
                0 => new,
                _ if new < old => old / 2 + new / 2,
                _ => old / 4 * 3 + new / 4,
            };
            file.store(average, Ordering::Relaxed);
        }
    }

    /// Whether somebody took all of these files.
    pub fn knows(&self, before: usize, reached: usize) -> bool {
        self.0[before..reached]
            .iter()
            .all(|file| file.load(Ordering::Relaxed) > 0)
    }

    /// Whether a tenant mostly waits for the disk while it takes this file, as far as anybody knows.
    pub fn waits(&self, ordinal: usize) -> bool {
        let each = self.0[ordinal - 1].load(Ordering::Relaxed);
        Duration::from_micros(each.into()) > WAITS
    }

    /// How many tenants may take these files in one transaction: one where nobody knows yet, none where even one
    /// holds its locks for too long.
    pub fn at_once(&self, before: usize, reached: usize) -> usize {
        if !self.knows(before, reached) {
            return 1;
        }
        let slowest = self.0[before..reached]
            .iter()
            .map(|file| file.load(Ordering::Relaxed))
            .max();
        let each = Duration::from_micros(slowest.unwrap_or(0).into());
        if each >= HOLD {
            return 0;
        }
        let fit = AIM.as_micros() / each.as_micros().max(1);
        usize::try_from(fit).unwrap_or(MOST).clamp(1, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_tries_what_nobody_knows_and_the_slow_are_left_alone() {
        let quick = Quick::new(3);
        assert_eq!(quick.at_once(0, 3), 1);
        quick.took(0, 3, Duration::from_micros(2400));
        assert_eq!(quick.at_once(0, 3), 25);
        assert!(!quick.waits(3));
        quick.took(2, 3, Duration::from_millis(12));
        assert!(quick.waits(3) && !quick.waits(2));
        assert_eq!(quick.at_once(0, 3), 5);
        assert_eq!(quick.at_once(0, 2), 25);
        for _ in 0..20 {
            quick.took(1, 2, Duration::from_secs(1));
        }
        assert_eq!(quick.at_once(0, 2), 0);
    }
}
