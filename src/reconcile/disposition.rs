//! From an error to a reaction: pure, one table.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_postgres::error::{DbError, SqlState};

use crate::{
    config::Retry,
    fleet::{Tenant, state::State},
};

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody else works on the schema, or the plan is stale: look again.
    Raced,
    /// A lock was not obtained within `lock_timeout`.
    Blocked,
    /// Two sessions met, and this one lost: deadlock, serialization, concurrent catalog update.
    Conflict,
    /// It will pass: connection gone, read-only server.
    Transient,
    /// The server is in trouble (disk, lock table, connections), not the tenant.
    Server,
    /// Trying again cannot help.
    Terminal,
    /// Nobody knows; a few attempts are worth it.
    Unknown,
}

/// The kind of a driver error.
pub fn kind(error: &tokio_postgres::Error) -> Kind {
    match error.as_db_error() {
        Some(error) => kind_of(error.code(), error),
        // No answer from the server: the connection broke.
        None => Kind::Transient,
    }
}

fn kind_of(code: &SqlState, error: &DbError) -> Kind {
    classify(code.code(), error.message(), error.schema())
}

/// SQLSTATE first; message and schema only where a code has two meanings.
fn classify(code: &str, message: &str, schema: Option<&str>) -> Kind {
    match code {
        "TD001" | "TD002" => Kind::Raced,
        "TD003" | "TD004" => Kind::Terminal,
        "55P03" => Kind::Blocked,
        // Disk, lock table and memory, connections.
        code if code.starts_with("53") => Kind::Server,
        // Pending trigger events, read-only (failover), the session timed out while it was cut off.
        "55006" | "25006" | "25P03" => Kind::Transient,
        // The queue of notifications is full; every other limit is the file's or the data's.
        "54000" if message.contains("NOTIFY") => Kind::Transient,
        // An administrator cancelled it. Our own statement_timeout has other words.
        "57014" if message.contains("user request") => Kind::Unknown,
        "57014" | "55P04" => Kind::Terminal,
        // CREATE SCHEMA and friends race on catalog indexes: the loser sees a duplicate key there.
        "23505" if schema == Some("pg_catalog") => Kind::Conflict,
        // A sweep noted the tenant for the first time just when its files were recorded.
        "23505" if schema == Some("tenantd") => Kind::Raced,
        "XX000" if message.contains("concurrently") => Kind::Conflict,
        _ => match &code[..2] {
            "08" => Kind::Transient,
            "40" => Kind::Conflict,
            "57" if code.starts_with("57P0") => Kind::Transient,
            // Data, constraint, syntax, missing or duplicate object, wrong object state, limits; too many
            // rows, cursors, COMMIT in a procedure, errors of routines.
            "22" | "23" | "42" | "54" | "0A" | "2B" | "3F" | "25" | "44" | "P0" | "21" | "24"
            | "27" | "2D" | "2F" | "34" | "38" | "39" => Kind::Terminal,
            _ => Kind::Unknown,
        },
    }
}

/// What to do with a tenant after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposition {
    /// Blocked, failed or quarantined.
    pub state: State,
    /// Attempts in that state, this one included.
    pub attempts: u32,
    /// When to try again by itself.
    pub retry_in: Option<Duration>,
}

/// How a tenant failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Its state.
    pub state: State,
    /// The kind of its last failure.
    pub kind: Kind,
    /// Attempts that ended so.
    pub attempts: u32,
}

impl Before {
    /// What the ledger says of a tenant.
    pub fn of(tenant: &Tenant) -> Self {
        let error = tenant.error.as_deref().unwrap_or_default();
        Self {
            state: tenant.state,
            kind: recorded(tenant.state, tenant.sqlstate.as_deref(), error),
            attempts: tenant.attempts,
        }
    }
}

