//! Files and locks (faults 33 to 49).

use std::time::{Duration, Instant};

use tenantd::failpoint::POINTS;

use super::recovered;
use crate::support::{
    App, Daemon, Probe, nothing_left, oracles, oracles_but, server::freeze, until,
};

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

/// Waits until the log holds this text so often.
async fn logged(daemon: &Daemon, text: &str, times: usize) {
    until(text, async || {
        (daemon.log().matches(text).count() >= times, daemon.log())
    })
    .await;
}

#[tokio::test]
pub(crate) async fn what_a_dead_or_frozen_daemon_leaves_open_the_server_ends_by_itself() {
    let app = App::current("in_force", 1).await;
    app.run("CREATE TABLE public.force (name text, setting text, unit text)")
        .await;
    app.migration(
        "0003_force.sql",
        "DO $$ BEGIN INSERT INTO public.force SELECT name, setting, unit FROM pg_settings
             WHERE name IN ('client_connection_check_interval', 'idle_in_transaction_session_timeout'); END $$;",
    );
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    let force = "SELECT string_agg(setting || unit, ' ' ORDER BY name) FROM public.force";
    assert_eq!(app.ask(force).await, "5000ms 30000ms");
    drop(daemon);
    // One that is frozen between two statements of a transaction, with a lock that it got meanwhile.
    app.configure_in(
        "database",
        "session_settings = { idle_in_transaction_session_timeout = \"300ms\" }",
    );
    let table = "LOCK TABLE tenantd.migration IN SHARE ROW EXCLUSIVE MODE";
    let other = app.db.connect().await;
    other
        .batch_execute(&format!("BEGIN; {table}"))
        .await
        .unwrap();
    let daemon = app.start();
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                 WHERE NOT l.granted AND a.application_name LIKE 'tenantd/%' AND a.datname = current_database()";
    app.answers(waits, "1").await;
    let frozen = freeze(daemon.pid());
    other.batch_execute("COMMIT").await.unwrap();
    let start = Instant::now();
    app.run(&format!("BEGIN; {table}; COMMIT")).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    drop(frozen);
    // Its start broke, and is made again.
    until("the daemon to be ready", async || {
        (daemon.get("/readyz").await.0 == 200, daemon.log())
    })
    .await;
    oracles(&app, &daemon).await;
    recovered(start);
}

#[tokio::test]
async fn a_ledger_that_was_tampered_with_applies_nothing_again_and_is_told_of() {
    let app = App::new("tampered").await;
    app.counted("0003").await;
    for id in 1..=5 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.run(&format!(
        "DELETE FROM tenantd.applied WHERE version = '0003' AND tenant = (SELECT id FROM tenantd.tenant WHERE tenant_id = '1');
         UPDATE tenantd.tenant SET version = '9999', digest = '{}' WHERE tenant_id = '2';
         DELETE FROM tenantd.applied WHERE tenant = (SELECT id FROM tenantd.tenant WHERE tenant_id = '3');
         DELETE FROM tenantd.tenant WHERE tenant_id = '3';
         DROP TABLE tenant_4.notes",
        "f".repeat(32)
    ))
    .await;
    let daemon = app.daemon().await;
    let start = Instant::now();
    app.becomes(&daemon, "1", "current 0003").await;
    app.becomes(&daemon, "2", "restored 9999").await;
    app.becomes(&daemon, "3", "restored -").await;
    app.becomes(&daemon, "4", "current 0003").await;
    app.login(2).await;
    app.run("NOTIFY tenantd_wake, '3'").await;
    until("it to be left alone", async || {
        let left = daemon.reconciles("manual", "left_alone").await;
        (left == 1.0, daemon.log())
    })
    .await;
    assert_eq!(
        app.ask("SELECT count(*) FROM public.ran").await,
        "5",
        "nothing ran again"
    );
    // Told of: by status with the next command, by verify with the line that is missing.
    let status = app.tenantd(&["status", "--check"]);
    assert_eq!(status.code, 3, "{status:?}");
    for command in ["tenantd adopt 2", "tenantd adopt 3"] {
        assert!(status.stdout.contains(command), "{}", status.stdout);
    }
    let verify = app.tenantd(&["verify", "--all"]);
    assert_eq!(verify.code, 3, "{verify:?}");
    assert!(
        verify.stdout.contains("schema tenant_4 differs")
            && verify.stdout.contains("- table notes")
            && !verify.stdout.contains("schema tenant_5 differs"),
        "{}",
        verify.stdout
    );
    app.run("CREATE TABLE tenant_4.notes (id bigint PRIMARY KEY, body text)")
        .await;
    app.tenantd(&["adopt", "2", "3"]).ok();
    app.run(
        "INSERT INTO tenantd.applied (tenant, version, checksum, ordinal, duration_ms, instance)
         SELECT t.id, m.version, m.checksum, m.ordinal, 0, 'by hand' FROM tenantd.tenant t, tenantd.migration m
         WHERE t.tenant_id = '1' AND m.version = '0003'",
    )
    .await;
    oracles(&app, &daemon).await;
    recovered(start);
}

mod slow {
    use super::*;

    const SLEEPS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";

