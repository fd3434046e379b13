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
        "it listens again within 2 s; what was sent meanwhile is found", "", &[
        "faults::listener::a_listener_whose_backend_is_terminated_listens_again_within_two_seconds",
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
        "replaced within 10 s; after three in a row the daemon polls until it hears again", "", &[
        "faults::listener::slow::a_deaf_listener_is_replaced_within_ten_seconds",
        "polling::slow::a_connection_that_hears_nothing_three_times_is_replaced_by_polling_until_it_hears",
        "polling::slow::a_transaction_pooler_that_hands_through_what_a_session_sends_itself_is_noticed",]),
    fault(7, "LISTEN on a hot standby",
        "refused and named without a storm of log lines; the sweep works on; the next host, or the primary when it is there, is taken", "", &[
        "faults::listener::slow::a_standby_is_refused_without_a_storm_and_the_sweep_works_on",
        "primary::of_several_hosts_the_primary_is_taken",
        "primary::slow::a_standby_is_refused_at_the_start_and_the_primary_is_taken_when_it_is_there",]),
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
        "the daemon warns at 10 % and names the session that holds it up; the application inserts on", "", &[
        "faults::listener::slow::a_notification_queue_that_fills_up_is_warned_about_with_the_session_that_is_the_reason",]),
    fault(12, "Payloads that name no tenant",
        "each is counted or an id, and harms nobody", "", &[
        "events::payloads_that_name_no_tenant_are_counted_and_harm_nobody",
        "security::input::whatever_a_notification_carries_is_an_id_or_is_rejected",]),
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
        "faults::kill_matrix::slow::two_hundred_kills_of_a_daemon_leave_only_work_to_do",
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
        "fewer workers work, the listener keeps its connection; with none left, all wait and go on by themselves", "", &[
        "faults::connections::a_daemon_without_free_connections_waits_calmly_and_goes_on",
        "brake::with_three_connections_fewer_workers_work_and_the_listener_keeps_its_own",]),
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
        "followed within 15 s, the rollout finished; sessions that became read-only are not used again", "", &[
        "faults::connections::slow::a_standby_that_takes_over_in_a_rollout_is_followed_within_fifteen_seconds",
        "primary::sessions_that_became_read_only_are_not_used_again",]),
    fault(25, "The old primary still accepts connections",
        "the promoted one is followed and the old one not taken back", "", &[
        "primary::a_promoted_standby_is_followed_and_the_old_primary_is_not_taken_back",]),
    fault(26, "The new primary lacks the last commits",
        "done again on the new primary: ledger and schema were lost together", "", &[
        "faults::connections::slow::what_a_failover_lost_is_done_again",]),
    fault(27, "Workers behind a transaction pooler",
        "tenants forced onto one connection of pgbouncer's stay apart, also when a file fails", "", &[
        "pooler::tenants_forced_onto_one_backend_stay_apart",
        "pooler::a_file_that_fails_behind_a_pooler_leaves_nothing_for_the_next_tenant",
        "pooler::who_is_in_the_way_is_seen_through_a_pooler",]),
    fault(28, "The disk is full (53100)",
        "the workers wait, one tenant tries, no attempt is counted, work goes on by itself", "", &[
        "faults::connections::slow::a_full_disk_stops_work_and_quarantines_nobody",
        "brake::a_disk_that_is_really_full_stops_the_workers_until_there_is_room",
        "brake::a_full_disk_costs_no_tenant_an_attempt_and_work_goes_on_by_itself",]),
    fault(29, "The server's certificate is wrong, or there is none",
        "refused with the reason, and nothing is said in the clear", "", &[
        "tls::a_server_is_believed_only_as_far_as_its_certificate_goes",
        "tls::a_server_without_tls_hears_nothing_but_the_question",]),
    fault(30, "The password is changed while the daemon runs",
        "new connections read the password file again; a refused one is tried every 20 s", "", &[
        "brake::a_rotated_password_is_read_again_and_a_refused_one_is_not_tried_often",]),
    fault(31, "One shard of three is down",
        "a daemon is not disturbed by the loss of another's server", "one daemon serves one database", &[
        "faults::connections::a_daemon_serves_its_database_while_the_server_of_another_is_down",]),
    fault(32, "The clock jumps",
        "by an hour, forth and back: sweeps neither stop nor race, events work on", "the daemon's clock only: the ledger's times are the database's", &[
        "faults::connections::a_clock_that_jumps_neither_stops_the_sweeps_nor_makes_them_race",]),
    fault(33, "The daemon is killed at each phase",
        "killed at each boundary between two phases, at 200 random moments, and while it fills new schemas, it leaves only work to do", "", &[
        "faults::kill_matrix::eight_kills_of_a_daemon_leave_only_work_to_do",
        "faults::kill_matrix::slow::two_hundred_kills_of_a_daemon_leave_only_work_to_do",
        "faults::execution::slow::a_daemon_killed_at_any_boundary_leaves_only_work_to_do",
        "crash::a_daemon_killed_in_the_middle_of_a_rollout_leaves_only_work_to_do",
        "crash::a_daemon_killed_while_it_fills_new_schemas_leaves_whole_ones_or_none",]),
    fault(34, "A killed daemon's backend works on",
        "the server ends it within its interval of 5 s; until then the next daemon finds the schemas busy, which is no attempt", "", &[
        "faults::kill_matrix::slow::two_hundred_kills_of_a_daemon_leave_only_work_to_do",
        "faults::execution::slow::the_backend_of_a_killed_daemon_is_waited_for_and_ends_within_seconds",]),
    fault(35, "The application holds a lock for long",
        "the tenant is blocked, names who holds the lock, and the others go on; the application never waits longer than the lock timeout", "", &[
        "locks::a_lock_of_the_applications_blocks_the_tenant_alone_and_names_who_holds_it",
        "locks::who_blocks_is_named_although_the_role_may_not_see_since_when",
        "faults::execution::the_application_is_served_all_through_a_rollout",]),
    fault(36, "A statement of ten minutes",
        "cancelled, the tenant quarantined with file and line", "", &[
        "faults::execution::a_statement_that_takes_too_long_is_cancelled_and_its_tenant_quarantined",]),
    fault(37, "A session idle in its transaction",
        "every worker session has a bound of 30 s; a daemon frozen within a transaction loses it, and its lock", "the frozen one with a bound of 300 ms", &[
        "faults::execution::what_a_dead_or_frozen_daemon_leaves_open_the_server_ends_by_itself",]),
    fault(38, "A concurrent index build is killed half-way",
        "its remains are dropped and it is repeated; an invalid index is never taken for the work done", "", &[
        "outside::a_build_that_was_killed_is_repeated_and_its_remains_are_dropped",
        "outside::an_invalid_index_of_that_name_is_never_taken_for_the_work_done",]),
    fault(39, "Concurrent index builds compete",
        "two daemons build for many tenants without a deadlock; a report in the way is named", "", &[
        "outside::two_daemons_build_for_many_tenants_at_once_without_a_deadlock",
        "outside::a_build_that_waits_for_a_long_report_gives_up_names_it_and_leaves_no_invalid_index",]),
    fault(40, "A file that cannot run in a transaction",
        "each statement runs outside and takes effect once; a new enum value is used by the file that adds it", "", &[
        "outside::each_statement_of_a_file_without_a_transaction_takes_effect_once",
        "outside::an_enum_value_is_used_by_the_file_that_adds_it_and_by_later_ones",
        "outside::a_concurrent_build_is_the_same_index_in_old_and_new_tenants_and_counts_once",
        "outside::a_unique_build_that_fails_quarantines_and_leaves_nothing_behind",]),
    fault(41, "A file fails for one tenant",
        "that tenant is quarantined with file and line, the others go on; of 200 tenants two fail, each is tried once", "", &[
        "failures::one_bad_tenant_is_quarantined_with_file_and_line_and_the_others_go_on",
        "commands::a_failing_tenant_costs_the_others_nothing_and_says_what_to_do",
        "faults::execution::slow::a_hundredth_of_poisoned_tenants_costs_the_others_nothing",
        "breaker::one_poison_tenant_in_a_hundred_is_tried_once_and_costs_the_others_nothing",]),
    fault(42, "A file fails for every tenant",
        "five tenants and those in flight are reached, with one daemon and with two", "", &[
        "breaker::a_version_that_fails_everywhere_reaches_five_tenants_and_those_in_flight",
        "breaker::two_daemons_count_together",
        "breaker::a_released_version_is_tried_on_those_who_waited",]),
    fault(43, "The set is edited, shortened, reordered",
        "the set is refused or the tenants are modified; the loaded set stays", "", &[
        "states::a_tenant_whose_applied_file_changed_is_modified",
        "states::a_file_slipped_in_below_an_applied_one_makes_tenants_modified",
        "bad_input::a_directory_that_is_no_migration_set_is_refused",
        "bad_input::a_running_daemon_keeps_its_set_when_the_new_one_is_refused",]),
    fault(44, "An older daemon and a newer ledger",
        "a newer control schema is refused, also while running, with an exit code of its own; tenants ahead are left alone", "", &[
        "bad_input::a_control_schema_that_does_not_fit_is_refused_before_anything_is_done",
        "states::a_tenant_with_versions_the_set_lacks_is_ahead_and_left_alone",
        "daemons::a_daemon_whose_control_schema_was_upgraded_stops_and_says_so_by_its_exit_code",
        "daemons::an_older_daemon_beside_a_newer_one_keeps_off_its_head_until_it_is_the_last",]),
    fault(45, "Deadlocks and other transient errors",
        "tried again, never quarantined", "", &[
        "locks::of_a_deadlock_with_the_application_tenantd_is_the_victim",
        "failures::a_transient_error_is_tried_again_and_never_quarantines",]),
    fault(46, "The lock table is full (53200)",
        "the message names the setting, the workers wait, no attempt is counted", "", &[
        "brake::a_file_too_big_for_the_lock_table_names_the_setting_and_the_daemon_still_ends_at_once",]),
    fault(47, "A schema or a tenant goes away between event and run",
        "dropped, renamed, its tenant deleted, its owner changed: it is not built again and nothing fails; the schema of a deleted tenant stays", "", &[
        "faults::execution::slow::a_schema_that_goes_away_between_event_and_run_is_not_built_again",
        "states::a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again",
        "sweep::the_schema_of_a_deleted_tenant_stays_as_an_orphan",]),
    fault(48, "The ledger was tampered with",
        "a row deleted, a version from the future, a table gone: nothing runs again; `status` names the command, `verify` the table", "", &[
        "faults::execution::a_ledger_that_was_tampered_with_applies_nothing_again_and_is_told_of",
        "verify::every_change_by_hand_is_shown_line_by_line",]),
    fault(49, "A file leaves its tenant",
        "refused at load, or found after it ran", "", &[
        "apply::a_file_that_leaves_its_search_path_or_role_is_refused",
        "apply::a_block_cannot_leave_its_transaction",
        "apply::a_name_that_leads_to_a_shared_object_is_refused_before_it_is_touched",
        "bad_input::a_file_that_would_take_its_guard_apart_is_refused_before_any_tenant_is_touched",]),
    fault(50, "SIGTERM in each phase, twice, and without a server",
        "it ends with 0, idle in 5 s, with a migration under way in 30 s, at the second signal in 1 s", "", &[
        "http::sigterm_ends_an_idle_daemon_with_0_and_signs_it_off",
        "sweep::a_daemon_that_is_told_to_stop_signs_off_and_ends_with_0",
        "stop::an_idle_daemon_in_a_black_hole_ends_within_five_seconds",
        "stop::the_second_signal_ends_it_within_a_second_and_cancels_what_runs",
        "stop::slow::a_long_migration_gets_its_grace_and_is_cancelled_then_without_blame",
        "stop::slow::a_migration_in_a_black_hole_does_not_keep_it_longer_than_thirty_seconds",]),
    fault(51, "Several daemons",
        "each file once for each tenant; a killed leader is followed within 15 s; a key that collides means to wait", "three daemons and a hundred tenants in place of five and 10 000", &[
        "faults::kill_matrix::slow::two_hundred_kills_among_three_daemons_leave_only_work_to_do",
        "crash::two_daemons_apply_each_file_to_each_tenant_once",
        "daemons::three_daemons_bring_a_hundred_tenants_to_head_once_each_and_one_leads",
        "daemons::slow::a_killed_leader_is_followed_within_fifteen_seconds_and_counts_no_longer",
        "daemons::another_key_with_the_same_hash_means_to_wait_and_never_that_it_is_done",]),
    fault(52, "A daemon is frozen while it holds a tenant",
        "another takes over; nothing is applied twice when it wakes", "", &[
        "faults::lifecycle::a_daemon_frozen_while_it_holds_a_tenant_applies_nothing_twice",
        "daemons::a_frozen_daemon_that_holds_a_tenant_repeats_nothing_when_it_thaws",
        "daemons::slow::a_frozen_leader_is_followed_within_fifteen_seconds_and_follows_when_it_thaws",]),
    fault(53, "10 000 and 100 000 tenants",
        "10 000 tenants filled and altered: the daemon stays below 64 MiB, each backend below 16 MiB", "100 000 take longer than a test may; memory does not follow their number, as 10 000 show (a debug build)", &[
        "faults::lifecycle::slow::ten_thousand_tenants_cost_the_daemon_and_its_backends_bounded_memory",]),
    fault(54, "A storm of DDL",
        "three files go over 1 500 tenants: the application has no error and never waits 3 s", "two cores for all say little of a 99th percentile", &[
        "faults::lifecycle::slow::an_application_is_served_while_a_storm_of_ddl_goes_over_its_neighbours",]),
    fault(55, "Hostile names",
        "refused with a reason, or quoted everywhere; names that differ in one letter's case are kept apart", "", &[
        "states::names_that_cannot_be_schemas_are_refused_and_harm_nobody",
        "states::odd_names_that_can_be_schemas_are_schemas",
        "security::input::ten_thousand_hostile_names_come_back_from_the_catalog_as_they_were",]),
    fault(56, "Any role spoofs or floods our channels",
        "a notification costs at most a look, nothing runs, only ids are heard", "", &[
        "faults::lifecycle::a_role_that_spoofs_our_channels_costs_a_look_each_and_hears_only_ids",
        "security::input::whatever_a_notification_carries_is_an_id_or_is_rejected",
        "events::payloads_that_name_no_tenant_are_counted_and_harm_nobody",]),
    fault(57, "A tenant plants code for us to run",
        "functions and operators planted in the schema and in public, by exact types too, never run as the migrator", "what a file itself calls by its plain name is the file's business: `[migrations] role` says as whom", &[
        "faults::lifecycle::what_a_tenants_role_plants_in_its_schema_or_in_public_never_runs_as_the_migrator",
        "security::rights::what_somebody_planted_in_a_tenants_schema_or_in_public_is_not_called",]),
    fault(58, "Slow and hostile HTTP clients",
        "500 slow clients, a head of 1 MB and an idle one are got rid of within 10 s and cost a scrape nothing; only GET and HEAD are answered; the metrics are there while the server is away", "500 connections in place of 10 000 idle ones: the daemon keeps 64", &[
        "http::every_endpoint_answers_with_its_type_and_nothing_else_is_served",
        "http::readiness_follows_the_database_and_liveness_does_not",
        "security::network::five_hundred_slow_clients_a_huge_head_and_idle_ones_cost_a_scrape_nothing",]),
    fault(59, "A panic in a worker, no log, no file descriptors",
        "a worker's panic costs its tenant an attempt; a listener's or sweeper's ends the daemon for its supervisor; a loop that stands still is named by `/livez` and the watchdog is no longer fed; a log that is closed, full or read by nobody, and no descriptors, do no harm", "the test listens in the place of systemd, which would start it anew; a journal that stands still without closing its pipe is left to systemd", &[
        "faults::watchdog::slow::a_loop_that_stands_still_is_named_and_the_watchdog_is_no_longer_fed",
        "faults::lifecycle::a_panic_in_a_worker_costs_its_tenant_an_attempt_and_the_others_nothing",
        "faults::lifecycle::a_daemon_whose_listener_panics_ends_for_the_supervisor_to_start_it_anew",
        "faults::lifecycle::a_daemon_whose_log_nobody_takes_works_on",
        "faults::lifecycle::a_daemon_out_of_file_descriptors_lives_and_answers_when_there_are_some",]),
    fault(60, "Wrong configuration, unreadable secrets",
        "refused with what to do, no secret told", "", &[
        "bad_input::wrong_settings_are_answered_with_what_to_do",
        "passwords::a_password_is_asked_for_and_never_shown",]),
    fault(61, "The application would deadlock with a migration",
        "the migration is the victim, also where the application has waited longer", "", &[
        "locks::of_a_deadlock_with_the_application_tenantd_is_the_victim",
        "locks::of_a_deadlock_that_comes_late_tenantd_is_the_victim_too",]),
    fault(62, "The schema goes away while a file runs",
        "dropped, renamed, USAGE revoked: what the file makes lands neither in public nor in pg_temp; the others go on", "", &[
        "faults::review::what_a_file_makes_after_its_schema_went_away_lands_nowhere",]),
    fault(63, "A file with COMMIT, COPY, an open quote, SET",
        "refused at load with file and line; nothing reaches the next tenant", "", &[
        "bad_input::a_file_that_would_take_its_guard_apart_is_refused_before_any_tenant_is_touched",
        "apply::session_state_that_a_block_leaves_does_not_reach_the_next_tenant",]),
    fault(64, "A file holds a lock for too long",
        "cancelled, quarantined, with the marker to allow it", "", &[
        "locks::a_file_that_holds_a_lock_too_long_is_cancelled_unless_its_marker_allows_it",
        "locks::the_marker_of_one_file_does_not_allow_another_to_hold_on",]),
    fault(65, "An old snapshot in the way of a concurrent index",
        "the build gives up under its own deadline, names the process, leaves no invalid index", "", &[
        "outside::a_build_that_waits_for_a_long_report_gives_up_names_it_and_leaves_no_invalid_index",]),
    fault(66, "Guard and check raced by two daemons",
        "of eight sessions one wins, a hundred times; two daemons apply each file once, whatever isolation the database prefers", "", &[
        "faults::review::of_sessions_that_race_for_the_guard_one_wins_each_round",
        "faults::review::two_daemons_apply_each_file_once_whatever_isolation_the_database_prefers",
        "crash::two_daemons_apply_each_file_to_each_tenant_once",
        "commands::two_commands_migrate_one_tenant_once",]),
    fault(67, "A tenant, a table or the whole server is restored",
        "restored by its stamp, nothing applied until a person says so; a single table is found by `verify`; a copy on another server is left alone", "", &[
        "faults::review::a_tenant_and_a_table_restored_by_pg_restore_are_told_of_and_brought_forward_by_a_person",
        "states::a_schema_whose_stamp_says_otherwise_is_restored",
        "heal::a_schema_restored_from_an_older_backup_is_adopted_and_brought_forward",
        "primary::a_copy_of_the_database_on_another_server_is_left_alone_until_it_is_installed",]),
    fault(68, "All tables of a filled tenant are gone",
        "lost, reported, not filled without a person's word, nor by a login in the middle of `pg_restore --clean`", "", &[
        "faults::review::a_login_in_the_middle_of_pg_restore_clean_fills_nothing",
        "states::a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again",
        "heal::a_lost_tenant_is_built_anew_on_a_persons_word_and_the_remains_are_kept",]),
    fault(69, "Many workers change one shared object",
        "eight workers GRANT on one table: tried again, nobody quarantined", "a shared function is no business of a tenant's file, and replacing one is refused", &[
        "faults::review::slow::eight_workers_that_grant_on_one_shared_table_are_tried_again_and_nobody_is_quarantined",
        "apply::a_file_that_works_outside_its_schema_is_refused_and_leaves_nothing",]),
    fault(70, "Power loss after a rollout",
        "nothing reported as done is missing after an immediate stop; asynchronous commits, if asked for, are lost as a whole", "the kernel's page cache survives: what the server had not written is lost", &[
        "faults::review::what_was_reported_as_done_is_there_after_a_power_loss",
        "faults::review::slow::asynchronous_commits_would_be_lost_and_done_again_as_a_whole",]),
];
