//! Files that cannot run in one transaction: concurrent index builds, VACUUM, enum values used at once.

#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::time::Instant;

use crate::{
    faults::recovered,
    support::{App, more::finish, until},
};

const BUILD: &str = "CREATE INDEX CONCURRENTLY items_label ON items (label);";
const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
const BUILT: &str = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                     WHERE c.relname = 'items_label' AND i.indisvalid";

/// A transaction of the application's that keeps its snapshot until it is ended.
async fn report(app: &App, sql: &str) -> tokio_postgres::Client {
    let client = app.db.connect().await;
    client
        .batch_execute(&format!(
            "SET application_name = 'report'; BEGIN ISOLATION LEVEL REPEATABLE READ; {sql}"
        ))
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn a_concurrent_build_is_the_same_index_in_old_and_new_tenants_and_counts_once() {
    let app = App::current("outside", 2).await;
    app.migration("0003_label.sql", BUILD);
    app.migration("0004_vacuum.sql", "VACUUM (ANALYZE) items;");
    app.tenantd(&["migrate", "--all"]).ok();
    app.tenant(3).await;
    app.tenantd(&["migrate", "--all"]).ok();
    assert_eq!(app.ask(BUILT).await, "3");
    assert_eq!(app.state("1").await, "current 0004");
    assert_eq!(app.state("3").await, "current 0004");
    let indexes = "SELECT count(DISTINCT replace(indexdef, schemaname, '')) FROM pg_indexes WHERE indexname = 'items_label'";
    assert_eq!(app.ask(indexes).await, "1");
    let rows = "SELECT count(*) || ' ' || count(*) FILTER (WHERE duration_ms > 0) FROM tenantd.applied WHERE version = '0003'";
    assert_eq!(app.ask(rows).await, "3 3");
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.outside").await, "0");
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    assert_eq!(app.ask(locks).await, "0");
}

#[tokio::test]
async fn a_build_that_waits_for_a_long_report_gives_up_names_it_and_leaves_no_invalid_index() {
    let app = App::current("outside", 1).await;
    let report = report(&app, "SELECT count(*) FROM public.tenants").await;
    app.migration(
        "0003_label.sql",
        &format!("-- tenantd: statement_timeout=700ms\n{BUILD}"),
    );
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    let error = app.error("1");
    assert_eq!(app.state("1").await, "blocked 0002", "{error}");
    assert!(
        error.contains("0003_label.sql:2")
            && error.contains("waited for process")
            && error.contains("(report"),
        "{error}"
    );
    assert_eq!(app.ask(INVALID).await, "0");
    app.tenantd(&["migrate", "1"]);
    let attempts = app.ask("SELECT attempts FROM tenantd.tenant").await;
    assert_eq!(attempts, "2", "the pauses grow with them");
    report.batch_execute("COMMIT").await.unwrap();
    let start = Instant::now();
    app.tenantd(&["migrate", "1"]).ok();
    recovered(start);
    assert_eq!(app.ask(BUILT).await, "1");
}

#[tokio::test]
async fn a_build_that_was_killed_is_repeated_and_its_remains_are_dropped() {
    let app = App::current("outside", 1).await;
    let report = report(&app, "SELECT count(*) FROM public.tenants").await;
    app.migration("0003_label.sql", BUILD);
    let daemon = app.daemon().await;
    until("the build to wait for the report", async || {
        (app.ask(INVALID).await == "1", daemon.log())
    })
    .await;
    daemon.signal("KILL");
    app.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND datname = current_database()",
    )
    .await;
    until("the build to be gone", async || {
        let left =
            "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()";
        (app.ask(left).await == "0", String::new())
    })
    .await;
    assert_eq!(app.ask(INVALID).await, "1", "the killed build left it");
    report.batch_execute("COMMIT").await.unwrap();
    let start = Instant::now();
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    recovered(start);
    assert_eq!(app.ask(BUILT).await, "1");
    assert_eq!(app.ask(INVALID).await, "0");
}

#[tokio::test]
pub(crate) async fn the_remains_of_a_reindex_are_dropped_with_those_of_the_toast_table() {
    let app = App::current("outside", 1).await;
    let report = report(&app, "SELECT count(*) FROM public.tenants").await;
    app.migration("0003_again.sql", "REINDEX TABLE CONCURRENTLY items;");
    let daemon = app.daemon().await;
    app.answers(INVALID, "2").await;
    daemon.signal("KILL");
    app.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND datname = current_database()",
    )
    .await;
    assert_eq!(app.ask(INVALID).await, "2", "the killed one left them");
    report.batch_execute("COMMIT").await.unwrap();
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    assert_eq!(app.ask(INVALID).await, "0");
}

