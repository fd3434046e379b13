//! The page: the goals, what was measured and how, and every number. Written from the report alone.

use std::fmt::Write as _;

use crate::report::{Measurement, Report};

/// A section of the page: its title, how it was measured, and the beginnings of the names of its parts.
type Section = (&'static str, &'static str, &'static [&'static str]);

const SECTIONS: [Section; 9] = [
    (
        "New tenant",
        "A schema that does not exist yet gets 40 files: 30 tables with identity columns, foreign keys and indexes, about \
         230 relations. tenantd is timed inside the benchmark's process from the wakeup to the recorded commit; bare SQL \
         is the same text in one transaction on a warm connection. sqlx-cli and dbmate are one process a tenant, which \
         is how they are used, with the CREATE SCHEMA before it. django-tenants is a Python process that is running \
         already. What everybody has built is counted and must be equal.",
        &["new tenant"],
    ),
    (
        "Insert to ready",
        "From the answer to the application's COMMIT until its other connection has received `tenant_ready`, by a whole \
         daemon. By rename: the schema is ready and only claimed; bare is a client that hears the NOTIFY of a trigger \
         and renames a schema. It is a process of its own, as tenantd is, and has a database of its own, because after a \
         rename all sessions of a database plan anew. Everything rests for a tenth of a second before each turn. During a \
         rollout: the same while the daemon brings one ADD COLUMN to the whole fleet without a limit of its rate, with \
         the set of the fleet (20 tables).",
        &["insert to ready"],
    ),
    (
        "Nothing to do",
        "Every tenant is current. The head check is tenantd's own query on the same connection as the bare one. The full \
         sweep is as long as the daemon's histogram says; the bare query counts the tables of every schema and reads its \
         stamp. The tools have no such query: their command runs for each tenant of a sample of 20, and the time a tenant \
         is multiplied.",
        &["head check", "full sweep", "nothing to do a tenant"],
    ),
    (
        "Rollout",
        "One file for every tenant, over 4 connections. tenantd has no limit to its rate and else its defaults, \
         so quick tenants share transactions. The command's time includes its start; the daemon's is from SIGHUP until \
         the ledger has everybody at the new head. Bare SQL sets the search_path and runs the text, on 4 warm \
         connections, one message and transaction a tenant; pipelined has 4 messages on their way on each. The goals \
         compare the better of command and daemon with the best of bare SQL. A checkpoint precedes every turn. The \
         tools run for each tenant of a sample of 20.",
        &["ADD COLUMN", "CREATE INDEX"],
    ),
    (
        "Logins",
        "pgbench inserts logins of tenants that are current, into tables of one shape with different triggers. With another \
         tenant that lags the trigger has to look at the table of those, as it does during a rollout. The sent notifications \
         are counted; that the trigger fires for a tenant that lags is checked before.",
        &["logins", "notifications sent"],
    ),
    (
        "Flood",
        "100 000 notifications of logins, equally of up to 1000 tenants, over 4 connections, to a daemon at rest.",
        &["flood"],
    ),
    (
        "Start",
        "From the start of the process to the line in its log that says it listens.",
        &["start"],
    ),
    (
        "Memory",
        "After a start, a rollout to the whole fleet and a full sweep. With 100 000 tenants each has one table. The sessions are the daemon's in the server: PSS shares what \
         several processes map, private is theirs alone.",
        &["memory", "sessions"],
    ),
    ("Other", "", &[""]),
];

pub(crate) fn write(report: &Report) -> String {
    let mut page = String::from(
        "# Benchmark\n\n<!-- Written by `make bench` from benchmark.json: change benches/ratios/page.rs instead. -->\n\n",
    );
    let _ = writeln!(
        page,
        "tenantd against bare SQL and against the tools people use today: one run, one private cluster, the same files \
         for all. Contenders take turns. A ratio to bare SQL, or to no trigger, is the median of the ratios of neighbours; \
         the tables hold medians, with quartiles in brackets. Ratios carry over to other machines better than times \
         do.\n\n![Time of a rollout, of nothing to do and of a new tenant](benchmark.svg)\n"
    );
    goals(&mut page, report);
    machine(&mut page, report);
    page.push_str("## What was measured, and how\n");
    let mut rest: Vec<_> = report.measurements.iter().collect();
    for (title, text, parts) in SECTIONS {
        let (of, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|it| parts.iter().any(|part| it.part.starts_with(part)));
        rest = others;
        if !of.is_empty() {
            let _ = writeln!(page, "\n### {title}\n\n{text}\n");
            tables(&mut page, &of);
        }
    }
    page.push_str(
        "\n## Measure again\n\n`make bench` takes what is installed; `make bench-peers` installs the other tools under \
         `target/` and measures with them; `make bench-quick` takes two minutes, a small fleet and writes to \
         `target/bench`. `BENCH_TENANTS` sets the size of the fleet, `LARGE=1` adds memory with 100 000 tenants. The \
         machine should do nothing else.\n",
    );
    page
}

