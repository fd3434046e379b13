//! One line a cause: what fails on many tenants alike is told with the first one's name, then counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::sleep;
use tracing::warn;

use crate::fleet::State;

/// Failures of one cause are told of at most this often.
const WINDOW: Duration = Duration::from_secs(10);

/// What failures have in common. There are few of these, however many tenants there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Cause {
    /// What became of the tenant.
    pub(super) state: State,
    /// SQLSTATE, where the server gave one.
    pub(super) sqlstate: Option<String>,
    /// The version that failed.
    pub(super) version: Option<String>,
}

/// The causes of late, and how many failures were counted instead of told.
#[derive(Debug, Clone, Default)]
pub(super) struct Causes(Arc<Mutex<HashMap<Cause, u32>>>);

impl Causes {
    fn counted(&self) -> MutexGuard<'_, HashMap<Cause, u32>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Whether to tell of this failure: it is the first one of its cause for a while. Those that follow are told of
    /// together.
    pub(super) fn is_first(&self, cause: &Cause) -> bool {
        let mut counted = self.counted();
        if let Some(more) = counted.get_mut(cause) {
            *more += 1;
            return false;
        }
        counted.insert(cause.clone(), 0);
        tokio::spawn(self.clone().sum_up(cause.clone()));
        true
    }

    /// Tells how many there were, until a window passes without any.
    async fn sum_up(self, cause: Cause) {
        loop {
            sleep(WINDOW).await;
            let more = {
                let mut counted = self.counted();
                match counted.insert(cause.clone(), 0) {
                    Some(more) if more > 0 => more,
                    _ => {
                        counted.remove(&cause);
                        return;
                    }
                }
            };
            let Cause {
                state,
                sqlstate,
                version,
            } = &cause;
            warn!(
                migration.version = version, sqlstate, %state,
                "… and {more} more failures like it within {WINDOW:?} ({state}, SQLSTATE {}, version {}): `tenantd status` \
                 names the tenants",
                sqlstate.as_deref().unwrap_or("unknown"),
                version.as_deref().unwrap_or("unknown"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_told_once_until_a_window_has_passed_without_it() {
        let causes = Causes::default();
        let cause = |sqlstate: &str| Cause {
            state: State::Failed,
            sqlstate: Some(sqlstate.into()),
            version: None,
        };
        assert!(causes.is_first(&cause("XX000")));
        assert!(causes.is_first(&cause("40001")), "another cause");
        for _ in 0..3 {
            assert!(!causes.is_first(&cause("XX000")));
        }
        assert_eq!(causes.counted()[&cause("XX000")], 3);
        sleep(WINDOW + Duration::from_millis(1)).await;
        assert_eq!(causes.counted()[&cause("XX000")], 0, "summed up");
        assert!(!causes.is_first(&cause("XX000")));
        assert!(causes.is_first(&cause("40001")));
        sleep(WINDOW * 3).await;
        assert!(causes.counted().is_empty());
        assert!(causes.is_first(&cause("XX000")));
    }
}
