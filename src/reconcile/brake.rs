//! The brake: when the server is in trouble, all workers wait and one tenant at a time tries.
//!
//! A full disk would otherwise fail every tenant of the fleet, one after another. None of them is at fault:
//! no attempt is counted and nothing is written down, which a full disk would not allow anyway.
//!
//! ```text
//!  off ──trouble──> on ──1 s … 30 s──> one worker tries ──done──> off
//!                   ^                         │
//!                   └────── trouble ──────────┘
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use super::disposition;
pub use crate::metrics::BrakeReason;
use crate::{
    config::Retry,
    error::{Error, asks_for_password},
    failpoint,
    metrics::Metrics,
};

/// How soon one tenant is tried, doubled while it does not help.
const PROBE: Retry = Retry {
    attempts: 0,
    initial: Duration::from_secs(1),
    max: Duration::from_secs(30),
};
/// A server that is away, and one that was full, is asked often: an attempt costs it nothing, and events wait.
const AWAY: Retry = Retry {
    max: Duration::from_secs(2),
    ..PROBE
};
/// A tenant that brings the trouble itself, such as too many tables for the lock table, is put off further.
const TENANT: Retry = Retry {
    attempts: 0,
    initial: Duration::from_secs(1),
    max: Duration::from_secs(600),
};
/// A refused password is not tried often: some servers lock an account.
const PASSWORD: Duration = Duration::from_secs(20);
/// Tenants remembered; more than can be in trouble while one at a time tries.
const REMEMBERED: usize = 1024;

/// The trouble that an error tells of, if it is the server's.
pub fn reason(error: &Error) -> Option<BrakeReason> {
    match error {
        Error::Postgres { source, .. } => reason_of(source),
        Error::Password { .. } => Some(BrakeReason::Password),
        Error::WrongServer(_) => Some(BrakeReason::ReadOnly),
        Error::Pool { .. } | Error::Timeout { .. } => Some(BrakeReason::Unreachable),
        _ => None,
    }
}

/// As [`reason`], of a driver error.
pub fn reason_of(error: &tokio_postgres::Error) -> Option<BrakeReason> {
    let Some(code) = error.code() else {
        return Some(if asks_for_password(error) {
            BrakeReason::Password
        } else {
            BrakeReason::Unreachable
        });
    };
    match code.code() {
        "53100" => Some(BrakeReason::Disk),
        "53300" => Some(BrakeReason::Connections),
        "25006" => Some(BrakeReason::ReadOnly),
        "28000" | "28P01" => Some(BrakeReason::Password),
        code if code.starts_with("53") => Some(BrakeReason::Memory),
        code if code.starts_with("08") || code.starts_with("57P0") => {
            Some(BrakeReason::Unreachable)
        }
        _ => None,
    }
}

/// How a worker may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Nothing is wrong.
    Free,
    /// It is the one that tries.
    Probe,
}

/// Whether a run that met no trouble shows that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It migrated a tenant.
    Wrote,
    /// It only looked.
    Looked,
}

/// Shared by the workers of one database.
#[derive(Debug)]
pub struct Brake {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    on: Option<On>,
    /// Runs of a tenant that met trouble, since it last met none.
    strikes: HashMap<String, u32>,
}

#[derive(Debug)]
struct On {
    reason: BrakeReason,
    since: Instant,
    /// When trouble was last met.
    last: Instant,
    failures: u32,
    next: Instant,
    probing: bool,
}

impl Brake {
    /// Off.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Why it is on.
    pub fn on(&self) -> Option<BrakeReason> {
        self.state().on.as_ref().map(|on| on.reason)
    }

