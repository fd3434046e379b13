//! What the loops report of themselves, for the probes and for systemd.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// A loop that has not come round for this long is taken for wedged. Every wait in it is shorter.
const WEDGED: Duration = Duration::from_secs(90);

/// A loop that must come round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// Keeps the LISTEN connection.
    Listener,
    /// Scans the fleet.
    Sweeper,
}

/// The state of the loops.
#[derive(Debug)]
pub struct Health {
    inner: Mutex<Inner>,
    sweep_stale: Duration,
}

#[derive(Debug)]
struct Inner {
    ticked: [Instant; 2],
    starting: Option<String>,
    listener: Result<(), String>,
    swept: Option<Instant>,
    sweep_error: Option<String>,
    leading: bool,
}

impl Health {
    /// Nothing has run yet. A sweep older than `sweep_stale` counts as missing.
    pub fn new(sweep_stale: Duration) -> Self {
        Self {
            inner: Mutex::new(Inner {
                ticked: [Instant::now(); 2],
                starting: Some("starting".into()),
                listener: Err("not connected yet".into()),
                swept: None,
                sweep_error: None,
                leading: true,
            }),
            sweep_stale,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(
            &mut self
                .inner
                .lock()
                .expect("no code panics while it holds this lock"),
        )
    }

    /// A loop came round.
    pub fn ticked(&self, which: Loop) {
        self.with(|inner| inner.ticked[which as usize] = Instant::now());
    }

    /// Why the daemon has not started yet; `None` once it has.
    pub fn starting(&self, why: Option<String>) {
        self.with(|inner| {
            inner.ticked = [Instant::now(); 2];
            inner.starting = why;
        });
    }

    /// The listener listens, or why not.
    pub fn listener(&self, state: Result<(), String>) {
        self.with(|inner| inner.listener = state);
    }

    /// Whether this daemon does the periodic sweeps. If not, it need not have swept lately.
    pub fn leading(&self, leads: bool) {
        self.with(|inner| {
            if leads && !inner.leading {
                inner.swept = inner.swept.map(|_| Instant::now());
            }
            inner.leading = leads;
        });
    }

    /// A sweep succeeded.
    pub fn swept(&self) {
        self.with(|inner| {
            inner.swept = Some(Instant::now());
            inner.sweep_error = None;
        });
    }

    /// A sweep failed.
    pub fn sweep_failed(&self, error: &crate::Error) {
        self.with(|inner| inner.sweep_error = Some(error.to_string()));
    }

    /// Whether the loops turn. Says nothing of the database: a restart would not mend that.
    ///
    /// # Errors
    /// The reasons why not.
    pub fn live(&self) -> Result<(), Vec<String>> {
        let ticked = self.with(|inner| inner.ticked);
        let wedged = [Loop::Listener, Loop::Sweeper]
            .into_iter()
            .filter_map(|which| {
                let age = ticked[which as usize].elapsed();
                (age >= WEDGED).then(|| {
                    format!(
                        "the {which:?} loop has not come round for {} s",
                        age.as_secs()
                    )
                    .to_lowercase()
                })
            });
        let reasons: Vec<_> = wedged.collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons)
        }
    }

    /// Whether events are heard and sweeps succeed.
    ///
    /// # Errors
    /// The reasons why not.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let reasons = self.with(|inner| {
            let mut reasons = Vec::new();
            if let Some(why) = &inner.starting {
                return vec![why.clone()];
            }
            if let Err(why) = &inner.listener {
                reasons.push(format!("listener: {why}"));
            }
            match inner.swept.map(|at| at.elapsed()) {
                Some(age) if age <= self.sweep_stale || !inner.leading => {}
                Some(age) => reasons.push(format!(
                    "sweep: the last success is {} s old",
                    age.as_secs()
                )),
                None => reasons.push("sweep: none has succeeded yet".into()),
            }
            reasons.extend(
                inner
                    .sweep_error
                    .iter()
                    .map(|error| format!("sweep: {error}")),
            );
            reasons
        });
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_needs_a_listener_and_a_fresh_sweep() {
        let health = Health::new(Duration::from_secs(60));
        assert_eq!(health.ready().unwrap_err(), ["starting"]);
        health.starting(None);
        assert_eq!(health.ready().unwrap_err().len(), 2);
        health.listener(Ok(()));
        health.swept();
        assert_eq!(health.ready(), Ok(()));
        health.listener(Err("gone".into()));
        assert_eq!(health.ready().unwrap_err(), ["listener: gone"]);
        assert_eq!(health.live(), Ok(()));
    }
}
