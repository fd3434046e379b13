//! What the login trigger costs the application: pgbench inserts logins of current tenants.

use std::{path::PathBuf, process::Command};

use crate::{Outcome, fleet::Fleet, heard::Heard, postgres, report::Report, stats::Samples};

/// Tables of the same shape and what fires on each.
const TABLES: [(&str, &str); 5] = [
    ("no trigger", "logins_none"),
    ("tenantd's trigger", "logins"),
    (OTHERS_LAG, "logins"),
    ("unconditional NOTIFY", "logins_notify"),
    ("empty trigger", "logins_empty"),
];

/// As during a rollout, to a tenant that has it.
const OTHERS_LAG: &str = "tenantd's trigger, another tenant lags";
/// A tenant that nobody logs in to lags from now on, and no longer.
const LAGS: &str =
    "INSERT INTO tenantd.behind VALUES ('0'); SELECT setval('tenantd.any_behind', 1)";
const LAGS_NOT: &str = "DELETE FROM tenantd.behind; SELECT setval('tenantd.any_behind', 1, false)";

pub(crate) async fn measure(
    fleet: &Fleet,
    report: &mut Report,
    rounds: usize,
    seconds: usize,
) -> Outcome<()> {
    fleet.app.batch_execute(include_str!("logins.sql")).await?;
    fires_for_who_lags(fleet).await?;
    let mut heard = Heard::new(&fleet.conninfo, "dashboard_login").await?;
    for mode in ["synchronous", "asynchronous"] {
        for writers in [1, 8] {
            let mut rates = TABLES.map(|_| Samples::default());
            for round in 0..rounds {
                for turn in 0..TABLES.len() {
                    let who = (turn + round) % TABLES.len();
                    fleet.app.batch_execute("CHECKPOINT").await?;
                    let (what, table) = TABLES[who];
                    if what == OTHERS_LAG {
                        fleet.app.batch_execute(LAGS).await?;
                    }
                    rates[who]
                        .0
                        .push(pgbench(fleet, table, mode, writers, seconds)?);
                    fleet.app.batch_execute(LAGS_NOT).await?;
                }
            }
            let part = format!(
                "logins, {writers} writer{}, {mode}",
                if writers > 1 { "s" } else { "" }
            );
            for ((who, _), rates) in TABLES.iter().zip(&rates) {
                report.add(&part, who, 0, "logins/s", rates);
            }
        }
    }
    let sent = crate::stats::count(heard.so_far("dashboard_login").await?);
    report.add(
        "notifications sent by logins",
        "tenantd's trigger",
        0,
        "notifications",
        &Samples(vec![sent]),
    );
    Ok(())
}

/// The trigger does fire for a tenant that lags: a count of 0 later means silence, not deafness.
async fn fires_for_who_lags(fleet: &Fleet) -> Outcome<()> {
    let mut heard = Heard::new(&fleet.conninfo, "dashboard_login").await?;
    let login = "INSERT INTO public.logins (tenant_id) VALUES (0)";
    for sql in [LAGS, login, LAGS_NOT] {
        fleet.app.batch_execute(sql).await?;
    }
    match heard.so_far("dashboard_login").await? {
        1 => Ok(()),
        other => Err(format!("a login of a tenant that lags sent {other} notifications").into()),
    }
}

/// Inserts a second.
fn pgbench(fleet: &Fleet, table: &str, mode: &str, writers: usize, seconds: usize) -> Outcome<f64> {
    let script = std::env::temp_dir().join(format!("tenantd-bench-{}.pgbench", std::process::id()));
    let tenants = fleet.size;
    std::fs::write(
        &script,
        format!(
            "\\set tenant random(1, {tenants})\nINSERT INTO public.{table} (tenant_id) VALUES (:tenant);\n"
        ),
    )?;
    let commit = if mode == "synchronous" { "on" } else { "off" };
    let program: PathBuf = postgres::with_clients().join("pgbench");
    let output = Command::new(program)
        .env("PGOPTIONS", format!("-c synchronous_commit={commit}"))
        .args(["--no-vacuum", "--jobs=2"])
        .args([format!("--client={writers}"), format!("--time={seconds}")])
        .arg("--file")
        .arg(&script)
        .arg(&fleet.conninfo)
        .output()?;
    let _ = std::fs::remove_file(&script);
    let text = String::from_utf8(output.stdout)?;
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
    match rate.filter(|_| output.status.success()) {
        Some(rate) => Ok(rate.parse()?),
        None => Err(format!("pgbench: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