    /// Waits until there is no trouble, or until it is this worker's turn to try.
    pub async fn pass(&self) -> Pass {
        loop {
            // Armed before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            let due = {
                let mut state = self.state();
                match &mut state.on {
                    None => return Pass::Free,
                    Some(on) if on.probing => None,
                    Some(on) if on.next <= Instant::now() => {
                        on.probing = true;
                        return Pass::Probe;
                    }
                    Some(on) => Some(on.next),
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// A run on `tenant` met trouble; when to try that tenant again.
    pub fn pull(&self, reason: BrakeReason, tenant: &str, pass: Pass, text: &str) -> Duration {
        if failpoint::off("brake.pull") {
            return disposition::backoff(&PROBE, 1);
        }
        let now = Instant::now();
        let mut state = self.state();
        if state.strikes.len() >= REMEMBERED {
            state.strikes.clear();
        }
        let strikes = state.strikes.entry(tenant.to_owned()).or_default();
        *strikes += 1;
        let own = matches!(reason, BrakeReason::Disk | BrakeReason::Memory);
        let put_off = if own {
            disposition::backoff(&TENANT, *strikes)
        } else {
            Duration::ZERO
        };
        let said = state.on.as_ref().map(|on| on.reason) == Some(reason);
        let on = state.on.get_or_insert(On {
            reason,
            since: now,
            last: now,
            failures: 0,
            next: now,
            probing: false,
        });
        on.last = now;
        // Those in flight when it was pulled meet the same trouble: no news.
        if pass == Pass::Probe || on.failures == 0 {
            on.failures += 1;
            on.next = now
                + match reason {
                    BrakeReason::Unreachable | BrakeReason::Connections => {
                        disposition::backoff(&AWAY, on.failures)
                    }
                    BrakeReason::Password => {
                        disposition::backoff(&PROBE, on.failures).max(PASSWORD)
                    }
                    _ => disposition::backoff(&PROBE, on.failures),
                };
            on.probing = false;
        }
        on.reason = reason;
        let wait = put_off.max(on.next - now);
        drop(state);
        if !said {
            self.tell(Some(reason));
            say(reason, text);
        }
        self.changed.notify_waiters();
        wait
    }

    /// A run on `tenant` met no trouble.
    pub fn ease(&self, tenant: &str, pass: Pass, proof: Proof) {
        let mut state = self.state();
        state.strikes.remove(tenant);
        let Some(on) = state.on.as_mut().filter(|_| pass == Pass::Probe) else {
            return;
        };
        on.probing = false;
        self.end(state, proof);
    }

    /// Something else than a tenant met trouble: the sweep.
    pub fn trouble(&self, reason: BrakeReason, text: &str) {
        self.pull(reason, "", Pass::Free, text);
    }

    /// Something else than a tenant met none.
    pub fn answered(&self) {
        self.end(self.state(), Proof::Looked);
    }

    /// Switches it off, if this proves that the trouble is over. Looking needs no room on the disk and no locks.
    fn end(&self, mut state: MutexGuard<'_, State>, proof: Proof) {
        let Some(on) = &state.on else { return };
        let proven = match on.reason {
            BrakeReason::Disk | BrakeReason::Memory | BrakeReason::ReadOnly => {
                proof == Proof::Wrote || on.last.elapsed() >= PROBE.max
            }
            _ => true,
        };
        if proven {
            info!(
                reason = %on.reason,
                "brake off after {:.1} s: tenants are migrated again", on.since.elapsed().as_secs_f64()
            );
            state.on = None;
            self.tell(None);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn tell(&self, reason: Option<BrakeReason>) {
        let load = [BrakeReason::ReplicationLag, BrakeReason::Waiting];
        for &each in BrakeReason::ALL.iter().filter(|it| !load.contains(it)) {
            let on = i64::from(reason == Some(each));
            self.metrics.brake.get(each).set(on);
        }
    }
}

/// One line a cause.
fn say(reason: BrakeReason, text: &str) {
    match reason {
        BrakeReason::Unreachable | BrakeReason::ReadOnly => warn!(
            %reason,
            "brake on ({reason}): no tenant is migrated until the server answers again, which is tried again and again: {text}"
        ),
        _ => error!(
            %reason,
            "brake on ({reason}): no tenant is migrated until the server's trouble is over, which is tried after 1 to 30 s: {text}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake() -> Brake {
        let metrics = Metrics::new("main", &prometheus::Registry::new()).expect("metrics");
        Brake::new(Arc::new(metrics))
    }

    #[tokio::test(start_paused = true)]
    async fn one_worker_at_a_time_tries_ever_more_slowly() {
        let brake = brake();
        assert_eq!(brake.pass().await, Pass::Free);
        brake.pull(BrakeReason::Disk, "1", Pass::Free, "full");
        brake.pull(BrakeReason::Disk, "2", Pass::Free, "full");
        let mut gaps = Vec::new();
        for tenant in 3..=9 {
            let start = Instant::now();
            assert_eq!(brake.pass().await, Pass::Probe);
            gaps.push(start.elapsed());
            let other = tokio::time::timeout(Duration::from_secs(60), brake.pass());
            assert!(
                other.await.is_err(),
                "the others wait for the one that tries"
            );
            brake.pull(BrakeReason::Disk, &tenant.to_string(), Pass::Probe, "full");
        }
        assert!(
            gaps[0] >= Duration::from_secs(1) && gaps[0] < Duration::from_secs(3),
            "{gaps:?}"
        );
        assert!(gaps[3] >= Duration::from_secs(8), "{gaps:?}");
        assert_eq!(gaps[6], Duration::from_secs(30), "{gaps:?}");
        assert_eq!(brake.pass().await, Pass::Probe);
        brake.ease("10", Pass::Probe, Proof::Looked);
        assert_eq!(brake.on(), None, "half a minute without trouble");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_asked_every_other_second() {
        let brake = brake();
        let mut longest = Duration::ZERO;
        let mut wait = brake.pull(BrakeReason::Unreachable, "1", Pass::Free, "away");
        for _ in 0..20 {
            let start = Instant::now();
            assert_eq!(brake.pass().await, Pass::Probe);
            longest = longest.max(start.elapsed()).max(wait);
            wait = brake.pull(BrakeReason::Unreachable, "1", Pass::Probe, "away");
        }
        assert_eq!(
            longest, AWAY.max,
            "the tenant is at no fault, and not put off further"
        );
        brake.answered();
        assert_eq!(brake.pass().await, Pass::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn looking_at_a_tenant_does_not_prove_that_the_disk_has_room() {
        let brake = brake();
        brake.pull(BrakeReason::Disk, "1", Pass::Free, "full");
        assert_eq!(brake.pass().await, Pass::Probe);
        brake.ease("2", Pass::Probe, Proof::Looked);
        assert_eq!(brake.on(), Some(BrakeReason::Disk));
        assert_eq!(brake.pass().await, Pass::Probe);
        brake.ease("3", Pass::Probe, Proof::Wrote);
        assert_eq!(brake.on(), None);
        assert_eq!(brake.pass().await, Pass::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_brings_the_trouble_itself_is_put_off_further() {
        let brake = brake();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(brake.pull(BrakeReason::Memory, "big", Pass::Free, "locks"));
            assert_eq!(brake.pass().await, Pass::Probe);
            brake.ease("small", Pass::Probe, Proof::Wrote);
        }
        assert!(waits[4] >= Duration::from_secs(16), "{waits:?}");
        brake.ease("big", Pass::Free, Proof::Wrote);
        assert!(
            brake.pull(BrakeReason::Memory, "big", Pass::Free, "locks") < Duration::from_secs(3)
        );
    }
}
