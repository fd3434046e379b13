//! Writes `docs/faults.md` from the catalogue of faults, the output of `cargo test` and the times the tests noted.
//!
//! `make faults` calls it: `faults_table DIRECTORY`, with `results.txt` and one JSON file a test in it. It fails if
//! a test failed, of the catalogue or not, or one of the catalogue did not run.
#![allow(clippy::unwrap_used, reason = "a tool of ours")]

#[path = "../tests/it/faults/catalogue.rs"]
#[expect(unreachable_pub, reason = "a module of the tests")]
mod catalogue;
#[path = "../tests/it/support/postgres/host.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod host;

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

use catalogue::{FAULTS, Fault, SECTIONS};

const HEAD: &str = "| # | fault | what is tested | result | recovery |\n|--:|---|---|---|--:|\n";

/// What `cargo test` printed of each test: `ok`, `FAILED`, `ignored`.
type Results<'a> = BTreeMap<&'a str, &'a str>;

fn main() -> ExitCode {
    let dir = std::env::args().nth(1).expect("faults_table DIRECTORY");
    let dir = Path::new(&dir);
    let output = fs::read_to_string(dir.join("results.txt")).unwrap();
    let ended = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    let results: Results<'_> = ended.collect();
    let mut text = introduction();
    for fault in FAULTS {
        if let Some((_, title)) = SECTIONS.iter().find(|(first, _)| *first == fault.number) {
            text.push_str(&format!("\n## {title}\n\n{HEAD}"));
        }
        text.push_str(&row(fault, &results, dir));
    }
    let passed = FAULTS
        .iter()
        .filter(|fault| spoilt(fault, &results).is_none())
        .count();
    let summary = format!("{passed} of {} faults passed", FAULTS.len());
    text.push_str(&format!("\n{summary}.\n"));
    let wrong = wrong(&results);
    if !wrong.is_empty() {
        text.push_str(&format!("\n## What did not pass\n\n{wrong}"));
    }
    fs::write("docs/faults.md", text).unwrap();
    eprintln!("docs/faults.md: {summary}\n{wrong}");
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn introduction() -> String {
    format!(
        "# Faults\n\nWhat can go wrong around tenantd, provoked by `make faults`, which wrote this page: {}, {} cores, a debug build\n\
         beside other tests. After each fault every tenant is current and equal to one built anew, each file was applied\n\
         once, no invalid index and no session is left, and the log is calm. *Recovery* is the longest time from the end of\n\
         the fault, or from its beginning where it does not end by itself, until all was well again; a dash where no time\n\
         was taken. What is smaller than the fault, or cannot be had on one machine, stands in brackets.\n",
        version(),
        std::thread::available_parallelism().unwrap(),
    )
}

fn row(fault: &Fault, results: &Results<'_>, dir: &Path) -> String {
    let Fault {
        number,
        title,
        tested,
        ..
    } = fault;
    let instead = match fault.instead {
        "" => String::new(),
        text => format!(" ({text})"),
    };
    let result = spoilt(fault, results).unwrap_or("passed");
    let recovery = recovery(fault, dir);
    format!("| {number} | {title} | {tested}{instead} | {result} | {recovery} |\n")
}

/// What keeps a fault from having passed.
fn spoilt(fault: &Fault, results: &Results<'_>) -> Option<&'static str> {
    let result = |test: &&str| results.get(test).copied();
    if fault
        .tests
        .iter()
        .any(|test| result(test) == Some("FAILED"))
    {
        return Some("**failed**");
    }
    let ran = fault.tests.iter().all(|test| result(test) == Some("ok"));
    (!ran || fault.tests.is_empty()).then_some("**not run**")
}

/// A line for each test that failed, and for each of the catalogue that did not run.
fn wrong(results: &Results<'_>) -> String {
    let mut lines = BTreeMap::new();
    for (test, _) in results.iter().filter(|(_, result)| **result == "FAILED") {
        lines.insert(*test, "failed");
    }
    for test in FAULTS.iter().flat_map(|fault| fault.tests) {
        if !matches!(results.get(test), Some(&("ok" | "FAILED"))) {
            lines.insert(test, "not run");
        }
    }
    let lines = lines.iter();
    lines
        .map(|(test, why)| format!("- {why}: `{test}`\n"))
        .collect()
}

/// The longest of the times that its tests noted.
fn recovery(fault: &Fault, dir: &Path) -> String {
    let noted = fault.tests.iter().filter_map(|test| {
        let file = dir.join(format!("{}.json", test.replace("::", ".")));
        let note: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
        note["seconds"].as_f64()
    });
    noted
        .reduce(f64::max)
        .map_or_else(|| "-".into(), |seconds| format!("{seconds:.1} s"))
}

fn version() -> String {
    let program = host::find_binaries(None).unwrap().join("postgres");
    let output = std::process::Command::new(program)
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = text
        .split_whitespace()
        .nth(2)
        .unwrap_or("of unknown version");
    format!("PostgreSQL {number}")
}
