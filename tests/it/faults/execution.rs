//! Files and locks (faults 33 to 49).

use std::time::{Duration, Instant};

use tenantd::failpoint::POINTS;

use super::recovered;
use crate::support::{App, Probe, nothing_left, oracles, until};

const FAST: &str = "[retry]\ninitial = \"100ms\"\nmax = \"300ms\"";

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled_and_its_tenant_quarantined() {
    let app = App::current("long_statement", 1).await;
    app.configure("[locks]\nstatement_timeout = \"300ms\"");
    app.migration("0003_long.sql", "SELECT 1;\nSELECT pg_sleep(600);");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let error = app.error("1");
    assert!(
        error.contains("0003_long.sql:2") && error.contains("57014"),
        "{error}"
    );
}

#[tokio::test]
async fn every_session_of_ours_is_ended_by_the_server_when_it_idles_in_a_transaction() {
    let app = App::current("idle", 1).await;
    app.migration(
        "0003_shows.sql",
        "CREATE TABLE shown AS SELECT current_setting('idle_in_transaction_session_timeout') AS idle, \
         current_setting('client_connection_check_interval') AS gone;",
    );
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    let shown = app
        .ask("SELECT concat_ws(' ', idle, gone) FROM tenant_1.shown")
        .await;
    assert_eq!(shown, "30s 5s");
}

#[tokio::test]
async fn the_application_is_served_all_through_a_rollout() {
    let app = App::current("served", 3).await;
    app.configure(FAST);
    let probe = Probe::start(&app, "tenant_1");
    for version in ["0003", "0004", "0005"] {
        let sql =
            format!("ALTER TABLE items ADD COLUMN c{version} int; CREATE INDEX ON notes (body);");
        app.migration(&format!("{version}_more.sql"), &sql);
    }
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=3).await;
    // lock_timeout and a little.
    probe.was_served(Duration::from_millis(1200));
    oracles(&app, &daemon).await;
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn a_daemon_killed_at_any_boundary_leaves_only_work_to_do() {
        let app = App::current("boundaries", 3).await;
        app.configure(FAST);
        for (number, (point, _)) in POINTS.iter().enumerate() {
            let version = format!("{:04}", number * 2 + 3);
            app.counted(&version).await;
            app.migration(
                &format!("{:04}_alter.sql", number * 2 + 4),
                &format!("ALTER TABLE items ADD COLUMN c{version} int;"),
            );
            // What follows a failure is passed only after one.
            let holder = app.db.connect().await;
            if [
                "reconcile.failed",
                "reconcile.rolled-back",
                "reconcile.recorded",
            ]
            .contains(point)
            {
                let sql = "BEGIN; SELECT count(*) FROM tenant_1.items";
                holder.batch_execute(sql).await.unwrap();
            }
            let mut killed = app.start_at(&format!("{point}=abort"));
            if point.starts_with("stop.") {
                until("it to be ready", async || {
                    (killed.get("/readyz").await.0 == 200, killed.log())
                })
                .await;
                killed.signal("TERM");
            }
            assert_eq!(killed.ended().await, -1, "{point}: {}", killed.log());
            drop(holder);
            let start = Instant::now();
            let mut daemon = app.daemon().await;
            oracles(&app, &daemon).await;
            recovered(start);
            daemon.signal("TERM");
            assert_eq!(daemon.ended().await, 0);
            nothing_left(&app).await;
        }
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_running_ends_within_seconds_and_is_done_again() {
        let app = App::current("orphan", 1).await;
        app.configure(FAST);
        app.counted("0003").await;
        app.migration(
            "0004_long.sql",
            "CREATE TABLE long (id bigint); SELECT pg_sleep(25);",
        );
        let mut daemon = app.start();
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        app.answers(sleeps, "1").await;
        daemon.signal("KILL");
        daemon.ended().await;
        let start = Instant::now();
        app.migration("0004_long.sql", "CREATE TABLE long (id bigint);");
        let daemon = app.daemon().await;
        app.all_ready(&daemon, [1]).await;
        assert!(start.elapsed() < Duration::from_secs(8), "{}", daemon.log());
        recovered(start);
        oracles(&app, &daemon).await;
    }
}
