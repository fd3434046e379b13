//! The listener and its notifications (faults 1 to 16).

use std::time::{Duration, Instant};

use super::recovered;
use crate::support::{
    App, Daemon, Link, Proxy, database::shared, oracles, postgres::Server, server::freeze, until,
    until_within,
};

/// Waits until the daemon has listened anew this often.
async fn reconnected(daemon: &Daemon, times: f64) {
    until("it to listen again", async || {
        let again = daemon.metric("tenantd_listener_reconnects_total").await >= times;
        (again && listens(daemon).await, daemon.log())
    })
    .await;
}

async fn listens(daemon: &Daemon) -> bool {
    daemon.metric("tenantd_listener_connected").await == 1.0
}

/// Resident memory of a process, in MiB: now, or at its highest.
fn memory(pid: u32, which: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}

#[tokio::test]
async fn a_listener_whose_backend_is_terminated_listens_again_within_two_seconds() {
    let app = App::new("terminated").await;
    let daemon = app.quiet_daemon().await;
    let (start, pid) = (Instant::now(), app.listener_pid().await);
    app.run(&format!("SELECT pg_terminate_backend({pid})"))
        .await;
    app.tenant(1).await;
    reconnected(&daemon, 1.0).await;
    app.all_ready(&daemon, [1]).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{}", daemon.log());
    recovered(start);
    oracles(&app, &daemon).await;
}

