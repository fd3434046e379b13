//! The goals, each a ratio or a bound worked out of what was measured.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{peers::PEERS, report::Report, stats::rounded};

/// One goal and how near a run came.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) what: String,
    /// The bound, as people write it.
    pub(crate) bound: String,
    /// `None`: not measured in this run.
    pub(crate) measured: Option<f64>,
    pub(crate) reached: Option<bool>,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict();
        match self.measured {
            Some(measured) => write!(
                f,
                "{}: {measured} (goal {}: {verdict})",
                self.what, self.bound
            ),
            None => write!(f, "{}: {verdict} (goal {})", self.what, self.bound),
        }
    }
}

impl Goal {
    pub(crate) fn verdict(&self) -> &'static str {
        match self.reached {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "not measured",
        }
    }

    fn at_most(what: &str, measured: Option<f64>, bound: f64, unit: &str) -> Self {
        Self::new(what, measured, format!("at most {bound}{unit}"), |it| {
            it <= bound
        })
    }

    fn at_least(what: &str, measured: Option<f64>, bound: f64, unit: &str) -> Self {
        Self::new(what, measured, format!("at least {bound}{unit}"), |it| {
            it >= bound
        })
    }

    fn new(what: &str, measured: Option<f64>, bound: String, fits: impl Fn(f64) -> bool) -> Self {
        Self {
            what: what.to_owned(),
            bound,
            measured: measured.map(rounded),
            reached: measured.map(fits),
        }
    }
}

/// Every goal, whether it was measured or not.
pub(crate) fn judge(report: &Report) -> Vec<Goal> {
    let mut goals = sign_up(report);
    goals.extend(fleet(report));
    goals.extend(logins(report));
    goals.extend(daemon(report));
    goals
}

fn ratio(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    Some(over? / under?)
}

fn sign_up(report: &Report) -> Vec<Goal> {
    let new = |who| report.median("new tenant", who, 0);
    let claim = |who| report.median("insert to ready, by rename", who, 0);
    let spare = claim("tenantd with spares");
    vec![
        Goal::at_most(
            "new tenant without spares, times bare SQL",
            ratio(new("tenantd"), new("bare SQL")),
            1.05,
            "",
        ),
        Goal::at_most(
            "insert to ready with a spare, times the bare rename round trip",
            ratio(spare, claim("bare SQL")),
            2.0,
            "",
        ),
        Goal::at_least(
            "insert to ready with a spare, times faster than django-tenants",
            ratio(new("django-tenants"), spare),
            100.0,
            "",
        ),
    ]
}

fn fleet(report: &Report) -> Vec<Goal> {
    let n = report.tenants;
    // What the fastest peer takes for this fleet, from its time a tenant.
    let peer = |part: &str| {
        let times = PEERS.iter().filter_map(|who| report.median(part, who, 0));
        times.min_by(f64::total_cmp)
    };
    let check = report.median("head check", "tenantd", n);
    let fleet = |time: Option<f64>| Some(time? * f64::from(u32::try_from(n).ok()?));
    let ours = best(report, "ADD COLUMN", &["tenantd migrate", "tenantd daemon"]);
    let bare = best(
        report,
        "ADD COLUMN",
        &[
            "bare SQL, asynchronous",
            "bare SQL, asynchronous, pipelined",
            "bare SQL, synchronous",
            "bare SQL, synchronous, pipelined",
        ],
    );
    let theirs = peer("ADD COLUMN a tenant").map(|time| 1000.0 / time);
    let (idle, busy) = (
        report.find("insert to ready", "tenantd, idle", n),
        report.find("insert to ready", "tenantd, during a rollout", n),
    );
    let p99 = |it: Option<&crate::report::Measurement>| {
        Some(crate::stats::Samples(it?.values.clone()).quantile(0.99))
    };
    vec![
        Goal::at_most(
            "nothing to do: head check, times the bare query",
            ratio(check, report.median("head check", "bare SQL", n)),
            1.2,
            "",
        ),
        Goal::at_most(
            "nothing to do: full sweep, times the bare query",
            ratio(
                report.median("full sweep", "tenantd", n),
                report.median("full sweep", "bare SQL", n),
            ),
            1.2,
            "",
        ),
        Goal::at_least(
            "nothing to do, times faster than the fastest peer",
            ratio(fleet(peer("nothing to do a tenant")), check),
            1000.0,
            "",
        ),
        Goal::at_least(
            "rollout of one ADD COLUMN, share of the best bare rate",
            ratio(ours, bare),
            0.9,
            "",
        ),
        Goal::at_least(
            "rollout of one ADD COLUMN, times the fastest peer",
            ratio(ours, theirs),
            50.0,
            "",
        ),
        Goal::at_most(
            "insert to ready, p99 during a rollout, times idle",
            ratio(p99(busy), p99(idle)),
            5.0,
            "",
        ),
    ]
}

/// The highest median of these contenders over the largest fleet.
fn best(report: &Report, part: &str, who: &[&str]) -> Option<f64> {
    let rates = who
        .iter()
        .filter_map(|who| report.median(part, who, report.tenants));
    rates.max_by(f64::total_cmp)
}

fn logins(report: &Report) -> Vec<Goal> {
    let share = |mode: &str| {
        let rate = |who: &str| report.median(&format!("logins, 8 writers, {mode}"), who, 0);
        ratio(rate("tenantd's trigger"), rate("no trigger"))
    };
    let sent = report.median("notifications sent by logins", "tenantd's trigger", 0);
    vec![
        Goal::at_least(
            "login with trigger, 8 writers, synchronous, share of no trigger",
            share("synchronous"),
            0.85,
            "",
        ),
        Goal::at_least(
            "login with trigger, 8 writers, asynchronous, share of no trigger",
            share("asynchronous"),
            0.6,
            "",
        ),
        Goal::at_most(
            "notifications sent by logins to current tenants",
            sent,
            0.0,
            "",
        ),
    ]
}

fn daemon(report: &Report) -> Vec<Goal> {
    let memory = |n| report.median("memory", "daemon, peak", n);
    vec![
        Goal::at_most(
            "daemon's memory, peak, with 10 000 tenants",
            memory(10_000),
            32.0,
            " MiB",
        ),
        Goal::at_most(
            "daemon's memory, peak, with 100 000 tenants",
            memory(100_000),
            64.0,
            " MiB",
        ),
        Goal::at_most(
            "start to listening with 10 000 tenants",
            report.median("start to listening", "tenantd", 10_000),
            100.0,
            " ms",
        ),
    ]
}
