//! Each detector is switched off, and an ordinary test must fail: so that none is there for show.
//!
//! A detector of the program's has a name in `failpoint::DETECTORS`; one of the control schema's is a function there that
//! is changed in the test's database. **A new detector gets an entry here**, in [`QUICK`], or in [`SLOW`] if its
//! scenario needs more than some seconds to notice, and its scenario is a test like all others, `pub(crate)`.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::mutant::{Off, without};
use crate::{
    apply, brake, breaker, daemons, events, faults, guard, locks, outside, primary, roles, states,
    sweep,
};
use tenantd::failpoint::DETECTORS;

/// How many run side by side: most of them wait.
const AT_ONCE: usize = 8;
/// Long enough for what still works to happen.
const LIMIT: Duration = Duration::from_secs(5);

struct Mutant {
    /// What is switched off, for people.
    name: &'static str,
    off: Off,
    /// The test that must fail, and what it says then: it must not fail for another reason.
    scenario: fn(),
    says: &'static str,
}

const fn mutant(name: &'static str, off: Off, scenario: fn(), says: &'static str) -> Mutant {
    Mutant {
        name,
        off,
        scenario,
        says,
    }
}

const QUICK: &[Mutant] = &[
    // What finds tenants.
    mutant(
        "the look at the fleet after LISTEN",
        Off::Failpoint("listener.resync"),
        faults::listener::tenants_inserted_while_the_listener_is_cut_off_are_found_when_it_returns,
        "all tenants to be ready",
    ),
    mutant(
        "the sweep's timer",
        Off::Failpoint("sweep.timer"),
        sweep::without_any_notification_every_tenant_is_current_one_sweep_later,
        "all tenants to be ready",
    ),
    mutant(
        "who a trigger wakes us for",
        Off::Sql("wakes", "RETURN EXISTS", "RETURN false; RETURN EXISTS"),
        events::an_inserted_tenant_gets_its_schema_and_the_application_hears_of_it,
        "nothing was notified",
    ),
    mutant(
        "who a trigger leaves us alone for",
        Off::Sql(
            "tenantd_login",
            "IF EXISTS",
            "PERFORM pg_catalog.pg_notify('dashboard_login', NEW.tenant_id::text); IF EXISTS",
        ),
        events::a_login_to_a_current_tenant_notifies_nobody,
        "is_empty",
    ),
    // The guard: what was planned is still so.
    mutant(
        "the guard's lock",
        Off::Sql(
            "guard",
            "IF NOT pg_catalog.pg_try_advisory_xact_lock",
            "IF false AND pg_catalog.pg_try_advisory_xact_lock",
        ),
        locks::a_migration_of_another_session_is_waited_for_and_not_repeated,
        "it to find the schema busy",
    ),
    mutant(
        "the guard's comparison with the ledger",
        Off::Sql("guard", "t.digest IS DISTINCT FROM p_digest OR", ""),
        guard::a_plan_that_another_session_overtook_is_dropped,
        "it ran again",
    ),
    mutant(
        "the guard's look at a hold",
        Off::Sql("guard", "OR t.held_by IS NOT NULL", ""),
        guard::a_tenant_that_is_held_meanwhile_is_left_alone,
        "it to notice",
    ),
    mutant(
        "the guard's comparison of the namespace",
        Off::Sql(
            "guard",
            "IF p_namespace IS DISTINCT FROM",
            "IF false AND p_namespace IS DISTINCT FROM",
        ),
        guard::a_schema_that_was_replaced_meanwhile_is_not_migrated,
        "it to notice",
    ),
    mutant(
        "the guard's look where the search path leads",
        Off::Sql("guard", "IF p_namespace IS NOT NULL AND", "IF false AND"),
        roles::a_missing_privilege_is_told_with_the_statement_that_grants_it,
        "schema tenant_2",
    ),
    // The record: what was done stayed in its place.
    mutant(
        "whether the transaction is the guard's",
        Off::Sql(
            "record",
            "IF pg_catalog.current_setting('tenantd.guard', true) IS DISTINCT FROM p_schema",
            "IF false",
        ),
        guard::a_record_without_its_guard_is_refused,
        "left its transaction",
    ),
    mutant(
        "where the files ended",
        Off::Sql(
            "record",
            "IF p_here IS DISTINCT FROM p_schema OR",
            "IF false AND",
        ),
        apply::a_file_that_leaves_its_search_path_or_role_is_refused,
        "failed: path",
    ),
    mutant(
        "where a name leads",
        Off::Sql("inside", "IF FOUND THEN", "IF false THEN"),
        apply::a_name_that_leads_to_a_shared_object_is_refused_before_it_is_touched,
        "altered: Ran",
    ),
    mutant(
        "what was altered outside",
        Off::Sql(
            "record",
            "IF v_outside IS NOT NULL THEN\n            RAISE",
            "IF false THEN\n            RAISE",
        ),
        apply::a_file_that_works_outside_its_schema_is_refused_and_leaves_nothing,
        "table: Ran",
    ),
    mutant(
        "the stamp",
        Off::Sql("stamp", "BEGIN", "BEGIN RETURN;"),
        states::a_schema_whose_stamp_says_otherwise_is_restored,
        "tenant 4 to be restored",
    ),
    mutant(
        "that tables are lost",
        Off::Failpoint("census.lost"),
        states::a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again,
        "tenant 1 to be lost",
    ),
    // The application first.
    mutant(
        "how long a lock is waited for",
        Off::Failpoint("apply.lock-timeout"),
        locks::a_lock_of_the_applications_blocks_the_tenant_alone_and_names_who_holds_it,
        "tenant 1 to be blocked",
    ),
    mutant(
        "how long a lock is held",
        Off::Failpoint("reconcile.watch"),
        locks::a_file_that_holds_a_lock_too_long_is_cancelled_unless_its_marker_allows_it,
        "tenant 1 to be quarantined",
    ),
    mutant(
        "who loses a deadlock",
        Off::Failpoint("apply.deadlock-timeout"),
        locks::of_a_deadlock_that_comes_late_tenantd_is_the_victim_too,
        "the application wins",
    ),
    mutant(
        "that the server looks for its client",
        Off::Failpoint("pool.client-check"),
        faults::execution::what_a_dead_or_frozen_daemon_leaves_open_the_server_ends_by_itself,
        "left: \"0ms 30000ms\"",
    ),
    // Files that run outside a transaction.
    mutant(
        "the remains of a broken build",
        Off::Failpoint("outside.leftovers"),
        outside::the_remains_of_a_reindex_are_dropped_with_those_of_the_toast_table,
        "left: \"2\"",
    ),
    mutant(
        "whether an index is valid",
        Off::Sql(
            "outside_done",
            "IF p_index IS NOT NULL THEN",
            "IF false THEN",
        ),
        outside::an_index_that_breaks_under_somebody_elses_hands_is_built_anew,
        "it to notice",
    ),
    mutant(
        "which statements are done",
        Off::Sql("outside_enter", "done := o.done", "done := 0"),
        outside::each_statement_of_a_file_without_a_transaction_takes_effect_once,
        "quarantined",
    ),
    mutant(
        "which statement was begun",
        Off::Sql("outside_enter", "begun := o.begun", "begun := false"),
        outside::a_build_that_ended_as_its_daemon_died_is_not_repeated,
        "tenant 1 to be current 0003",
    ),
    // The fleet and the server.
    mutant(
        "how often a version has failed",
        Off::Failpoint("breaker.count"),
        breaker::a_version_that_fails_everywhere_reaches_five_tenants_and_those_in_flight,
        "the version to be stopped",
    ),
    mutant(
        "whether the trouble is the server's",
        Off::Failpoint("brake.pull"),
        brake::a_full_disk_costs_no_tenant_an_attempt_and_work_goes_on_by_itself,
        "the brake to be on (disk)",
    ),
];