/// The kind of a failure that the ledger knows. Where its code has two meanings, the state tells which it was:
/// what is terminal is quarantined.
fn recorded(state: State, code: Option<&str>, message: &str) -> Kind {
    match (state, code) {
        (_, None) => Kind::Transient,
        // A concurrent build waits for others until its own deadline: 57014.
        (State::Blocked, Some(_)) => Kind::Blocked,
        (State::Failed, Some("23505")) => Kind::Conflict,
        (_, Some(code)) => classify(code, message, None),
    }
}

/// How often the loser of a conflict tries again at once.
const AT_ONCE: u32 = 3;
/// Long enough for the winner to be done, and not the same for two losers.
const SHORTLY: Retry = Retry {
    attempts: 0,
    initial: Duration::from_millis(50),
    max: Duration::from_millis(250),
};

/// The reaction to `kind` for a tenant that failed so before. Another kind of failure starts a new count:
/// an hour without the server uses up no attempt of a file.
pub fn decide(kind: Kind, before: Before, retry: &Retry) -> Disposition {
    let state = match kind {
        Kind::Blocked => State::Blocked,
        Kind::Terminal => State::Quarantined,
        Kind::Raced | Kind::Conflict | Kind::Transient | Kind::Server | Kind::Unknown => {
            State::Failed
        }
    };
    let attempts = if (state, kind) == (before.state, before.kind) {
        before.attempts + 1
    } else {
        1
    };
    if kind == Kind::Unknown && attempts >= retry.attempts {
        return Disposition {
            state: State::Quarantined,
            attempts,
            retry_in: None,
        };
    }
    let retry_in = (state != State::Quarantined).then(|| match kind {
        Kind::Conflict if attempts <= AT_ONCE => backoff(&SHORTLY, attempts),
        Kind::Conflict => backoff(retry, attempts - AT_ONCE),
        _ => backoff(retry, attempts),
    });
    Disposition {
        state,
        attempts,
        retry_in,
    }
}

/// Capped exponential backoff with jitter: `initial`, doubled for each attempt, at most `max`.
pub fn backoff(retry: &Retry, attempts: u32) -> Duration {
    ExponentialBuilder::default()
        .with_min_delay(retry.initial)
        .with_max_delay(retry.max)
        .with_jitter()
        .without_max_times()
        .build()
        .nth(attempts.saturating_sub(1).min(64) as usize)
        .unwrap_or(retry.max)
        .min(retry.max)
}

