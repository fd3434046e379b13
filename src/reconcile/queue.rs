//! The keyed work queue: which tenant is looked at next. A plain state machine without I/O or clock.
//!
//! After client-go's work queue: one entry a tenant, however often it is woken; a wakeup during a run
//! causes exactly one more run afterwards. Each key is in one of three places:
//!
//! ```text
//!  wake ──> waiting ──next──> in flight ──done──> gone
//!             ^  ^                │ woken meanwhile
//!             │  └────────────────┘ (rerun)
//!  retry_at ─ later ── due
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use tokio::time::Instant;

pub use crate::metrics::Reason;

impl Reason {
    /// Whether somebody outside may wait to hear that the tenant is ready. A retry goes on with what
    /// an event began; a sweep of the whole fleet must not notify for each tenant.
    pub fn is_event(self) -> bool {
        self != Self::Sweep
    }
}

/// A tenant's id, shared between the queue and the worker.
pub type Key = Arc<str>;

/// One run to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The tenant.
    pub key: Key,
    /// The most urgent reason it was woken for.
    pub reason: Reason,
    /// When it was first woken.
    pub since: Instant,
    /// It may be looked at with others: nobody has found yet that it needs a run of its own.
    pub shared: bool,
}

/// What a wakeup did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// It waits now.
    Queued,
    /// It waited already.
    Coalesced,
    /// It is being worked on and will be looked at once more.
    Rerun,
    /// The queue is full of what is as urgent: a sweep has to find it.
    Dropped,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Waiting {
        lane: Lane,
        since: Instant,
    },
    Later {
        due: Instant,
        reason: Reason,
        since: Instant,
    },
    InFlight {
        rerun: Option<(Reason, Instant)>,
    },
}

/// Keys that wait for one reason. Those that were looked at already and need a run of their own go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    reason: Reason,
    looked: Looked,
}

/// Whether it is known what a key needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looked {
    /// Needs a run of its own.
    Alone,
    /// May be looked at with others.
    NotYet,
}

/// Which reasons a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// All.
    Everything,
    /// All but what a sweep found and nobody looked at yet: as much of that is worked on as may be.
    NoBatches,
    /// Those that somebody may wait for.
    Live,
}

impl Serves {
    fn has(self, lane: Lane) -> bool {
        match self {
            Self::Everything => true,
            Self::NoBatches => lane.reason.is_event() || lane.looked == Looked::Alone,
            Self::Live => lane.reason.is_event(),
        }
    }
}

/// Tenants that are looked at in one query at most.
const BATCH: usize = 256;
/// And at least, where there are so many: a query costs a millisecond before the first.
const LEAST: usize = 32;

/// How many of `left` tenants are taken next: fewer towards the end, so that the workers come to it together.
pub fn portion(left: usize) -> usize {
    (left / 8).clamp(LEAST, BATCH)
}

/// The queue. Bounded: `capacity` keys, whatever their place.
#[derive(Debug)]
pub struct Queue {
    capacity: usize,
    places: HashMap<Key, Place>,
    /// A key whose reason became more urgent leaves a stale entry behind; `next` passes over it.
    waiting: BTreeMap<Lane, VecDeque<Key>>,
    later: BTreeSet<(Instant, Key)>,
    in_flight: usize,
    scattered: bool,
}

/// How far from the front a scattered queue takes the next key.
const SCATTER: usize = 64;

