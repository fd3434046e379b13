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
    let many = format!("its {} sessions, together", sessions.len());
    for (part, who, value) in [
        ("memory, resident", "daemon", now),
        ("memory, peak", "daemon", peak),
        ("memory, proportional (PSS)", many.as_str(), shared),
        ("memory, private", many.as_str(), private),
    ] {
        report.add(part, who, fleet.size, "MiB", &Samples(vec![value]));
    }
    daemon.stop().await
}
