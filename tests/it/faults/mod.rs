//! The faults of the catalogue, provoked; after each the oracles hold (`support/oracles.rs`).
//!
//! Tests of more than some 5 s are in modules called `slow`, which `make test` leaves to `make faults`.
#![allow(clippy::unwrap_used, reason = "tests panic")]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the program that writes the table uses the rest"
)]
mod catalogue;
mod connections;
pub(crate) mod execution;
mod kill_matrix;
mod lifecycle;
pub(crate) mod listener;
mod review;
mod watchdog;

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Instant};

use crate::support::App;
use catalogue::FAULTS;

/// Notes for the table how long it took from here (the end of the fault, or its beginning where it does not
/// end by itself) until all was well again.
pub(crate) fn recovered(since: Instant) {
    let Ok(dir) = std::env::var("TENANTD_FAULTS") else {
        return;
    };
    let thread = std::thread::current();
    // What the mutants run has none.
    let Some(test) = thread.name() else { return };
    let note = serde_json::json!({ "test": test, "seconds": since.elapsed().as_secs_f64() });
    let file = Path::new(&dir).join(format!("{}.json", test.replace("::", ".")));
    fs::write(file, note.to_string()).unwrap();
}

#[test]
fn every_test_of_the_catalogue_exists_and_every_fault_test_is_in_it() {
    let program = std::env::current_exe().unwrap();
    let listed = Command::new(program)
        .args(["--list", "--format=terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let exist: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let named: BTreeSet<_> = FAULTS
        .iter()
        .flat_map(|fault| fault.tests)
        .copied()
        .collect();
    let missing: Vec<_> = named.difference(&exist).collect();
    assert!(missing.is_empty(), "not there: {missing:#?}");
    let ours = exist
        .iter()
        .filter(|name| name.starts_with("faults::") && name.matches("::").count() > 1);
    let unnamed: Vec<_> = ours.filter(|name| !named.contains(*name)).collect();
    assert!(unnamed.is_empty(), "not in the catalogue: {unnamed:#?}");
    let untested = FAULTS.iter().filter(|fault| fault.tests.is_empty());
    let untested: Vec<_> = untested.map(|fault| fault.number).collect();
    assert!(untested.is_empty(), "no test for the faults {untested:?}");
    let numbers: Vec<_> = FAULTS.iter().map(|fault| fault.number).collect();
    assert_eq!(numbers, (1..=70).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_failpoint_that_nobody_knows_ends_the_start() {
    let app = App::bare("failpoint").await;
    let mut daemon = app.start_at("reconcile.aplied=abort");
    assert_eq!(daemon.ended().await, 1);
    assert!(
        daemon
            .log()
            .contains("`reconcile.aplied=abort`: no such point"),
        "{}",
        daemon.log()
    );
}
