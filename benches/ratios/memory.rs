//! Memory of the daemon and of its sessions in the server, after a rollout and a full sweep over the whole fleet.

use std::fs;

use crate::{Outcome, fleet::Fleet, report::Report, rollout, sets, stats::Samples};

/// What `/proc` says of a process under this name, in MiB.
pub(crate) fn of(pid: u32, file: &str, name: &str) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = value
        .ok_or_else(|| format!("no {name} of process {pid}"))?
        .parse()?;
    Ok(kib / 1024.0)
}

pub(crate) async fn measure(fleet: &mut Fleet, report: &mut Report) -> Outcome<()> {
    let mut daemon = fleet.tenantd.daemon(&[])?;
    daemon.settled().await?;
    let sql = format!("ALTER TABLE {} ADD COLUMN memory integer;", sets::table(0));
    rollout::by_daemon(fleet, &daemon, &sql).await?;
    daemon.full_sweep().await?;
    let now = of(daemon.pid(), "status", "VmRSS")?;
    let peak = of(daemon.pid(), "status", "VmHWM")?;
    let sessions = fleet
        .app
        .query(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tenantd%' AND datname = current_database()",
            &[],
        )
        .await?;
    let (mut shared, mut private) = (0.0, 0.0);
    for row in &sessions {
        let pid = u32::try_from(row.get::<_, i32>(0))?;
        shared += of(pid, "smaps_rollup", "Pss")?;
        private += of(pid, "smaps_rollup", "Private_Dirty")?;
    }
    for (who, value) in [
        ("daemon, resident", now),
        ("daemon, peak", peak),
        ("its sessions, proportional (PSS)", shared),
        ("its sessions, private", private),
    ] {
        report.add("memory", who, fleet.size, "MiB", &Samples(vec![value]));
    }
    let sessions = Samples(vec![crate::stats::count(sessions.len())]);
    report.add(
        "sessions in the server",
        "daemon",
        fleet.size,
        "sessions",
        &sessions,
    );
    daemon.stop().await
}
