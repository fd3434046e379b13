//! What to measure, from the environment, and on what it is measured.

use std::{env, path::PathBuf, thread};

use crate::{Outcome, postgres::Server, report::Report};

/// What a run may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    NewTenant,
    Claim,
    Peers,
    Fleet,
}

const PARTS: usize = 4;

/// What this run does.
pub(crate) struct Choice {
    /// Tenants of the largest fleet.
    pub(crate) tenants: usize,
    /// A hundred thousand tenants too.
    pub(crate) large: bool,
    /// Where the files go.
    pub(crate) out: PathBuf,
    quick: bool,
    parts: Vec<Part>,
}

/// Settings of the server that decide about these numbers.
const SETTINGS: [&str; 8] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
    "jit",
];

impl Choice {
    pub(crate) fn from_environment() -> Outcome<Self> {
        let given = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let set = |name| given(name).is_some_and(|value| value != "0");
        let names = given("BENCH_PARTS").unwrap_or_else(|| "new-tenant,claim,peers,fleet".into());
        let mut parts = Vec::new();
        for name in names.split(',') {
            match name {
                "new-tenant" => parts.push(Part::NewTenant),
                "claim" => parts.push(Part::Claim),
                "peers" => parts.push(Part::Peers),
                "fleet" => parts.push(Part::Fleet),
                "pages" => {}
                other => return Err(format!("BENCH_PARTS: no part is called {other:?}").into()),
            }
        }
        let out = given("BENCH_OUT").unwrap_or_else(|| "docs".into());
        Ok(Self {
            tenants: given("BENCH_TENANTS").map_or(Ok(10_000), |value| value.parse())?,
            large: set("LARGE"),
            out: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(out),
            quick: set("BENCH_QUICK"),
            parts,
        })
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Whether anything is measured, and not only written anew.
    pub(crate) fn measures(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Repetitions: a quick run has fewer.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.quick {
            full.div_ceil(4).max(2)
        } else {
            full
        }
    }

    /// How long pgbench writes.
    pub(crate) fn seconds(&self) -> usize {
        if self.quick { 1 } else { 2 }
    }

    /// Sizes of the fleets, the largest last.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let smaller = [100, 300, 1000, 3000, 10_000]
            .into_iter()
            .filter(|size| *size < self.tenants);
        let smaller = smaller.take(if self.quick { 1 } else { 5 });
        smaller.chain([self.tenants]).collect()
    }
}

/// Machine and server: cores, memory, version and settings, and no name of either. What an earlier run has measured
/// stays only if it was the same machine and server, and only those parts that are not measured now.
pub(crate) async fn describe(server: &Server, choice: &Choice, report: &mut Report) -> Outcome<()> {
    let client = server.connect("postgres").await;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib = memory
        .split_whitespace()
        .nth(1)
        .ok_or("no size of the memory")?;
    let version: String = client.query_one("SHOW server_version", &[]).await?.get(0);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let mut now = Report {
        load_before: load.split(' ').next().and_then(|load| load.parse().ok()),
        cores: thread::available_parallelism()?.get(),
        memory_gib: kib.parse::<u64>()?.div_ceil(1024 * 1024),
        postgresql: version.split(' ').next().unwrap_or_default().to_owned(),
        tenants: choice.tenants,
        ..Report::default()
    };
    for name in SETTINGS {
        let value: String = client.query_one(&format!("SHOW {name}"), &[]).await?.get(0);
        now.settings.push((name.to_owned(), value));
    }
    if report.same_place(&now) && choice.parts.len() < PARTS {
        now.measurements = std::mem::take(&mut report.measurements);
        if choice.has(Part::Fleet) {
            now.measurements.retain(|it| it.tenants == 0);
        } else {
            now.tenants = report.tenants;
        }
        now.merged = !now.measurements.is_empty();
    }
    *report = now;
    Ok(())
}
