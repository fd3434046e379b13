//! Failpoints: places where a test makes the program die, wait or fail, and detectors that a test switches
//! off to show that something would notice. Release builds have none: [`COMPILED`] is false there, and
//! every call ends in a constant.
//!
//! `TENANTD_FAILPOINTS="reconcile.applied=abort@3;listener.pulse=off"` names points and what happens there:
//! `abort` (the process is gone as by SIGKILL), `panic`, `error`, `sleep:2s`, `block:2s` (its thread does nothing
//! else meanwhile); each at every pass, or with `@n` at the n-th one only. `off` is for detectors.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::error::{Error, Result};

/// Whether this build has failpoints.
pub const COMPILED: bool = cfg!(debug_assertions);
const VARIABLE: &str = "TENANTD_FAILPOINTS";

/// Every place that the program passes, in the order of a life.
pub const POINTS: &[(&str, &str)] = &[
    (
        "start.connected",
        "the database answered, nothing was asked",
    ),
    ("start.published", "the set was published, no loop runs yet"),
    ("listener.connected", "before LISTEN"),
    (
        "listener.listening",
        "after LISTEN, before the look at the fleet",
    ),
    ("sweep.begins", "before a sweep asks anything"),
    (
        "sweep.noted",
        "a page was seen, and written to the ledger where it says otherwise; nobody woken yet",
    ),
    ("reconcile.looked", "the ledger was read, nothing planned"),
    ("reconcile.planned", "before the message is sent"),
    (
        "outside.begun",
        "before a statement that refuses a transaction; the journal says so",
    ),
    (
        "outside.ended",
        "after that statement, before the journal hears of it",
    ),
    ("reconcile.applied", "the server committed, nobody was told"),
    (
        "reconcile.failed",
        "the server refused, before the rollback",
    ),
    ("reconcile.rolled-back", "before a failure is recorded"),
    (
        "reconcile.recorded",
        "a failure was recorded, nobody was told",
    ),
    ("work.done", "before the queue hears of the end of a run"),
    (
        "stop.drained",
        "no worker runs, before the daemon signs off",
    ),
];

/// Places that are passed only where spares are kept.
pub const SPARE_POINTS: &[(&str, &str)] = &[
    ("spare.claiming", "before a claim is sent"),
    (
        "spare.claimed",
        "the server gave a tenant its spare, nobody was told",
    ),
    ("spare.building", "before a spare is built or migrated"),
    (
        "spare.built",
        "it is in the ledger, its name was not looked for yet",
    ),
];

/// Every detector that can be switched off, and what then goes unnoticed.
pub const DETECTORS: &[(&str, &str)] = &[
    (
        "listener.pulse",
        "a LISTEN connection that delivers nothing",
    ),
    ("listener.resync", "what was sent while nobody listened"),
    (
        "reconcile.watch",
        "a lock that is held or waited for too long",
    ),
    ("sweep.timer", "what no event told of"),
    ("census.lost", "that tables which we made are gone"),
    ("apply.lock-timeout", "that a lock is not to be had"),
    (
        "apply.deadlock-timeout",
        "a deadlock, before the application notices it",
    ),
    (
        "outside.leftovers",
        "the invalid index of a build that broke",
    ),
    ("pool.client-check", "to the server: that its client died"),
    (
        "breaker.count",
        "a version that fails on one tenant after another",
    ),
    ("brake.pull", "trouble that is the server's and no tenant's"),
    (
        "lead.expiry",
        "that who leads has stopped renewing its lease",
    ),
    ("primary.standby", "a server that only follows another"),
    (
        "primary.timeline",
        "an old primary that a failover left behind",
    ),
];

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Abort,
    Panic,
    Error,
    Sleep(Duration),
    Block(Duration),
    Off,
}

#[derive(Debug)]
struct Armed {
    name: &'static str,
    action: Action,
    /// At which pass; `None`: at each.
    at: Option<u32>,
    passes: AtomicU32,
}

/// Refuses a variable that names what does not exist: a test would prove nothing.
///
/// # Errors
/// An unknown name or action, or a build without failpoints.
pub fn check() -> Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    if !COMPILED {
        return Err(Error::Refused(format!(
            "{VARIABLE} is set, and a release build has no failpoints"
        )));
    }
    parse(&text).map(drop)
}