const SLOW: &[Mutant] = &[
    mutant(
        "the listener's pulse",
        Off::Failpoint("listener.pulse"),
        faults::listener::slow::a_deaf_listener_is_replaced_within_ten_seconds,
        "it to listen again",
    ),
    mutant(
        "when a lease ends",
        Off::Failpoint("lead.expiry"),
        daemons::a_lease_that_ran_out_goes_to_a_daemon_that_runs,
        "the other to lead",
    ),
    mutant(
        "whether the server is a standby",
        Off::Failpoint("primary.standby"),
        primary::slow::a_standby_is_refused_at_the_start_and_the_primary_is_taken_when_it_is_there,
        "its sessions are read-only",
    ),
    mutant(
        "whether the server was left behind by a failover",
        Off::Failpoint("primary.timeline"),
        primary::a_promoted_standby_is_followed_and_the_old_primary_is_not_taken_back,
        "the old primary to be refused",
    ),
];

/// Runs them all; those whose scenario passed, or failed for another reason.
fn survivors(mutants: &[Mutant], limit: Duration) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut survivors = Vec::new();
        while let Some(Mutant {
            name,
            off,
            scenario,
            says,
        }) = mutants.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let start = Instant::now();
            let said = without(*off, limit, *scenario);
            println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
            match said {
                Some(said) if said.contains(says) => {}
                said => survivors.push(format!(
                    "{name}: {}",
                    said.as_deref().unwrap_or("nobody noticed")
                )),
            }
        }
        survivors
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("it catches panics"))
            .collect()
    })
}

#[test]
fn without_any_one_detector_some_test_fails() {
    let survivors = survivors(QUICK, LIMIT);
    assert!(survivors.is_empty(), "{}", survivors.join("\n---\n"));
}

#[test]
fn every_detector_of_the_programs_has_a_mutant() {
    let named: BTreeSet<_> = DETECTORS.iter().map(|(name, _)| *name).collect();
    let all = QUICK.iter().chain(SLOW);
    let tested: BTreeSet<_> = all
        .filter_map(|mutant| match mutant.off {
            Off::Failpoint(name) => Some(name),
            Off::Sql(..) => None,
        })
        .collect();
    assert_eq!(named, tested);
}

mod slow {
    #[test]
    fn without_any_one_slow_detector_some_test_fails() {
        let survivors = super::survivors(super::SLOW, std::time::Duration::from_secs(12));
        assert!(survivors.is_empty(), "{}", survivors.join("\n---\n"));
    }
}
