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
    let (claim, spare) = ("insert to ready, by rename", "tenantd with spares");
    let django = report.median("new tenant", "django-tenants", 0);
    vec![
        Goal::at_most(
            "new tenant without spares, times bare SQL",
            report.ratio("new tenant", "tenantd", "bare SQL", 0),
            1.05,
            "",
        ),
        Goal::at_most(
            "insert to ready with a spare, times the bare rename round trip",
            report.ratio(claim, spare, "bare SQL", 0),
            2.0,
            "",
        ),
        Goal::at_least(
            "insert to ready with a spare, times faster than django-tenants",
            ratio(django, report.median(claim, spare, 0)),
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
    let rollout = |who| report.median("ADD COLUMN", who, n);
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
            report.ratio("head check", "tenantd", "bare SQL", n),
            1.2,
            "",
        ),
        Goal::at_most(
            "nothing to do: full sweep, times the bare query",
            report.ratio("full sweep", "tenantd", "bare SQL", n),
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
            ours.zip(bare)
                .and_then(|(ours, bare)| report.ratio("ADD COLUMN", ours, bare, n)),
            0.9,
            "",
        ),
        Goal::at_least(
            "rollout of one ADD COLUMN, times the fastest peer",
            ratio(ours.and_then(rollout), theirs),
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

/// Who of these has the highest median over the largest fleet.
fn best<'a>(report: &Report, part: &str, who: &[&'a str]) -> Option<&'a str> {
    let rates = who
        .iter()
        .filter_map(|who| Some((*who, report.median(part, who, report.tenants)?)));
    let best = rates.max_by(|one, other| one.1.total_cmp(&other.1));
    best.map(|(who, _)| who)
}

fn logins(report: &Report) -> Vec<Goal> {
    let share = |mode: &str| {
        let part = format!("logins, 8 writers, {mode}");
        report.ratio(&part, "tenantd's trigger", "no trigger", 0)
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
