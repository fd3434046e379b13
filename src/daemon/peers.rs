//! The other daemons of this database: every one hears of an event, and one should act on it first.
//!
//! Each heartbeat is a notification that all of them hear, so nobody has to be asked who runs. For each tenant
//! the daemons have an order of their own; who is not first waits a little, and mostly finds the work done.
//! It is a courtesy and no lock: who hears of nobody is first, and two that are first only meet.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Mutex,
    time::Duration,
};

use tokio::time::Instant;

use crate::fleet::instances::HEARTBEAT_COUNTS;

/// What each of those before us is given.
const HEAD_START: Duration = Duration::from_millis(500);
/// Any role may notify: nobody waits for more daemons than this,
const MOST: u32 = 2;
/// and no more are remembered.
const REMEMBERED: usize = 64;

/// Who else runs, and when they were last heard.
pub struct Peers {
    own: String,
    heard: Mutex<HashMap<String, Instant>>,
}

impl Peers {
    /// Nobody was heard yet by the daemon of this id.
    pub fn new(own: String) -> Self {
        Self {
            own,
            heard: Mutex::default(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, Instant>) -> T) -> T {
        look(
            &mut self
                .heard
                .lock()
                .expect("no code panics while it holds this lock"),
        )
    }

    /// A heartbeat of another daemon. Whether it was unknown.
    pub fn heard(&self, id: &str) -> bool {
        let now = Instant::now();
        self.with(|heard| {
            heard.retain(|_, at| now - *at < HEARTBEAT_COUNTS);
            if let Some(at) = heard.get_mut(id) {
                *at = now;
                return false;
            }
            heard.len() < REMEMBERED && heard.insert(id.to_owned(), now).is_none()
        })
    }

    /// How long others that go before us have for this tenant; nothing for who is first or alone.
    pub fn head_start(&self, tenant: &str) -> Duration {
        let now = Instant::now();
        let own = turn(&self.own, tenant);
        let before = self.with(|heard| {
            let running = heard.iter().filter(|(_, at)| now - **at < HEARTBEAT_COUNTS);
            running.filter(|(id, _)| turn(id, tenant) < own).count()
        });
        HEAD_START * u32::try_from(before).unwrap_or(MOST).min(MOST)
    }
}

/// Where a daemon stands for a tenant: all of one version agree.
fn turn(id: &str, tenant: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, tenant).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hearing(own: &str, others: &[&str]) -> Peers {
        let peers = Peers::new(own.into());
        others.iter().for_each(|other| assert!(peers.heard(other)));
        peers
    }

    #[test]
    fn who_is_alone_never_waits() {
        let alone = hearing("a", &[]);
        assert!((0..100).all(|id| alone.head_start(&id.to_string()).is_zero()));
    }

    #[test]
    fn for_each_tenant_one_of_three_goes_first_and_each_is_first_for_some() {
        let three = [
            hearing("a", &["b", "c"]),
            hearing("b", &["a", "c"]),
            hearing("c", &["b", "a"]),
        ];
        let mut first = [0; 3];
        for id in 0..300 {
            let id = id.to_string();
            let mut starts: Vec<_> = three.iter().map(|peers| peers.head_start(&id)).collect();
            first[starts.iter().position(Duration::is_zero).unwrap()] += 1;
            starts.sort();
            assert_eq!(starts, [Duration::ZERO, HEAD_START, HEAD_START * 2]);
        }
        assert!(first.iter().all(|&count| count > 50), "{first:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_heard_any_more_is_not_waited_for() {
        let peers = hearing("a", &["b"]);
        let waits = || (0..100).any(|id| !peers.head_start(&id.to_string()).is_zero());
        assert!(waits());
        tokio::time::advance(HEARTBEAT_COUNTS).await;
        assert!(!waits());
        assert!(peers.heard("b") && !peers.heard("b"));
    }

    #[test]
    fn a_flood_of_strange_heartbeats_costs_little_memory_and_little_time() {
        let peers = Peers::new("a".into());
        for id in 0..10_000 {
            peers.heard(&id.to_string());
        }
        assert_eq!(peers.with(|heard| heard.len()), REMEMBERED);
        assert_eq!(peers.head_start("7"), HEAD_START * MOST);
    }
}