    #[tokio::test]
    async fn a_daemon_killed_at_any_boundary_leaves_only_work_to_do() {
        let app = App::current("boundaries", 3).await;
        app.configure(FAST);
        for (number, (point, _)) in POINTS.iter().enumerate() {
            let version = format!("{:04}", number * 2 + 3);
            app.counted(&version).await;
            let change = match point.starts_with("outside.") {
                true => format!("CREATE INDEX CONCURRENTLY c{version} ON items (label);"),
                false => format!("ALTER TABLE items ADD COLUMN c{version} int;"),
            };
            app.migration(&format!("{:04}_change.sql", number * 2 + 4), &change);
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
    async fn the_backend_of_a_killed_daemon_is_waited_for_and_ends_within_seconds() {
        let app = App::current("orphan", 2).await;
        app.run("CREATE TABLE public.ran (file text, schema text); CREATE TABLE public.slow AS SELECT 1")
            .await;
        app.migration(
            "0003_long.sql",
            "DO $$ BEGIN INSERT INTO public.ran VALUES ('0003', current_schema());
                 PERFORM pg_sleep(60) FROM public.slow; END $$;\nCREATE TABLE long (id bigint);",
        );
        let mut killed = app.start();
        app.answers(SLEEPS, "2").await;
        killed.signal("KILL");
        killed.ended().await;
        let start = Instant::now();
        app.run("DELETE FROM public.slow").await;
        let daemon = app.daemon().await;
        until("it to find the schemas busy", async || {
            let busy = daemon.reconciles("sweep", "busy").await;
            (busy >= 1.0, daemon.log())
        })
        .await;
        assert_eq!(app.ask(SLEEPS).await, "2", "nobody ended them");
        app.all_ready(&daemon, [1, 2]).await;
        assert!(start.elapsed() < Duration::from_secs(8), "{}", daemon.log());
        recovered(start);
        oracles(&app, &daemon).await;
        let failed = app.ask("SELECT count(*) FROM tenantd.tenant WHERE attempts > 0");
        assert_eq!(failed.await, "0", "to wait is no attempt");
    }

    #[tokio::test]
    async fn a_hundredth_of_poisoned_tenants_costs_the_others_nothing() {
        let app = App::new("poison").await;
        app.run(
            "INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series(1, 200) n",
        )
        .await;
        app.tenantd(&["migrate", "--all"]).ok();
        app.run("INSERT INTO tenant_67.items VALUES (1, 'a'), (2, 'a'); INSERT INTO tenant_133.items VALUES (1, 'a'), (2, 'a')")
            .await;
        app.migration("0003_unique.sql", "CREATE UNIQUE INDEX ON items (label);");
        let start = Instant::now();
        let daemon = app.daemon().await;
        oracles_but(&app, &daemon, &["67", "133"]).await;
        recovered(start);
        let attempts = "SELECT string_agg(tenant_id || ':' || attempts, ' ' ORDER BY id) FROM tenantd.tenant WHERE attempts > 0";
        let attempts = app.ask(attempts).await;
        assert!(
            ["67:1 133:1", "133:1 67:1"].contains(&attempts.as_str()),
            "each is tried once, nobody else twice: {attempts}"
        );
        assert_eq!(daemon.reconciles("sweep", "quarantined").await, 2.0);
    }

    #[tokio::test]
    async fn a_schema_that_goes_away_between_event_and_run_is_not_built_again() {
        let app = App::current("away", 4).await;
        // A marker: it is not shared, so each of them is planned for alone.
        app.migration(
            "0003_note.sql",
            "-- tenantd: max_hold=2s\nALTER TABLE items ADD COLUMN note text;",
        );
        app.run("CREATE ROLE away_owner; GRANT away_owner TO postgres")
            .await;
        let daemon = app.spawn_daemon(
            &["--set", "database.workers=5"],
            &[("TENANTD_FAILPOINTS", "reconcile.planned=sleep:2s")],
        );
        logged(&daemon, "sleeps at reconcile.planned", 4).await;
        app.run(
            "ALTER SCHEMA tenant_1 RENAME TO moved; DROP SCHEMA tenant_2 CASCADE;
             DELETE FROM public.tenants WHERE id = 3; ALTER SCHEMA tenant_4 OWNER TO away_owner",
        )
        .await;
        let start = Instant::now();
        app.becomes(&daemon, "1", "lost 0002").await;
        app.becomes(&daemon, "2", "lost 0002").await;
        app.all_ready(&daemon, [4]).await;
        app.answers(
            "SELECT state FROM tenantd.tenant WHERE tenant_id = '3'",
            "orphan",
        )
        .await;
        assert_eq!(
            app.ask("SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname ~ 'tenant_|moved'")
                .await,
            "moved tenant_3 tenant_4"
        );
        let failed = app.ask("SELECT count(*) FROM tenantd.tenant WHERE attempts > 0");
        assert_eq!(failed.await, "0", "nothing failed");
        // A person puts it right.
        app.run("ALTER SCHEMA moved RENAME TO tenant_1; DROP SCHEMA tenant_3 CASCADE; ALTER SCHEMA tenant_4 OWNER TO postgres; DROP ROLE away_owner")
            .await;
        app.tenantd(&["fix", "2", "--rebuild"]).ok();
        oracles(&app, &daemon).await;
        recovered(start);
    }
}