fn goals(page: &mut String, report: &Report) {
    page.push_str("## Goals\n\n| | goal | measured | |\n|---|---|---|---|\n");
    for goal in &report.goals {
        let measured = goal.measured.map_or_else(String::new, number);
        let verdict = goal.verdict();
        let _ = writeln!(
            page,
            "| {} | {} | {measured} | {verdict} |",
            goal.what, goal.bound
        );
    }
    let missed: Vec<_> = report
        .goals
        .iter()
        .filter(|goal| goal.reached == Some(false))
        .collect();
    if !missed.is_empty() {
        let names: Vec<_> = missed.iter().map(|goal| goal.what.as_str()).collect();
        let _ = writeln!(page, "\nNot reached in this run: {}.", names.join("; "));
    }
    if report.merged {
        page.push_str(
            "\nMerged from more than one run: a ratio between parts compares different moments of the machine.\n",
        );
    }
    if !report.skipped.is_empty() {
        let _ = writeln!(page, "\nLeft out: {}.", report.skipped.join("; "));
    }
    page.push('\n');
}

fn machine(page: &mut String, report: &Report) {
    let settings: Vec<_> = report
        .settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    let load = report
        .load_before
        .map(|load| format!(", a load of {load} when it began"));
    let load = load.unwrap_or_default();
    let _ = writeln!(
        page,
        "## Machine\n\n{} cores, {} GiB of memory{load}; PostgreSQL {} on the same machine, over a Unix socket, with the server's \
         defaults but for the number of connections: {}. Fleets are loaded without fsync, are on the disk before \
         anything is timed, and hold 20 tables a tenant.\n",
        report.cores,
        report.memory_gib,
        report.postgresql,
        settings.join(", ")
    );
}

/// A table a part: contenders down, sizes of the fleet across.
fn tables(page: &mut String, of: &[&Measurement]) {
    let mut parts: Vec<&str> = Vec::new();
    for it in of {
        if !parts.contains(&it.part.as_str()) {
            parts.push(&it.part);
        }
    }
    for part in parts {
        let of: Vec<_> = of.iter().filter(|it| it.part == part).collect();
        let mut sizes: Vec<_> = of.iter().map(|it| it.tenants).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let titles = sizes.iter().map(|size| match size {
            0 => "median (quartiles)".to_owned(),
            size => format!("{size} tenants"),
        });
        let titles: Vec<_> = titles.collect();
        let unit = of.first().map_or("", |it| it.unit.as_str());
        let _ = writeln!(
            page,
            "| {part} ({unit}) | {} |\n|---|{}",
            titles.join(" | "),
            "---|".repeat(sizes.len())
        );
        let mut who: Vec<&str> = Vec::new();
        for it in &of {
            if !who.contains(&it.who.as_str()) {
                who.push(&it.who);
            }
        }
        for who in who {
            let cells = sizes.iter().map(|size| {
                let found = of.iter().find(|it| it.who == who && it.tenants == *size);
                found.map_or_else(String::new, |it| cell(it, unit))
            });
            let _ = writeln!(
                page,
                "| {who} | {} |",
                cells.collect::<Vec<_>>().join(" | ")
            );
        }
        page.push('\n');
    }
}

fn cell(it: &Measurement, unit: &str) -> String {
    let own = if it.unit == unit {
        String::new()
    } else {
        format!(" {}", it.unit)
    };
    if it.values.len() < 2 {
        return number(it.median) + &own;
    }
    let [low, high] = it.spread.map(number);
    format!("{}{own} ({low} to {high})", number(it.median))
}

/// Three digits, without an exponent.
fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value == 0.0 {
        "0".to_owned()
    } else {
        format!("{value:.2}")
    }
}