#[tokio::test]
pub(crate) async fn tenants_inserted_while_the_listener_is_cut_off_are_found_when_it_returns() {
    let app = App::new("cut_off").await;
    let proxy = Proxy::to(shared().await.port());
    app.lead(None, Some(&proxy));
    let daemon = app.quiet_daemon().await;
    proxy.set(Link::Cut);
    until("it to notice", async || {
        (
            daemon.metric("tenantd_listener_connected").await == 0.0,
            daemon.log(),
        )
    })
    .await;
    for id in 1..=20 {
        app.tenant(id).await;
    }
    proxy.set(Link::Pass);
    let start = Instant::now();
    app.all_ready(&daemon, 1..=20).await;
    recovered(start);
    assert!(start.elapsed() < Duration::from_secs(2), "{}", daemon.log());
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_listen_that_the_server_refuses_is_tried_again_and_named_while_the_sweep_works_on() {
    let app = App::new("refused").await;
    let proxy = Proxy::to(shared().await.port());
    app.lead(None, Some(&proxy));
    proxy.set_new(Link::Refuse("LISTEN", "58P01"));
    let daemon = app.start();
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    until("the SQLSTATE to be named", async || {
        let (code, body) = daemon.get("/readyz").await;
        (
            code == 503 && body.contains("58P01"),
            format!("{code} {body}"),
        )
    })
    .await;
    let start = Instant::now();
    proxy.set(Link::Pass);
    until("it to listen", async || {
        (listens(&daemon).await, daemon.log())
    })
    .await;
    recovered(start);
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn ten_thousand_wakeups_of_a_busy_tenant_are_one_more_look() {
    let app = App::current("busy", 2).await;
    app.migration(
        "0003_slow.sql",
        "CREATE TABLE slow (id bigint); SELECT pg_sleep(2) WHERE current_schema() = 'tenant_1';",
    );
    let daemon = app.quiet_daemon().await;
    app.answers(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        "1",
    )
    .await;
    app.run(
        "DO $$ BEGIN FOR n IN 1..10000 LOOP PERFORM pg_notify('tenantd_wake', '1'); COMMIT; END LOOP; END $$",
    )
    .await;
    // Another tenant is not kept waiting.
    assert_eq!(
        app.ask("SELECT tenantd.ready('1')").await,
        "f",
        "it is busy"
    );
    app.tenant(3).await;
    app.all_ready(&daemon, [2, 3]).await;
    assert_eq!(
        app.ask("SELECT tenantd.ready('1')").await,
        "f",
        "it is busy"
    );
    app.all_ready(&daemon, [1]).await;
    until("one more look", async || {
        (
            daemon.reconciles("manual", "current").await >= 1.0,
            daemon.log(),
        )
    })
    .await;
    oracles(&app, &daemon).await;
    assert_eq!(daemon.reconciles("manual", "current").await, 1.0);
}

#[tokio::test]
async fn a_tenant_with_a_name_longer_than_a_notification_is_inserted_and_built() {
    let app = App::new("long_name").await;
    let daemon = app.quiet_daemon().await;
    app.run("INSERT INTO public.tenants (id, name) VALUES (1, repeat('n', 10240))")
        .await;
    app.all_ready(&daemon, [1]).await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_sweep_finds_the_tenants_of_a_trigger_that_is_disabled_or_gone() {
    let app = App::new("no_trigger").await;
    let daemon = app.daemon().await;
    app.run("ALTER TABLE public.tenants DISABLE TRIGGER tenantd_inserted")
        .await;
    app.tenant(1).await;
    app.run("DROP TRIGGER tenantd_inserted ON public.tenants")
        .await;
    app.tenant(2).await;
    app.silent_tenant(3).await;
    let start = Instant::now();
    app.all_ready(&daemon, 1..=3).await;
    recovered(start);
    assert_eq!(daemon.events("tenant_inserted", "queued").await, 0.0);
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn an_event_that_comes_before_its_row_is_no_failure() {
    let app = App::new("early").await;
    let daemon = app.quiet_daemon().await;
    let other = app.db.connect().await;
    other
        .batch_execute("BEGIN; INSERT INTO public.tenants (id) VALUES (1)")
        .await
        .unwrap();
    app.run("NOTIFY tenant_inserted, '1'").await;
    until("it to be looked up", async || {
        (
            daemon.reconciles("insert", "gone").await == 1.0,
            daemon.log(),
        )
    })
    .await;
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.tenant").await, "0");
    other.batch_execute("COMMIT").await.unwrap();
    app.all_ready(&daemon, [1]).await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn prepared_transactions_insert_tenants_only_without_the_triggers_and_a_sweep_finds_them() {
    let server = Server::with(&[("max_prepared_transactions", "5")]).await;
    let app = App::on_server(&server, "prepared").await;
    app.tenantd(&["install"]).ok();
    let daemon = app.daemon().await;
    let insert = "BEGIN; INSERT INTO public.tenants (id) VALUES (1); PREPARE TRANSACTION 'one'";
    let error = app.sql.batch_execute(insert).await.unwrap_err();
    let refused = error.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "0A000", "{refused}");
    app.tenantd(&["uninstall"]).ok();
    app.run(insert).await;
    app.run("COMMIT PREPARED 'one'").await;
    app.all_ready(&daemon, [1]).await;
    oracles(&app, &daemon).await;
}

/// Most wait for the pulse: 5.5 s of silence, 4 s for an answer.
pub(crate) mod slow {
    use super::*;

    /// A listener whose connection breaks in this way is replaced within 10 s, and nobody is lost.
    async fn is_replaced(hint: &str, link: Link) {
        let app = App::new(hint).await;
        let proxy = Proxy::to(shared().await.port());
        app.lead(None, Some(&proxy));
        let daemon = app.quiet_daemon().await;
        let start = Instant::now();
        proxy.set_open(link);
        app.tenant(1).await;
        reconnected(&daemon, 1.0).await;
        app.all_ready(&daemon, [1]).await;
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{}",
            daemon.log()
        );
        recovered(start);
        proxy.set_open(Link::Pass);
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_listener_in_a_black_hole_is_replaced_within_ten_seconds() {
        is_replaced("black_hole", Link::Stall).await;
    }

    #[tokio::test]
    async fn a_half_open_listener_is_replaced_within_ten_seconds() {
        is_replaced("half_open", Link::HalfOpen).await;
    }

    #[tokio::test]
    pub(crate) async fn a_deaf_listener_is_replaced_within_ten_seconds() {
        is_replaced("deaf", Link::Deaf).await;
    }

    #[tokio::test]
    async fn a_frozen_backend_is_left_within_ten_seconds_and_its_thaw_leaves_one_listener() {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "frozen").await;
        app.tenantd(&["install"]).ok();
        let daemon = app.quiet_daemon().await;
        let (start, frozen) = (Instant::now(), freeze(app.listener_pid().await));
        app.tenant(1).await;
        reconnected(&daemon, 1.0).await;
        app.all_ready(&daemon, [1]).await;
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{}",
            daemon.log()
        );
        recovered(start);
        drop(frozen);
        oracles(&app, &daemon).await;
        assert_eq!(
            daemon.metric("tenantd_listener_reconnects_total").await,
            1.0
        );
    }

    #[tokio::test]
    async fn a_daemon_that_stands_still_never_hinders_the_application_and_drains_the_queue_afterwards()
     {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "still").await;
        app.tenantd(&["install"]).ok();
        let daemon = app.quiet_daemon().await;
        let frozen = freeze(daemon.pid());
        let long = "7".repeat(7000);
        for round in 0..10_i64 {
            app.run(&format!(
                "SELECT pg_notify('dashboard_login', '{long}' || n) FROM generate_series(1, 1000) n"
            ))
            .await;
            app.tenant(round).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let stuck =
            "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'tenantd/listen'";
        assert_eq!(app.ask(stuck).await, "ClientWrite");
        drop(frozen);
        let start = Instant::now();
        app.all_ready(&daemon, 0..=9).await;
        oracles(&app, &daemon).await;
        recovered(start);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            daemon.log()
        );
    }

    #[tokio::test]
    async fn a_standby_is_refused_without_a_storm_and_the_sweep_works_on() {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "standby").await;
        app.tenantd(&["install"]).ok();
        let standby = server.standby().await;
        let proxy = Proxy::to(standby.port());
        app.lead(None, Some(&proxy));
        let daemon = app.start();
        app.tenant(1).await;
        app.all_ready(&daemon, [1]).await;
        until("some attempts", async || {
            (
                daemon.log().matches("not listening").count() >= 4,
                daemon.log(),
            )
        })
        .await;
        assert!(daemon.log().contains("recovery"), "{}", daemon.log());
        let start = Instant::now();
        proxy.lead_to(server.port());
        until("it to listen", async || {
            (listens(&daemon).await, daemon.log())
        })
        .await;
        recovered(start);
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_hundred_thousand_notifications_cost_little_memory_and_nobody_is_lost() {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "flood").await;
        app.tenantd(&["install"]).ok();
        app.tenant(1).await;
        let daemon = app.quiet_daemon().await;
        app.all_ready(&daemon, [1]).await;
        let before = memory(daemon.pid(), "VmRSS");
        let flood = "SELECT pg_notify('dashboard_login', n::text) FROM generate_series";
        app.run(&format!("{flood}(1000, 101000) n")).await;
        for hundred in 0..100 {
            let from = 200_000 + hundred * 1000;
            app.run(&format!("{flood}({from}, {from} + 999) n")).await;
        }
        let start = Instant::now();
        app.silent_tenant(2).await;
        app.tenant(3).await;
        // Whoever found the queue full comes after those in it.
        until_within(
            Duration::from_secs(300),
            "the flood to be over",
            async || {
                let left = app
                    .ask("SELECT count(*) FROM public.tenants WHERE NOT tenantd.ready(id::text)")
                    .await;
                let depth = daemon.metric("tenantd_queue_depth").await;
                (
                    left == "0",
                    format!("{left} are not ready, {depth} in the queue"),
                )
            },
        )
        .await;
        recovered(start);
        let peak = memory(daemon.pid(), "VmHWM");
        assert!(peak - before < 64.0, "{before} MiB, then {peak} MiB");
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_notification_queue_that_fills_up_is_warned_about_with_the_session_that_is_the_reason()
     {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "queue").await;
        app.tenantd(&["install"]).ok();
        let daemon = app.daemon().await;
        let culprit = app.db.connect().await;
        culprit.batch_execute("LISTEN anything").await.unwrap();
        culprit.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let pid: i32 = culprit
            .query_one("SELECT pg_backend_pid()", &[])
            .await
            .unwrap()
            .get(0);
        // A tenth of the queue, which holds 8 GB.
        for _ in 0..12 {
            app.run("SELECT pg_notify('nobody', n || repeat('x', 7900)) FROM generate_series(1, 10000) n")
                .await;
        }
        until("it to warn", async || {
            let log = daemon.log();
            (
                log.contains("the notification queue of the server is 1")
                    && log.contains(&pid.to_string()),
                log,
            )
        })
        .await;
        app.tenant(1).await;
        app.all_ready(&daemon, [1]).await;
        let start = Instant::now();
        culprit.batch_execute("COMMIT").await.unwrap();
        drop(culprit);
        oracles(&app, &daemon).await;
        recovered(start);
    }
}
