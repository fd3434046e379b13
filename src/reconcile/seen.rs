//! Tenants that were seen to lag a moment ago: a rollout need not look at each of them a second time, because the
//! guard of a shared transaction finds out whether what it presumes still holds.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use super::queue::Key;
use crate::fleet::glance::{LOOKED_AT, Lagging};

/// How long that is worth something: the guard does not ask the registry.
const FRESH: Duration = Duration::from_secs(5);

/// Whom a sweep saw, for a few seconds; as many as one question tells.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<String, (Instant, Lagging)>>);

impl Seen {
    /// They were seen not before `at`.
    pub fn put(&self, at: Instant, lagging: Vec<Lagging>) {
        let mut seen = self.lock();
        seen.retain(|_, (at, _)| at.elapsed() < FRESH);
        let room = (LOOKED_AT as usize).saturating_sub(seen.len());
        let entry = |it: Lagging| (it.id.clone(), (at, it));
        seen.extend(lagging.into_iter().take(room).map(entry));
    }

    /// Those of these tenants that were seen, by id; each is told once.
    pub(super) fn take(&self, ids: &[Key]) -> HashMap<String, Lagging> {
        let mut seen = self.lock();
        let taken = ids.iter().filter_map(|id| seen.remove_entry(&**id));
        let fresh = taken.filter(|(_, (at, _))| at.elapsed() < FRESH);
        let fresh = fresh.map(|(id, (_, lagging))| (id, lagging)).collect();
        if seen.is_empty() {
            seen.shrink_to_fit();
        }
        fresh
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Lagging)>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }
}