/// Does here what the variable says.
///
/// # Errors
/// The one it asks for.
pub async fn pass(name: &'static str) -> Result<()> {
    if !COMPILED {
        return Ok(());
    }
    debug_assert!(points().any(|(known, _)| *known == name), "{name}");
    for armed in armed().iter().filter(|armed| armed.name == name) {
        let pass = armed.passes.fetch_add(1, Ordering::Relaxed) + 1;
        if armed.at.is_some_and(|at| at != pass) {
            continue;
        }
        match armed.action {
            Action::Abort => std::process::abort(),
            Action::Panic => panic!("failpoint {name}"),
            Action::Error => return Err(Error::Refused(format!("failpoint {name}"))),
            Action::Sleep(time) => {
                tracing::debug!("sleeps at {name}");
                tokio::time::sleep(time).await;
            }
            Action::Block(time) => std::thread::sleep(time),
            Action::Off => {}
        }
    }
    Ok(())
}

/// Whether this detector is switched off.
pub fn off(name: &'static str) -> bool {
    if !COMPILED {
        return false;
    }
    debug_assert!(DETECTORS.iter().any(|(known, _)| *known == name), "{name}");
    armed().iter().any(|armed| armed.name == name)
}

fn points() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    POINTS.iter().chain(SPARE_POINTS)
}

fn armed() -> &'static [Armed] {
    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
    // The start of the daemon refused what cannot be read; commands ignore it.
    ARMED.get_or_init(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        parse(&text).unwrap_or_default()
    })
}

fn parse(text: &str) -> Result<Vec<Armed>> {
    let entries = text
        .split(';')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            entry_of(entry).map_err(|why| Error::Refused(format!("{VARIABLE}: `{entry}`: {why}")))
        })
        .collect()
}

fn entry_of(entry: &str) -> Result<Armed, String> {
    let (name, rest) = entry.split_once('=').ok_or("no `=`")?;
    let (action, at) = match rest.split_once('@') {
        Some((action, at)) => (action, Some(at.parse().map_err(|_| "`@` needs a number")?)),
        None => (rest, None),
    };
    let action = match action {
        "abort" => Action::Abort,
        "panic" => Action::Panic,
        "error" => Action::Error,
        "off" => Action::Off,
        other => {
            let (action, time) = other.split_once(':').ok_or("no such action")?;
            let time = humantime::parse_duration(time).map_err(|error| error.to_string())?;
            match action {
                "sleep" => Action::Sleep(time),
                "block" => Action::Block(time),
                _ => return Err("no such action".to_owned()),
            }
        }
    };
    let is_it = |entry: &&(&str, &str)| entry.0 == name.trim();
    let known = match action {
        Action::Off => DETECTORS.iter().find(is_it),
        _ => points().find(is_it),
    };
    let (name, _) = known.ok_or("no such point or detector")?;
    Ok(Armed {
        name,
        action,
        at,
        passes: AtomicU32::new(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_read_and_what_nobody_knows_is_refused() {
        let armed = parse("reconcile.applied=sleep:2s@3; listener.pulse=off").unwrap();
        let read: Vec<_> = armed
            .iter()
            .map(|a| (a.name, a.action.clone(), a.at))
            .collect();
        let two = Duration::from_secs(2);
        let expected = [
            ("reconcile.applied", Action::Sleep(two), Some(3)),
            ("listener.pulse", Action::Off, None),
        ];
        assert_eq!(read, expected);
        for wrong in [
            "reconcile.aplied=abort",
            "reconcile.applied=explode",
            "reconcile.applied=off",
            "listener.pulse=abort",
            "reconcile.applied",
            "reconcile.applied=abort@x",
            "reconcile.applied=sleep:soon",
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn the_release_profile_has_none() {
        let manifest = include_str!("../Cargo.toml");
        assert!(!manifest.contains("debug-assertions"), "{manifest}");
        assert_eq!(COMPILED, cfg!(debug_assertions));
    }
}
