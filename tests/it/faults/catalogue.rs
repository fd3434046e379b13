//! The catalogue of faults: each with what is tested and by which tests, or what is tested in its place.
//!
//! A test has its path within `tests/it`. `make faults` runs them all and writes `docs/faults.md` from this table.

/// One fault.
pub struct Fault {
    pub number: u8,
    pub title: &'static str,
    /// What the tests show.
    pub tested: &'static str,
    /// Why it cannot be provoked on one machine, or not in full.
    pub instead: &'static str,
    pub tests: &'static [&'static str],
}

const fn fault(
    number: u8,
    title: &'static str,
    tested: &'static str,
    instead: &'static str,
    tests: &'static [&'static str],
) -> Fault {
    Fault {
        number,
        title,
        tested,
        instead,
        tests,
    }
}

/// The sections, by their first fault.
pub const SECTIONS: &[(u8, &str)] = &[
    (1, "Listener and notifications"),
    (17, "Connections, server, failover"),
    (33, "Execution and locks"),
    (50, "Lifecycle, replicas, scale, hostile input"),
    (61, "Restored data, shared objects, durability"),
];

#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    fault(1, "The listener's backend is terminated",
        "it listens again within 2 s; what was sent meanwhile is found, and would not be without the look at the fleet", "", &[
        "faults::listener::a_listener_whose_backend_is_terminated_listens_again_within_two_seconds",
        "faults::listener::without_its_look_at_the_fleet_a_new_listener_would_miss_what_was_sent_before",
        "events::a_listener_that_is_cut_off_listens_again_and_misses_nobody",]),
    fault(2, "Tenants are inserted while the listener is down",
        "all are current within 2 s of its return, without a sweep", "", &[
        "faults::listener::tenants_inserted_while_the_listener_is_cut_off_are_found_when_it_returns",]),
    fault(3, "Black hole between listener and server",
        "replaced within 10 s, by a proxy that forwards nothing", "the kernels still answer each other, which is harder to notice than a cable pulled out", &[
        "faults::listener::slow::a_listener_in_a_black_hole_is_replaced_within_ten_seconds",]),
    fault(4, "The listener's backend is frozen",
        "replaced within 10 s; after the thaw one listener is left", "", &[
        "faults::listener::slow::a_frozen_backend_is_left_within_ten_seconds_and_its_thaw_leaves_one_listener",]),
    fault(5, "Half-open connection of the listener",
        "replaced within 10 s", "", &[
        "faults::listener::slow::a_half_open_listener_is_replaced_within_ten_seconds",]),
    fault(6, "A session that answers and delivers nothing",
        "replaced within 10 s, and never without the pulse", "", &[
        "faults::listener::slow::a_deaf_listener_is_replaced_within_ten_seconds",
        "faults::listener::slow::without_its_pulse_a_deaf_listener_would_go_unnoticed",]),
    fault(7, "LISTEN on a hot standby",
        "refused and named without a storm of log lines; the sweep works on; the primary is taken when it is there", "", &[
        "faults::listener::slow::a_standby_is_refused_without_a_storm_and_the_sweep_works_on",]),
    fault(8, "LISTEN is refused with 58P01",
        "tried again with backoff, the SQLSTATE named by `/readyz`; the sweep works on", "", &[
        "faults::listener::a_listen_that_the_server_refuses_is_tried_again_and_named_while_the_sweep_works_on",]),
    fault(9, "Flood of notifications",
        "200 000 notifications cost less than 64 MiB and nobody is lost; 10 000 for one tenant at work are one more look", "", &[
        "faults::listener::slow::a_hundred_thousand_notifications_cost_little_memory_and_nobody_is_lost",
        "faults::listener::ten_thousand_wakeups_of_a_busy_tenant_are_one_more_look",]),
    fault(10, "The daemon stands still while notifications arrive",
        "the application inserts on; the queue is drained within 10 s of the thaw; the listener is never in a transaction (an oracle)", "", &[
        "faults::listener::slow::a_daemon_that_stands_still_never_hinders_the_application_and_drains_the_queue_afterwards",]),
    fault(11, "The notification queue fills up",
        "", "", &[]),
    fault(12, "Payloads that name no tenant",
        "each is counted and harms nobody", "", &[
        "events::payloads_that_name_no_tenant_are_counted_and_harm_nobody",]),
    fault(13, "A tenant whose name is longer than a notification may be",
        "it is inserted and built: only the id is sent", "", &[
        "faults::listener::a_tenant_with_a_name_longer_than_a_notification_is_inserted_and_built",]),
    fault(14, "The trigger does not fire",
        "disabled, dropped or not fired: a sweep finds the tenants", "", &[
        "faults::listener::a_sweep_finds_the_tenants_of_a_trigger_that_is_disabled_or_gone",
        "sweep::without_any_notification_every_tenant_is_current_one_sweep_later",]),
    fault(15, "The insert is rolled back; the event comes before the row is to be seen",
        "neither is a failure; the tenant is built when its row is there", "a lagging standby is not read: one is refused (7)", &[
        "events::an_insert_that_is_rolled_back_does_nothing",
        "faults::listener::an_event_that_comes_before_its_row_is_no_failure",]),
    fault(16, "The application prepares transactions (2PC)",
        "refused by PostgreSQL with the triggers, as documented; without them a sweep finds the tenant", "Citus is not at hand", &[
        "faults::listener::prepared_transactions_insert_tenants_only_without_the_triggers_and_a_sweep_finds_them",]),
    fault(17, "A worker's backend is killed, the server restarts",
        "the server restarts; every tenant is current, nobody quarantined, each file applied once", "", &[
        "faults::connections::a_worker_killed_in_a_file_takes_the_server_down_and_costs_nobody_more_than_time",
        "crash::sessions_that_the_server_ends_cost_an_attempt_and_nothing_else",]),
    fault(18, "The server is away for a while",
        "the daemon stays up, is not ready, and goes on afterwards", "20 s in place of 60 s", &[
        "http::readiness_follows_the_database_and_liveness_does_not",
        "faults::connections::slow::a_server_that_is_away_for_a_while_finds_the_daemon_alive_and_its_work_waiting",]),
    fault(19, "No server at the start",
        "the daemon waits for it", "", &[
        "http::a_daemon_that_starts_before_its_database_waits_for_it",]),
    fault(20, "No connection left (53300)",
        "it waits calmly, the listener keeps its connection, nobody is quarantined", "", &[
        "faults::connections::a_daemon_without_free_connections_waits_calmly_and_goes_on",]),
    fault(21, "The handshake hangs",
        "given up after 5 s, at the start and while running, and tried again", "", &[
        "faults::connections::slow::a_handshake_that_hangs_is_given_up_after_five_seconds",]),
    fault(22, "A pooled connection goes nowhere",
        "replaced within some seconds; the tenants are not marked failed", "a run already under way is left to TCP keepalive and tcp_user_timeout", &[
        "faults::connections::an_idle_connection_that_leads_nowhere_is_replaced_within_five_seconds",]),
    fault(23, "A run is dropped within its transaction",
        "the connection is closed; nobody works in that transaction", "", &[
        "faults::connections::a_run_that_breaks_within_its_transaction_leaves_its_connection_to_nobody",]),
    fault(24, "A standby takes over",
        "followed within 15 s, the rollout finished", "", &[
        "faults::connections::slow::a_standby_that_takes_over_in_a_rollout_is_followed_within_fifteen_seconds",]),
    fault(25, "The old primary still accepts connections",
        "", "", &[]),
    fault(26, "The new primary lacks the last commits",
        "done again on the new primary: ledger and schema were lost together", "", &[
        "faults::connections::slow::what_a_failover_lost_is_done_again",]),
    fault(27, "Workers behind a transaction pooler",
        "tenants forced onto one connection of pgbouncer's stay apart, also when a file fails", "", &[
        "pooler::tenants_forced_onto_one_backend_stay_apart",
        "pooler::a_file_that_fails_behind_a_pooler_leaves_nothing_for_the_next_tenant",
        "pooler::who_is_in_the_way_is_seen_through_a_pooler",]),
    fault(28, "The disk is full (53100)",
        "nobody quarantined; all goes on by itself when there is room", "", &[
        "faults::connections::slow::a_full_disk_stops_work_and_quarantines_nobody",]),
    fault(29, "The server's certificate is wrong, or there is none",
        "", "", &[]),
    fault(30, "The password is changed while the daemon runs",
        "", "", &[]),
    fault(31, "One shard of three is down",
        "a daemon is not disturbed by the loss of another's server", "one daemon serves one database", &[
        "faults::connections::a_daemon_serves_its_database_while_the_server_of_another_is_down",]),
    fault(32, "The clock jumps",
        "by an hour, forth and back: sweeps neither stop nor race, events work on", "the daemon's clock only: the ledger's times are the database's", &[
        "faults::connections::a_clock_that_jumps_neither_stops_the_sweeps_nor_makes_them_race",]),
    fault(33, "The daemon is killed at each phase",
        "killed at each boundary between two phases, in a rollout, and while it fills new schemas, it leaves only work to do", "", &[
        "faults::execution::slow::a_daemon_killed_at_any_boundary_leaves_only_work_to_do",
        "crash::a_daemon_killed_in_the_middle_of_a_rollout_leaves_only_work_to_do",
        "crash::a_daemon_killed_while_it_fills_new_schemas_leaves_whole_ones_or_none",]),
    fault(34, "A killed daemon's backend works on",
        "the server ends it within seconds; the tenant is done again", "", &[
        "faults::execution::slow::what_a_killed_daemon_left_running_ends_within_seconds_and_is_done_again",]),
    fault(35, "The application holds a lock for long",
        "the tenant is blocked, names who holds the lock, and the others go on; the application never waits longer than the lock timeout", "", &[
        "locks::a_lock_of_the_applications_blocks_the_tenant_alone_and_names_who_holds_it",
        "faults::execution::the_application_is_served_all_through_a_rollout",]),
    fault(36, "A statement of ten minutes",
        "cancelled, the tenant quarantined with file and line", "", &[
        "faults::execution::a_statement_that_takes_too_long_is_cancelled_and_its_tenant_quarantined",]),
    fault(37, "A session idle in its transaction",
        "every worker session has a bound of 30 s", "the setting is read back; the server keeps to it", &[
        "faults::execution::every_session_of_ours_is_ended_by_the_server_when_it_idles_in_a_transaction",]),
    fault(38, "A concurrent index build is killed half-way",
        "", "", &[]),
    fault(39, "Concurrent index builds compete",
        "", "", &[]),
    fault(40, "A file that cannot run in a transaction",
        "", "", &[]),
    fault(41, "A file fails for one tenant",
        "that tenant is quarantined with file and line, the others go on", "", &[
        "failures::one_bad_tenant_is_quarantined_with_file_and_line_and_the_others_go_on",
        "commands::a_failing_tenant_costs_the_others_nothing_and_says_what_to_do",]),
    fault(42, "A file fails for every tenant",
        "", "", &[]),
    fault(43, "The set is edited, shortened, reordered",
        "the set is refused or the tenants are modified; the loaded set stays", "", &[
        "states::a_tenant_whose_applied_file_changed_is_modified",
        "states::a_file_slipped_in_below_an_applied_one_makes_tenants_modified",
        "bad_input::a_directory_that_is_no_migration_set_is_refused",
        "bad_input::a_running_daemon_keeps_its_set_when_the_new_one_is_refused",]),
    fault(44, "An older daemon and a newer ledger",
        "a newer control schema is refused; tenants ahead are left alone", "", &[
        "bad_input::a_control_schema_that_does_not_fit_is_refused_before_anything_is_done",
        "states::a_tenant_with_versions_the_set_lacks_is_ahead_and_left_alone",]),
    fault(45, "Deadlocks and other transient errors",
        "tried again, never quarantined", "", &[
        "locks::of_a_deadlock_with_the_application_tenantd_is_the_victim",
        "failures::a_transient_error_is_tried_again_and_never_quarantines",]),
    fault(46, "The lock table is full (53200)",
        "", "", &[]),
    fault(47, "A schema or a tenant goes away between event and run",
        "it is not built again; the schema of a deleted tenant stays", "", &[
        "states::a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again",
        "sweep::the_schema_of_a_deleted_tenant_stays_as_an_orphan",]),
    fault(48, "The ledger was tampered with",
        "", "", &[]),
    fault(49, "A file leaves its tenant",
        "refused at load, or found after it ran", "", &[
        "apply::a_file_that_leaves_its_search_path_or_role_is_refused",
        "apply::a_block_cannot_leave_its_transaction",
        "bad_input::a_file_that_would_take_its_guard_apart_is_refused_before_any_tenant_is_touched",]),
    fault(50, "SIGTERM in each phase, twice, and without a server",
        "an idle daemon, and one that waits for its database, end with 0", "", &[
        "http::sigterm_ends_an_idle_daemon_with_0_and_signs_it_off",
        "http::sigterm_ends_a_daemon_that_still_waits_for_its_database",
        "sweep::a_daemon_that_is_told_to_stop_signs_off_and_ends_with_0",]),
    fault(51, "Several daemons",
        "two apply each file to each tenant once", "", &[
        "crash::two_daemons_apply_each_file_to_each_tenant_once",]),
    fault(52, "A daemon is frozen while it holds a tenant",
        "another takes over; nothing is applied twice when it wakes", "", &[
        "faults::lifecycle::a_daemon_frozen_while_it_holds_a_tenant_applies_nothing_twice",]),
    fault(53, "10 000 and 100 000 tenants",
        "", "", &[]),
    fault(54, "A storm of DDL",
        "", "", &[]),
    fault(55, "Hostile names",
        "refused with a reason, or quoted everywhere", "", &[
        "states::names_that_cannot_be_schemas_are_refused_and_harm_nobody",
        "states::odd_names_that_can_be_schemas_are_schemas",]),
    fault(56, "Any role spoofs or floods our channels",
        "", "", &[]),
    fault(57, "A tenant plants code for us to run",
        "", "", &[]),
    fault(58, "Slow and hostile HTTP clients",
        "", "", &[]),
    fault(59, "A panic in a worker, no log, no file descriptors",
        "", "", &[]),
    fault(60, "Wrong configuration, unreadable secrets",
        "refused with what to do, no secret told", "", &[
        "bad_input::wrong_settings_are_answered_with_what_to_do",
        "passwords::a_password_is_asked_for_and_never_shown",]),
    fault(61, "The application would deadlock with a migration",
        "the migration is the victim", "", &[
        "locks::of_a_deadlock_with_the_application_tenantd_is_the_victim",]),
    fault(62, "The schema goes away while a file runs",
        "", "", &[]),
    fault(63, "A file with COMMIT, COPY, an open quote, SET",
        "refused at load with file and line; nothing reaches the next tenant", "", &[
        "bad_input::a_file_that_would_take_its_guard_apart_is_refused_before_any_tenant_is_touched",
        "apply::session_state_that_a_block_leaves_does_not_reach_the_next_tenant",]),
    fault(64, "A file holds a lock for too long",
        "cancelled, quarantined, with the marker to allow it", "", &[
        "locks::a_file_that_holds_a_lock_too_long_is_cancelled_unless_its_marker_allows_it",]),
    fault(65, "An old snapshot in the way of a concurrent index",
        "", "", &[]),
    fault(66, "Guard and check raced by two daemons",
        "two daemons apply each file once", "", &[
        "crash::two_daemons_apply_each_file_to_each_tenant_once",
        "commands::two_commands_migrate_one_tenant_once",]),
    fault(67, "A tenant, a table or the whole server is restored",
        "restored by its stamp, nothing applied until a person says so", "", &[
        "states::a_schema_whose_stamp_says_otherwise_is_restored",
        "heal::a_schema_restored_from_an_older_backup_is_adopted_and_brought_forward",]),
    fault(68, "All tables of a filled tenant are gone",
        "lost, reported, not filled without a person's word", "", &[
        "states::a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again",
        "heal::a_lost_tenant_is_built_anew_on_a_persons_word_and_the_remains_are_kept",]),
    fault(69, "Many workers change one shared object",
        "", "", &[]),
    fault(70, "Power loss after a rollout",
        "", "", &[]),
];
