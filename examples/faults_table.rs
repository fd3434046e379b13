//! Writes `docs/faults.md` from the catalogue of faults, the output of `cargo test` and the times the tests noted.
//!
//! `make faults` calls it: `faults_table DIRECTORY`, with `results.txt` and one JSON file a test in it. It fails if
//! a test failed or did not run, or if a fault has no test.
#![allow(clippy::unwrap_used, reason = "a tool of ours")]

#[path = "../tests/it/faults/catalogue.rs"]
#[expect(unreachable_pub, reason = "a module of the tests")]
mod catalogue;
#[path = "../tests/it/support/postgres/host.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod host;

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode};

use catalogue::{FAULTS, Fault, SECTIONS};

fn main() -> ExitCode {
    let dir = std::env::args().nth(1).expect("faults_table DIRECTORY");
    let dir = Path::new(&dir);
    let output = fs::read_to_string(dir.join("results.txt")).unwrap();
    let ended = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    let results: BTreeMap<_, _> = ended.collect();
    let mut text = format!(
        "# Faults\n\nWhat can go wrong around tenantd, provoked by `make faults`, which wrote this page: {}, {} cores.\n\
         After each fault every tenant is current and equal to one built anew, each file was applied once, no invalid\n\
         index and no session is left, and the log is calm. *Recovery* is the time from the end of the fault, or from\n\
         its beginning where it does not end by itself, until all is well again.\n",
        version(),
        std::thread::available_parallelism().unwrap(),
    );
    let mut wrong = 0;
    for fault in FAULTS {
        if let Some((_, title)) = SECTIONS.iter().find(|(first, _)| *first == fault.number) {
            text.push_str(&format!(
                "\n## {title}\n\n| # | fault | what is tested | result | recovery |\n|---|---|---|---|---|\n"
            ));
        }
        let result = result(fault, &results);
        wrong += usize::from(result != "passed");
        let tested = [fault.tested, fault.instead]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>();
        text.push_str(&format!(
            "| {} | {} | {} | {result} | {} |\n",
            fault.number,
            fault.title,
            tested.join("; "),
            recovery(fault, dir)
        ));
    }
    let passed = FAULTS.len() - wrong;
    text.push_str(&format!("\n{passed} of {} faults passed.\n", FAULTS.len()));
    fs::write("docs/faults.md", text).unwrap();
    eprintln!("docs/faults.md: {passed} of {} faults passed", FAULTS.len());
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// One word, or the names of those that spoil it.
fn result(fault: &Fault, results: &BTreeMap<&str, &str>) -> String {
    if fault.tests.is_empty() {
        return "**not tested**".into();
    }
    let spoils: Vec<_> = fault
        .tests
        .iter()
        .filter_map(|test| match results.get(test) {
            Some(&"ok") => None,
            Some(_) => Some(format!("**failed**: `{test}`")),
            None => Some(format!("**not run**: `{test}`")),
        })
        .collect();
    if spoils.is_empty() {
        "passed".into()
    } else {
        spoils.join("<br>")
    }
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
        .map_or_else(|| "–".into(), |seconds| format!("{seconds:.1} s"))
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