#[tokio::test]
async fn an_invalid_index_of_that_name_is_never_taken_for_the_work_done() {
    let app = App::current("outside", 1).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'x'), (2, 'x')")
        .await;
    let by_hand = app
        .sql
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY items_label ON tenant_1.items (label)");
    assert!(by_hand.await.is_err());
    assert_eq!(app.ask(INVALID).await, "1");
    app.migration(
        "0003_label.sql",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS items_label ON items (label);",
    );
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(app.ask(BUILT).await, "1");
    assert_eq!(app.ask(INVALID).await, "0");
}

#[tokio::test]
pub(crate) async fn an_index_that_breaks_under_somebody_elses_hands_is_built_anew() {
    const WAITS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                         WHERE NOT l.granted AND a.query LIKE 'CREATE%CONCURRENTLY%' AND a.datname = current_database()";
    let app = App::current("outside", 1).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'x'), (2, 'x')")
        .await;
    let writer = app.db.connect().await;
    writer
        .batch_execute("BEGIN; INSERT INTO tenant_1.items VALUES (3, 'y')")
        .await
        .unwrap();
    let by_hand = app.db.connect().await;
    let by_hand = tokio::spawn(async move {
        let build = "CREATE UNIQUE INDEX CONCURRENTLY items_label ON tenant_1.items (label)";
        by_hand.batch_execute(build).await
    });
    app.answers(WAITS, "1").await;
    app.migration(
        "0003_label.sql",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS items_label ON items (label);",
    );
    let daemon = app.daemon().await;
    // Ours waits for the other, which breaks: the name is taken, by an index that is good for nothing.
    app.answers(WAITS, "2").await;
    writer.batch_execute("ROLLBACK").await.unwrap();
    assert!(by_hand.await.unwrap().is_err());
    until("it to notice", async || {
        let stale = daemon.reconciles("sweep", "busy").await;
        (stale >= 1.0, daemon.log())
    })
    .await;
    app.becomes(&daemon, "1", "current 0003").await;
    assert_eq!(app.ask(BUILT).await, "1");
    assert_eq!(app.ask(INVALID).await, "0");
}

#[tokio::test]
pub(crate) async fn a_build_that_ended_as_its_daemon_died_is_not_repeated() {
    let app = App::current("outside", 1).await;
    app.migration("0003_label.sql", BUILD);
    app.start_at("outside.ended=abort").ended().await;
    assert_eq!(app.ask(BUILT).await, "1");
    let oid = app
        .ask("SELECT 'tenant_1.items_label'::regclass::oid")
        .await;
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    assert_eq!(
        app.ask("SELECT 'tenant_1.items_label'::regclass::oid")
            .await,
        oid
    );
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.outside").await, "0");
}

#[tokio::test]
async fn a_unique_build_that_fails_quarantines_and_leaves_nothing_behind() {
    let app = App::current("outside", 2).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'x'), (2, 'x')")
        .await;
    app.migration(
        "0003_label.sql",
        "CREATE UNIQUE INDEX CONCURRENTLY items_label ON items (label);",
    );
    // That it had to wait is no excuse.
    let writer = report(&app, "DELETE FROM tenant_1.items WHERE id = 99").await;
    let migrating = app.spawn(&["migrate", "--all"]);
    let waits = "SELECT (count(*) > 0)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE UNIQUE%'
                 AND datname = current_database()";
    app.answers(waits, "1").await;
    writer
        .batch_execute("SELECT pg_sleep(0.4); COMMIT")
        .await
        .unwrap();
    assert_eq!(finish(migrating).await.code, 4);
    assert_eq!(app.state("1").await, "quarantined 0002");
    assert_eq!(app.state("2").await, "current 0003");
    assert!(
        app.error("1").contains("0003_label.sql:1"),
        "{}",
        app.error("1")
    );
    assert_eq!(app.ask(INVALID).await, "0");
    app.run("DELETE FROM tenant_1.items WHERE id = 2").await;
    app.tenantd(&["fix", "1"]).ok();
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(app.ask(BUILT).await, "2");
}

