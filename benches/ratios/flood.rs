//! A flood of notifications: how long until all are dealt with, and what it does to the daemon's memory.

use std::time::Instant;

use crate::{Outcome, fleet::Fleet, memory, program, report::Report, stats::Samples};

const NOTIFICATIONS: usize = 100_000;
const TENANTS: usize = 1000;

/// Sent over all bare connections; a transaction holds one for each tenant, because the server drops equal ones.
pub(crate) async fn measure(fleet: &Fleet, report: &mut Report) -> Outcome<()> {
    let tenants = TENANTS.min(fleet.size);
    let mut daemon = fleet.tenantd.daemon(&[])?;
    daemon.settled().await?;
    let before = memory::of(daemon.pid(), "status", "VmRSS")?;
    let start = Instant::now();
    let send = format!(
        "SELECT count(pg_notify('dashboard_login', g::text)) FROM generate_series(1, {tenants}) g"
    );
    let rounds = NOTIFICATIONS / tenants;
    fleet.each(0..rounds, 1, |_| send.clone()).await?;
    let sent = start.elapsed();
    let wanted = crate::stats::count(rounds * tenants);
    daemon
        .until("the end of the flood", program::OFTEN, async |it| {
            let text = it.metrics().await?;
            let sum = |name: &str, label: &str| -> f64 {
                let lines = text
                    .lines()
                    .filter(|line| line.starts_with(name) && line.contains(label));
                lines
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .sum()
            };
            Ok(
                sum("tenantd_events_total{", "\"dashboard_login\"") >= wanted
                    && sum("tenantd_queue_depth{", "") == 0.0,
            )
        })
        .await?;
    let took = start.elapsed();
    let (after, peak) = (
        memory::of(daemon.pid(), "status", "VmRSS")?,
        memory::of(daemon.pid(), "status", "VmHWM")?,
    );
    for (who, unit, value) in [
        ("sent", "ms", crate::stats::ms(sent)),
        ("queue empty", "ms", crate::stats::ms(took)),
        ("memory before", "MiB", before),
        ("memory, peak", "MiB", peak),
        ("memory after", "MiB", after),
    ] {
        report.add(
            "flood of 100 000 notifications",
            who,
            0,
            unit,
            &Samples(vec![value]),
        );
    }
    daemon.stop().await
}
