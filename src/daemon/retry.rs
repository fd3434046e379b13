//! How long to wait before connecting again, and how often to say so.

use std::{
    error::Error as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    time::Duration,
};

use tokio::time::Instant;

use crate::error::Error;

const FIRST: Duration = Duration::from_millis(200);
/// A server that is away is asked often: one attempt costs it nothing, and events wait for it.
const AWAY: Duration = Duration::from_secs(2);
/// A standby may be promoted at any time, but not within the second.
const STANDBY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// What it refuses it will refuse again: a password, a privilege.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// The wait after this error, which came after `failures` others: up to 0.2 s, doubled each time, with full
/// jitter, within the bounds of the kind of error.
pub fn delay(error: &Error, failures: u32) -> Duration {
    let (least, most) = match error {
        error if is_standby(error) => STANDBY,
        error if error.will_pass() => (Duration::ZERO, AWAY),
        _ => REFUSED,
    };
    let ceiling = (FIRST * (1 << failures.min(16))).min(most);
    ceiling.mul_f64(chance()).max(least)
}

/// Found by us, or by the driver when `target_session_attrs` asks for a primary.
fn is_standby(error: &Error) -> bool {
    match error {
        Error::WrongServer(_) => true,
        Error::Postgres { source, .. } => source
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied),
        _ => false,
    }
}

/// Between 0 and 1: each new hasher of the standard library has random keys.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish() >> 32;
    random as f64 / f64::from(u32::MAX)
}

/// What was said last, so that a cause is one line and not one an attempt.
#[derive(Debug, Default)]
pub struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether to say it: something else was said last, or that is long ago.
    pub fn is_new(&mut self, text: &str) -> bool {
        let new = self
            .0
            .as_ref()
            .is_none_or(|(last, at)| last != text || at.elapsed() >= SAY_AGAIN);
        if new {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_tried_again_at_once_and_a_refusal_at_leisure() {
        let away = Error::Pool {
            operation: String::new(),
            message: String::new(),
        };
        let standby = Error::WrongServer(String::new());
        let refused = Error::Refused(String::new());
        for _ in 0..100 {
            assert!(delay(&away, 0) <= FIRST);
            assert!(delay(&away, u32::MAX) <= AWAY);
            assert!(delay(&standby, 0) >= STANDBY.0 && delay(&standby, 99) <= STANDBY.1);
            assert!(delay(&refused, 0) >= REFUSED.0 && delay(&refused, 99) <= REFUSED.1);
        }
        let longest = (0..100).map(|_| delay(&refused, 99)).max().unwrap();
        assert!(longest > REFUSED.1 / 2, "{longest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_said_once_in_a_while() {
        let mut said = Said::default();
        assert!(said.is_new("a") && !said.is_new("a") && said.is_new("b"));
        tokio::time::advance(SAY_AGAIN).await;
        assert!(said.is_new("b"));
    }
}