/// The lock ladder: 100 ms at the first attempt, doubled until `lock_timeout`, never more.
pub fn lock_timeout(limit: Duration, attempts: u32) -> Duration {
    Duration::from_millis(100 << attempts.min(16)).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry {
        attempts: 5,
        initial: Duration::from_secs(1),
        max: Duration::from_secs(600),
    };

    fn before(state: State, kind: Kind, attempts: u32) -> Before {
        Before {
            state,
            kind,
            attempts,
        }
    }

    #[test]
    fn each_sqlstate_has_one_reaction() {
        for (code, message, schema, expected) in [
            ("TD001", "", None, Kind::Raced),
            (
                "55P03",
                "canceling statement due to lock timeout",
                None,
                Kind::Blocked,
            ),
            ("40P01", "deadlock detected", None, Kind::Conflict),
            ("40001", "could not serialize", None, Kind::Conflict),
            ("08006", "connection failure", None, Kind::Transient),
            ("55006", "pending trigger events", None, Kind::Transient),
            ("25006", "in a read-only transaction", None, Kind::Transient),
            (
                "57014",
                "canceling statement due to user request",
                None,
                Kind::Unknown,
            ),
            (
                "54000",
                "too many notifications in the NOTIFY queue",
                None,
                Kind::Transient,
            ),
            ("54000", "index row size 3000 exceeds", None, Kind::Terminal),
            ("58P01", "could not access file", None, Kind::Unknown),
            ("57P01", "terminating connection", None, Kind::Transient),
            (
                "57014",
                "canceling statement due to statement timeout",
                None,
                Kind::Terminal,
            ),
            ("XX000", "tuple concurrently updated", None, Kind::Conflict),
            ("XX000", "unexpected chunk", None, Kind::Unknown),
            ("23505", "duplicate key", Some("pg_catalog"), Kind::Conflict),
            ("23505", "duplicate key", Some("tenantd"), Kind::Raced),
            ("23505", "duplicate key", Some("tenant_1"), Kind::Terminal),
            ("42601", "syntax error", None, Kind::Terminal),
            (
                "2D000",
                "invalid transaction termination",
                None,
                Kind::Terminal,
            ),
            ("21000", "more than one row returned", None, Kind::Terminal),
            ("53100", "disk full", None, Kind::Server),
            ("58030", "could not read block", None, Kind::Unknown),
        ] {
            assert_eq!(
                classify(code, message, schema),
                expected,
                "{code} {message}"
            );
        }
    }

    #[test]
    fn terminal_errors_quarantine_at_once_and_transient_ones_never() {
        let terminal = decide(
            Kind::Terminal,
            before(State::Behind, Kind::Transient, 0),
            &RETRY,
        );
        assert_eq!(
            (terminal.state, terminal.retry_in),
            (State::Quarantined, None)
        );
        let many = before(State::Failed, Kind::Transient, 1000);
        let transient = decide(Kind::Transient, many, &RETRY);
        assert_eq!((transient.state, transient.attempts), (State::Failed, 1001));
        assert!(transient.retry_in.unwrap() <= RETRY.max);
    }

    #[test]
    fn unknown_errors_quarantine_after_the_configured_attempts() {
        let after = |before| decide(Kind::Unknown, before, &RETRY);
        let unknown = |attempts| before(State::Failed, Kind::Unknown, attempts);
        assert_eq!(after(unknown(3)).state, State::Failed);
        assert_eq!(after(unknown(4)).state, State::Quarantined);
        for other in [
            before(State::Blocked, Kind::Blocked, 9),
            before(State::Failed, Kind::Transient, 9),
        ] {
            assert_eq!(after(other).attempts, 1, "another kind of trouble");
        }
    }

    #[test]
    fn the_loser_of_a_conflict_tries_three_times_at_once_and_then_waits() {
        let waits = [0, 1, 2, 3, 4].map(|attempts| {
            let before = before(State::Failed, Kind::Conflict, attempts);
            decide(Kind::Conflict, before, &RETRY).retry_in.unwrap()
        });
        assert!(
            waits[..3].iter().all(|wait| *wait <= SHORTLY.max),
            "{waits:?}"
        );
        assert!(
            waits[3] >= RETRY.initial && waits[4] >= 2 * RETRY.initial,
            "{waits:?}"
        );
    }

    #[test]
    fn pauses_grow_also_where_a_code_has_two_meanings() {
        for (kind, state, code, message) in [
            (Kind::Blocked, State::Blocked, "55P03", "lock timeout"),
            (Kind::Blocked, State::Blocked, "57014", "statement timeout"),
            (Kind::Conflict, State::Failed, "23505", "duplicate key"),
            (Kind::Conflict, State::Failed, "XX000", "concurrently"),
            (Kind::Unknown, State::Failed, "57014", "user request"),
        ] {
            let again = before(state, recorded(state, Some(code), message), 3);
            assert_eq!(decide(kind, again, &RETRY).attempts, 4, "{code} {message}");
        }
    }

    #[test]
    fn backoff_grows_to_its_cap_and_the_lock_ladder_to_its_limit() {
        assert!(backoff(&RETRY, 1) >= RETRY.initial);
        assert!(backoff(&RETRY, 3) >= 4 * RETRY.initial);
        assert_eq!(backoff(&RETRY, u32::MAX), RETRY.max);
        let limit = Duration::from_secs(1);
        assert_eq!(lock_timeout(limit, 0), Duration::from_millis(100));
        assert_eq!(lock_timeout(limit, 2), Duration::from_millis(400));
        assert_eq!(lock_timeout(limit, 99), limit);
    }
}