impl Queue {
    /// An empty queue.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            places: HashMap::new(),
            waiting: BTreeMap::new(),
            later: BTreeSet::new(),
            in_flight: 0,
            scattered: false,
        }
    }

    /// Whether the keys of one reason are taken at random from the first few, and not in order: another
    /// daemon has the same keys, and two that go the same way only meet.
    pub fn scatter(&mut self, scattered: bool) {
        self.scattered = scattered;
    }

    /// Keys it holds, in flight or not.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Keys that are neither in flight nor put off.
    pub fn depth(&self) -> usize {
        self.places.len() - self.in_flight - self.later.len()
    }

    /// Keys being worked on.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether something waits that a sweep found.
    pub fn has_sweeps(&self) -> bool {
        let is_sweep = |place: &Place| {
            let Place::Waiting { lane, .. } = place else {
                return false;
            };
            lane.reason == Reason::Sweep
        };
        self.places.values().any(is_sweep)
    }

    /// Asks for a run.
    pub fn wake(&mut self, key: &str, reason: Reason, now: Instant) -> Woken {
        let Some((key, place)) = self.places.get_key_value(key) else {
            if self.places.len() >= self.capacity && !self.evict(reason) {
                return Woken::Dropped;
            }
            self.wait(Key::from(key), reason, now);
            return Woken::Queued;
        };
        let (key, place) = (Key::clone(key), *place);
        match place {
            Place::Waiting { lane, since } => {
                if reason < lane.reason {
                    self.enter(key, Lane { reason, ..lane }, since);
                }
                Woken::Coalesced
            }
            // An event will be answered sooner than a sweep asks for.
            Place::Later { reason: event, .. }
                if reason == Reason::Sweep && event != Reason::Retry =>
            {
                Woken::Coalesced
            }
            Place::Later { due, .. } => {
                self.later.remove(&(due, Key::clone(&key)));
                self.wait(key, reason, now);
                Woken::Queued
            }
            Place::InFlight { rerun } => {
                let rerun = match rerun {
                    Some((before, since)) => (before.min(reason), since),
                    None => (reason, now),
                };
                self.places
                    .insert(key, Place::InFlight { rerun: Some(rerun) });
                Woken::Rerun
            }
        }
    }

    /// Asks for a run that somebody else may make until `due`; not put off further than it is.
    pub fn wake_at(&mut self, due: Instant, key: &str, reason: Reason, now: Instant) -> Woken {
        let (mut due, mut reason, mut since) = (due, reason, now);
        match self.places.get(key).copied() {
            None if self.places.len() >= self.capacity && !self.evict(reason) => {
                return Woken::Dropped;
            }
            None => {}
            Some(Place::Later {
                due: before,
                reason: other,
                since: at,
            }) => {
                self.later.remove(&(before, Key::from(key)));
                (due, reason, since) = (due.min(before), reason.min(other), since.min(at));
            }
            Some(_) => return self.wake(key, reason, now),
        }
        self.put_off(Key::from(key), due, reason, since);
        Woken::Queued
    }

    /// The most urgent run, now in flight. `None`: nothing is due.
    pub fn next(&mut self, now: Instant) -> Option<Job> {
        self.take(now, 1, Serves::Everything).pop()
    }

    /// The most urgent runs that may be made together, now in flight: at most so many, of one reason. Empty: nothing
    /// is due.
    pub fn take(&mut self, now: Instant, most: usize, serves: Serves) -> Vec<Job> {
        self.promote(now);
        let mut jobs = Vec::new();
        for (&lane, keys) in &mut self.waiting {
            if !serves.has(lane) {
                break;
            }
            let most = if lane.looked == Looked::Alone {
                1
            } else {
                most.min(portion(keys.len()))
            };
            // Events have an order of their own: each daemon's own tenants first.
            let scattered = self.scattered && matches!(lane.reason, Reason::Retry | Reason::Sweep);
            while jobs.len() < most
                && let Some(key) = pick(keys, scattered)
            {
                if let Some(place) = self.places.get_mut(&key)
                    && let &mut Place::Waiting {
                        lane: current,
                        since,
                    } = place
                    && current == lane
                {
                    *place = Place::InFlight { rerun: None };
                    self.in_flight += 1;
                    jobs.push(Job {
                        key,
                        reason: lane.reason,
                        since,
                        shared: lane.looked == Looked::NotYet,
                    });
                }
            }
            if !jobs.is_empty() {
                break;
            }
        }
        jobs
    }

    /// Gives a run back that was taken with others and not made: it may be taken with others again, or has to be
    /// made alone. A wakeup meanwhile is part of it.
    pub fn give_back(&mut self, job: &Job, looked: Looked) {
        let Some((key, Place::InFlight { rerun })) = self.places.remove_entry(&job.key) else {
            debug_assert!(false, "{} was not in flight", job.key);
            return;
        };
        self.in_flight -= 1;
        let reason = rerun.map_or(job.reason, |(reason, _)| reason.min(job.reason));
        self.enter(key, Lane { reason, looked }, job.since);
    }

    /// When `next` will have something although nobody wakes it.
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Ends a run. `retry_at`: look again then, unless woken before.
    pub fn done(&mut self, key: &str, retry_at: Option<Instant>) {
        let Some((key, Place::InFlight { rerun })) = self.places.remove_entry(key) else {
            debug_assert!(false, "{key} was not in flight");
            return;
        };
        self.in_flight -= 1;
        match (rerun, retry_at) {
            (Some((reason, since)), _) => self.wait(key, reason, since),
            (None, Some(due)) => self.put_off(key, due, Reason::Retry, due),
            (None, None) => {}
        }
    }

    /// Makes room by forgetting the tenant that is put off longest: the ledger knows when it is due, and a sweep
    /// finds it then. For an event, what a sweep found last makes room too: the next sweep finds it again.
    fn evict(&mut self, reason: Reason) -> bool {
        let last = self.later.last().map(|(_, key)| key);
        if let Some(Place::Later {
            reason: Reason::Retry,
            ..
        }) = last.and_then(|key| self.places.get(key))
        {
            let (_, key) = self.later.pop_last().expect("it has a last");
            return self.places.remove(&key).is_some();
        }
        reason.is_event() && self.forget_a_find()
    }

    fn forget_a_find(&mut self) -> bool {
        for (&lane, keys) in self.waiting.iter_mut().rev() {
            if lane.reason != Reason::Sweep {
                break;
            }
            while let Some(key) = keys.pop_back() {
                if let Some(Place::Waiting { lane: current, .. }) = self.places.get(&key)
                    && *current == lane
                {
                    self.places.remove(&key);
                    return true;
                }
            }
        }
        false
    }

    fn put_off(&mut self, key: Key, due: Instant, reason: Reason, since: Instant) {
        self.later.insert((due, Key::clone(&key)));
        self.places.insert(key, Place::Later { due, reason, since });
    }

    fn wait(&mut self, key: Key, reason: Reason, since: Instant) {
        let looked = Looked::NotYet;
        self.enter(key, Lane { reason, looked }, since);
    }

    fn enter(&mut self, key: Key, lane: Lane, since: Instant) {
        let lanes = self.waiting.entry(lane).or_default();
        lanes.push_back(Key::clone(&key));
        self.places.insert(key, Place::Waiting { lane, since });
    }

    fn promote(&mut self, now: Instant) {
        while let Some((due, _)) = self.later.first() {
            if *due > now {
                break;
            }
            let (_, key) = self.later.pop_first().expect("it has a first");
            if let Some(&Place::Later { reason, since, .. }) = self.places.get(&key) {
                self.wait(key, reason, since);
            }
        }
    }
}

fn pick(keys: &mut VecDeque<Key>, scattered: bool) -> Option<Key> {
    let few = keys.len().min(SCATTER) as u64;
    if !scattered || few < 2 {
        return keys.pop_front();
    }
    // Each new hasher of the standard library has random keys.
    let random = RandomState::new().build_hasher().finish();
    keys.remove(usize::try_from(random % few).unwrap_or(0))
}

#[cfg(test)]
mod tests;
