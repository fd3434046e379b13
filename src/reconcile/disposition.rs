//! From an error to a reaction: pure, one table.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_postgres::error::{DbError, SqlState};

use crate::{config::Retry, fleet::state::State};

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody else works on the schema, or the plan is stale: look again.
    Raced,
    /// A lock was not obtained within `lock_timeout`.
    Blocked,
    /// It will pass: connection gone, deadlock, concurrent catalog update.
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
        "53100" | "53200" | "53300" => Kind::Server,
        // Pending trigger events, read-only (failover), too many notifications.
        "55006" | "25006" | "54000" => Kind::Transient,
        "57014" => Kind::Terminal,
        // CREATE SCHEMA and friends race on catalog indexes: the loser sees a duplicate key there.
        "23505" if schema == Some("pg_catalog") => Kind::Transient,
        // A sweep noted the tenant for the first time just when its files were recorded.
        "23505" if schema == Some("tenantd") => Kind::Raced,
        "XX000" if message.contains("concurrently") => Kind::Transient,
        _ => match &code[..2] {
            "08" | "40" => Kind::Transient,
            "57" if code.starts_with("57P0") => Kind::Transient,
            // Data, constraint, syntax, missing or duplicate object, wrong object state, limits; too many
            // rows, cursors, COMMIT in a procedure, errors of routines.
            "22" | "23" | "42" | "0A" | "2B" | "3F" | "25" | "44" | "P0" | "21" | "24" | "27"
            | "2D" | "2F" | "34" | "38" | "39" => Kind::Terminal,
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

/// The reaction to `kind` for a tenant that had `attempts` in `before`.
pub fn decide(kind: Kind, before: State, attempts: u32, retry: &Retry) -> Disposition {
    let state = match kind {
        Kind::Blocked => State::Blocked,
        Kind::Terminal => State::Quarantined,
        Kind::Raced | Kind::Transient | Kind::Server | Kind::Unknown => State::Failed,
    };
    let attempts = if state == before { attempts + 1 } else { 1 };
    if kind == Kind::Unknown && attempts >= retry.attempts {
        return Disposition {
            state: State::Quarantined,
            attempts,
            retry_in: None,
        };
    }
    let retry_in = (state != State::Quarantined).then(|| backoff(retry, attempts));
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
            ("40P01", "deadlock detected", None, Kind::Transient),
            ("57P01", "terminating connection", None, Kind::Transient),
            (
                "57014",
                "canceling statement due to statement timeout",
                None,
                Kind::Terminal,
            ),
            ("XX000", "tuple concurrently updated", None, Kind::Transient),
            ("XX000", "unexpected chunk", None, Kind::Unknown),
            (
                "23505",
                "duplicate key",
                Some("pg_catalog"),
                Kind::Transient,
            ),
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
        let terminal = decide(Kind::Terminal, State::Behind, 0, &RETRY);
        assert_eq!(
            (terminal.state, terminal.retry_in),
            (State::Quarantined, None)
        );
        let transient = decide(Kind::Transient, State::Failed, 1000, &RETRY);
        assert_eq!((transient.state, transient.attempts), (State::Failed, 1001));
        assert!(transient.retry_in.unwrap() <= RETRY.max);
    }

    #[test]
    fn unknown_errors_quarantine_after_the_configured_attempts() {
        assert_eq!(
            decide(Kind::Unknown, State::Failed, 3, &RETRY).state,
            State::Failed
        );
        assert_eq!(
            decide(Kind::Unknown, State::Failed, 4, &RETRY).state,
            State::Quarantined
        );
        assert_eq!(
            decide(Kind::Unknown, State::Blocked, 9, &RETRY).attempts,
            1,
            "another kind of trouble"
        );
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
