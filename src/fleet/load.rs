//! What a rollout costs others: how far the standbys lag, and how many sessions wait behind us.

use tokio_postgres::Client;

use crate::{
    config,
    error::{During, Result},
    metrics::BrakeReason,
};

/// A limit that is exceeded, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMuch {
    /// Which one.
    pub reason: BrakeReason,
    /// In words.
    pub text: String,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// Seconds that the slowest standby lags, and its name.
    pub lag: Option<(String, f64)>,
    /// Sessions that wait for locks of ours.
    pub waiting: i64,
    /// Whether there are standbys of which our role may see nothing.
    pub hidden: bool,
}

impl Load {
    /// Measures what the configuration limits; a standby that is paused lags ever more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn measure(client: &Client, limits: &config::Rollout) -> Result<Self> {
        let mut load = Self::default();
        if !limits.max_replication_lag.is_zero() {
            let rows = client
                .query_typed(include_str!("lag.sql"), &[])
                .await
                .during("ask how far the standbys lag")?;
            load.hidden = rows
                .iter()
                .any(|row| row.get::<_, Option<f64>>(1).is_none());
            load.lag = rows
                .iter()
                .filter_map(|row| Some((row.get(0), row.get::<_, Option<f64>>(1)?)))
                .max_by(|a: &(String, f64), b| a.1.total_cmp(&b.1));
        }
        if limits.max_waiting > 0 {
            let rows = client
                .query_typed(include_str!("waiting.sql"), &[])
                .await
                .during("ask who waits behind us")?;
            load.waiting = rows[0].get(0);
        }
        Ok(load)
    }

    /// What is too much, if anything. `on`: it was before; then it has to become a good deal better.
    pub fn too_much(&self, limits: &config::Rollout, on: bool) -> Option<TooMuch> {
        let share = if on { 0.5 } else { 1.0 };
        let limit = limits.max_replication_lag;
        if let Some((standby, lag)) = &self.lag
            && !limit.is_zero()
            && *lag > limit.as_secs_f64() * share
        {
            return Some(TooMuch {
                reason: BrakeReason::ReplicationLag,
                text: format!(
                    "standby {standby} lags {lag:.1} s, max_replication_lag is {limit:?}"
                ),
            });
        }
        let most = limits.max_waiting;
        let enough = if on { most.div_ceil(2) } else { most };
        (most > 0 && self.waiting >= i64::from(enough)).then(|| TooMuch {
            reason: BrakeReason::Waiting,
            text: format!(
                "{} sessions wait for locks of ours, max_waiting is {most}",
                self.waiting
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Config;

    #[test]
    fn what_was_too_much_has_to_halve_before_it_is_not() {
        let limits = config::Rollout {
            max_replication_lag: Duration::from_secs(10),
            max_waiting: 10,
            ..Config::default().rollout
        };
        let reason = |lag: f64, waiting, on| {
            let lag = Some(("s".to_owned(), lag));
            let load = Load {
                lag,
                waiting,
                hidden: false,
            };
            load.too_much(&limits, on).map(|it| it.reason)
        };
        assert_eq!(reason(9.0, 9, false), None);
        assert_eq!(reason(11.0, 0, false), Some(BrakeReason::ReplicationLag));
        assert_eq!(reason(9.0, 0, true), Some(BrakeReason::ReplicationLag));
        assert_eq!(reason(4.0, 4, true), None);
        assert_eq!(reason(0.0, 10, false), Some(BrakeReason::Waiting));
        let off = config::Rollout {
            max_replication_lag: Duration::ZERO,
            max_waiting: 0,
            ..limits
        };
        let load = Load {
            lag: Some(("s".into(), 99.0)),
            waiting: 99,
            hidden: false,
        };
        assert_eq!(load.too_much(&off, false), None);
    }
}