#[tokio::test]
pub(crate) async fn each_statement_of_a_file_without_a_transaction_takes_effect_once() {
    let app = App::current("outside", 1).await;
    let file = |last: &str| {
        format!(
            "-- tenantd: transaction=none\nINSERT INTO items VALUES (1, 'once');\n\n{BUILD}\n{last}"
        )
    };
    app.migration("0003_steps.sql", &file("INSERT INTO nowhere VALUES (1);"));
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    assert_eq!(app.state("1").await, "quarantined 0002");
    assert!(
        app.error("1").contains("0003_steps.sql:5"),
        "{}",
        app.error("1")
    );
    // What is done cannot be rewritten; what is left can.
    app.migration(
        "0003_steps.sql",
        "-- tenantd: transaction=none\nINSERT INTO items VALUES (2, 'twice');\nSELECT 1;",
    );
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    let error = app.error("1");
    assert!(
        error.contains("TD004") && error.contains("2 of them are done"),
        "{error}"
    );
    app.migration(
        "0003_steps.sql",
        &file("INSERT INTO notes VALUES (1, 'end');"),
    );
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(app.ask("SELECT count(*) FROM tenant_1.items").await, "1");
    assert_eq!(app.ask("SELECT count(*) FROM tenant_1.notes").await, "1");
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.outside").await, "0");
}

#[tokio::test]
async fn an_enum_value_is_used_by_the_file_that_adds_it_and_by_later_ones() {
    let app = App::new("outside").await;
    app.migration(
        "0003_mood.sql",
        "CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE items ADD COLUMN mood mood;",
    );
    app.migration(
        "0004_sad.sql",
        "ALTER TYPE mood ADD VALUE 'sad'; ALTER TABLE items ALTER COLUMN mood SET DEFAULT 'sad';",
    );
    app.migration("0005_glad.sql", "ALTER TYPE mood ADD VALUE 'glad';");
    app.migration("0006_use.sql", "INSERT INTO items VALUES (1, 'a', 'glad');");
    app.tenant(1).await;
    app.tenantd(&["migrate", "--all"]).ok();
    assert_eq!(app.state("1").await, "current 0006");
    app.migration(
        "0007_mad.sql",
        "ALTER TYPE mood ADD VALUE 'mad'; INSERT INTO items VALUES (2, 'b', 'mad');",
    );
    app.tenant(2).await;
    app.tenantd(&["migrate", "--all"]).ok();
    let rows = "SELECT string_agg(mood::text, ',' ORDER BY id) FROM tenant_1.items";
    assert_eq!(app.ask(rows).await, "glad,mad");
    assert_eq!(app.ask(&rows.replace("_1", "_2")).await, "glad,mad");
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.applied").await, "14");
}

#[tokio::test]
async fn two_daemons_build_for_many_tenants_at_once_without_a_deadlock() {
    let app = App::current("outside", 24).await;
    app.migration(
        "0003_label.sql",
        &format!("{BUILD}\nCREATE INDEX CONCURRENTLY items_lower ON items (lower(label));"),
    );
    let arguments = ["--set", "database.workers=8"];
    let (one, _two) = (app.start_with(&arguments), app.start_with(&arguments));
    let applied = "SELECT count(*) FROM tenantd.applied WHERE version = '0003'";
    until("all to be built", async || {
        (app.ask(applied).await == "24", one.log())
    })
    .await;
    assert_eq!(app.ask(BUILT).await, "24");
    assert_eq!(app.ask(INVALID).await, "0");
    let twice = "SELECT count(*) FROM (SELECT FROM tenantd.applied GROUP BY tenant, version HAVING count(*) > 1) t";
    assert_eq!(app.ask(twice).await, "0");
}

#[tokio::test]
async fn an_index_that_was_there_before_is_never_taken_for_the_work_done() {
    let app = App::current("outside", 1).await;
    app.run("CREATE INDEX items_label ON tenant_1.items (id)")
        .await;
    app.migration("0003_label.sql", BUILD);
    for _ in 0..2 {
        assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
        assert_eq!(app.state("1").await, "quarantined 0002");
        app.tenantd(&["fix", "1"]);
    }
    assert!(app.error("1").contains("42P07"), "{}", app.error("1"));
    app.run("DROP INDEX tenant_1.items_label").await;
    app.tenantd(&["fix", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
}

#[tokio::test]
async fn an_index_on_a_shared_table_is_told_of_and_not_built() {
    let app = App::current("outside", 1).await;
    app.run("CREATE TABLE public.shared (label text)").await;
    app.migration(
        "0003_label.sql",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS shared_label ON shared (label);",
    );
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    assert_eq!(app.state("1").await, "quarantined 0002");
    let error = app.error("1");
    assert!(error.contains("would change public.shared"), "{error}");
    let built = "SELECT count(*) FROM pg_class WHERE relname = 'shared_label'";
    assert_eq!(app.ask(built).await, "0");
}
