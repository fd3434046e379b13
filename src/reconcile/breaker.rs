//! What the breaker is fed: which versions succeeded here since one of them last failed.
//!
//! The ledger hears of failures only, because a write for each success would make one row of it the
//! bottleneck of a rollout. A failure brings along how many tenants of this process took the version
//! since the last one, so that the ledger still knows what "in a row" and "of the last fifty" mean.

use std::sync::atomic::{AtomicU32, Ordering};

/// Successes by file, since the file last failed here.
#[derive(Debug)]
pub struct Tally(Vec<AtomicU32>);

impl Tally {
    /// For a set of this many files.
    pub fn new(files: usize) -> Self {
        Self((0..files).map(|_| AtomicU32::new(0)).collect())
    }

    /// A tenant took the files after `before`, up to and including `reached` (ordinals).
    pub fn succeeded(&self, before: usize, reached: usize) {
        for file in self.0.iter().take(reached).skip(before) {
            file.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many took this file since the last call, which forgets them.
    pub fn take(&self, ordinal: usize) -> u32 {
        self.0[ordinal - 1].swap(0, Ordering::Relaxed)
    }

    /// They were not counted after all.
    pub fn put_back(&self, ordinal: usize, successes: u32) {
        self.0[ordinal - 1].fetch_add(successes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_remembers_who_took_it_since_it_last_failed() {
        let tally = Tally::new(4);
        tally.succeeded(0, 4);
        tally.succeeded(2, 3);
        assert_eq!([1, 2, 3, 4].map(|file| tally.take(file)), [1, 1, 2, 1]);
        assert_eq!(tally.take(3), 0);
        tally.put_back(3, 2);
        tally.succeeded(3, 3);
        assert_eq!(tally.take(3), 2);
    }
}
