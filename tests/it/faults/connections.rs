//! Connections, the server, failover (faults 17 to 32).

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use super::recovered;
use crate::support::{
    App, Daemon, Link, Proxy, app::repository, daemon::HEAD_SWEEPS, database::shared, oracles,
    oracles_but, postgres::Server, server::signal, until,
};

const FAST: &str = "[retry]\ninitial = \"100ms\"\nmax = \"1s\"";

/// A server that is stopped as by a crash then forgets nothing: our throw-away ones commit asynchronously.
const KEEPS: (&str, &str) = ("synchronous_commit", "on");

/// An application on a server, with the tenants 1 to 5 at head and a file that takes a while.
async fn at_work(server: &Server, hint: &str) -> App {
    let app = App::on_server(server, hint).await;
    app.configure(FAST);
    app.tenantd(&["install"]).ok();
    for id in 1..=5 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.counted("0003").await;
    app.migration(
        "0004_slow.sql",
        "CREATE TABLE slow (id bigint); SELECT pg_sleep(0.5);",
    );
    app
}

/// The session of a worker that is in the middle of a file, as seen by one look: a second one may find none.
async fn at_work_pid(app: &App, daemon: &Daemon) -> u32 {
    const SQL: &str = "SELECT min(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'tenantd/work' AND datname = current_database()";
    let mut pid = None;
    until("a file to run", async || {
        pid = app.ask(SQL).await.parse().ok();
        (pid.is_some(), daemon.log())
    })
    .await;
    pid.unwrap()
}

async fn nobody_quarantined(app: &App) {
    let quarantined = "SELECT count(*) FROM tenantd.tenant WHERE state = 'quarantined'";
    assert_eq!(app.ask(quarantined).await, "0");
}

#[tokio::test]
async fn a_worker_killed_in_a_file_takes_the_server_down_and_costs_nobody_more_than_time() {
    // The crash of a server forgets what was committed asynchronously, and the tests' servers do that.
    let server = Server::with(&[("synchronous_commit", "on")]).await;
    let mut app = at_work(&server, "killed_backend").await;
    let daemon = app.start();
    signal(at_work_pid(&app, &daemon).await, "KILL");
    until("the server to end every session", async || {
        (app.sql.is_closed(), server.log())
    })
    .await;
    until("the server to be back", async || {
        match server.try_connect(&app.db.name).await {
            Ok(client) => match client.batch_execute("SELECT 1").await {
                Ok(()) => {
                    app.sql = client;
                    (true, String::new())
                }
                Err(error) => (false, error.to_string()),
            },
            Err(error) => (false, error.to_string()),
        }
    })
    .await;
    let start = Instant::now();
    app.all_ready(&daemon, 1..=5).await;
    nobody_quarantined(&app).await;
    oracles(&app, &daemon).await;
    recovered(start);
}

#[tokio::test]
async fn a_daemon_without_free_connections_waits_calmly_and_goes_on() {
    let server = Server::with(&[("max_connections", "15")]).await;
    let app = App::on_server(&server, "no_connections").await;
    app.configure(FAST);
    app.tenantd(&["install"]).ok();
    let daemon = app.daemon().await;
    let listener = app.listener_pid().await;
    app.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantd/work'")
        .await;
    let mut hogs = Vec::new();
    until("no connection to be left", async || {
        while let Ok(client) = server.try_connect("postgres").await {
            hogs.push(client);
        }
        let ours = app
            .ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantd/work'")
            .await;
        if ours != "0" {
            app.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantd/work'")
                .await;
        }
        (ours == "0", ours)
    })
    .await;
    app.tenant(1).await;
    until("it to be refused a few times", async || {
        (daemon.log().matches("53300").count() >= 3, daemon.log())
    })
    .await;
    assert_eq!(
        app.listener_pid().await,
        listener,
        "it keeps its connection"
    );
    let start = Instant::now();
    drop(hogs);
    app.all_ready(&daemon, [1]).await;
    recovered(start);
    nobody_quarantined(&app).await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn an_idle_connection_that_leads_nowhere_is_replaced_within_five_seconds() {
    let app = App::new("stale").await;
    app.configure(FAST);
    let proxy = Proxy::to(shared().await.port());
    app.lead(Some(&proxy), None);
    app.configure_in(
        "database",
        &format!("listen_url = \"{}\"", app.through(shared().await.port())),
    );
    let daemon = app.quiet_daemon().await;
    // All at rest for longer than a connection is trusted.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    proxy.set_open(Link::Stall);
    let start = Instant::now();
    for id in 1..=5 {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, 1..=5).await;
    assert!(start.elapsed() < Duration::from_secs(7), "{}", daemon.log());
    recovered(start);
    let troubled = "SELECT count(*) FROM tenantd.tenant WHERE attempts > 0";
    assert_eq!(app.ask(troubled).await, "0", "that is no failure of theirs");
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_run_that_breaks_within_its_transaction_leaves_its_connection_to_nobody() {
    let app = App::current("broken_run", 4).await;
    app.configure(FAST);
    app.migration("0003_clash.sql", "CREATE TABLE clash (id bigint);");
    app.run("CREATE TABLE tenant_1.clash (id bigint)").await;
    let daemon = app.start_at("reconcile.failed=panic@1");
    until("it to break", async || {
        (
            daemon.log().contains("failpoint reconcile.failed"),
            daemon.log(),
        )
    })
    .await;
    let start = Instant::now();
    app.answers(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction (aborted)' AND datname = current_database()",
        "0",
    )
    .await;
    app.all_ready(&daemon, 2..=4).await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    recovered(start);
    assert!(!daemon.log().contains("25P02"), "{}", daemon.log());
    oracles_but(&app, &daemon, &["1"]).await;
}

#[tokio::test]
async fn a_daemon_serves_its_database_while_the_server_of_another_is_down() {
    let server = Server::with(&[KEEPS]).await;
    let mut down = App::on_server(&server, "shard_down").await;
    down.configure(FAST);
    down.tenantd(&["install"]).ok();
    let up = App::new("shard_up").await;
    let (other, daemon) = (down.daemon().await, up.quiet_daemon().await);
    server.stop_immediate().await.unwrap();
    for id in 1..=5 {
        up.tenant(id).await;
    }
    up.all_ready(&daemon, 1..=5).await;
    server.start_again().await.unwrap();
    let start = Instant::now();
    down.sql = server.connect(&down.db.name).await;
    down.tenant(1).await;
    down.all_ready(&other, [1]).await;
    recovered(start);
    oracles(&up, &daemon).await;
    oracles(&down, &other).await;
}

#[tokio::test]
async fn a_clock_that_jumps_neither_stops_the_sweeps_nor_makes_them_race() {
    let app = App::new("clock").await;
    let (clock, library) = (app.dir().join("clock"), app.dir().join("clock.so"));
    let source = repository("tests/it/support/clock.c");
    let mut compiler = Command::new("cc");
    let built = compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    assert!(built.unwrap().success());
    let jump = |seconds: i64| fs::write(&clock, seconds.to_string()).unwrap();
    jump(0);
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("TENANTD_CLOCK", clock.to_str().unwrap()),
    ];
    let daemon = app.spawn_daemon(&["--set", "sweep.interval=200ms"], &environment);
    let (mut id, start) = (0, Instant::now());
    for seconds in [0, 3600, -3600, 0] {
        jump(seconds);
        let jumped = Instant::now();
        id += 1;
        app.tenant(id).await;
        app.silent_tenant(id + 100).await;
        app.all_ready(&daemon, [id, id + 100]).await;
        recovered(jumped);
        let swept = daemon
            .metric("tenantd_sweep_last_success_timestamp_seconds")
            .await;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        until("the clock to have jumped", async || {
            let swept = daemon
                .metric("tenantd_sweep_last_success_timestamp_seconds")
                .await;
            (
                (swept - now - seconds as f64).abs() < 60.0,
                format!("{swept} at {now}"),
            )
        })
        .await;
        assert!(swept > 0.0);
    }
    let allowed = start.elapsed().as_secs_f64() / 0.2 + 10.0;
    let swept = daemon.metric(HEAD_SWEEPS).await;
    assert!(swept <= allowed, "{swept} sweeps, {allowed} expected");
    oracles(&app, &daemon).await;
}

/// Stops a server for good and makes its standby the one that all connections lead to.
async fn fail_over(app: &mut App, proxy: &Proxy, primary: &Server, standby: &Server) {
    primary.stop_immediate().await.unwrap();
    standby.promote().await;
    proxy.lead_to(standby.port());
    app.db.conninfo = standby.conninfo(&app.db.name);
    app.sql = standby.connect(&app.db.name).await;
}

/// Waits until a standby has this version as the released head.
async fn replicated(app: &App, standby: &Server, version: &str) {
    let client = standby.connect(&app.db.name).await;
    until("the standby to follow", async || {
        let rows = client
            .query("SELECT version FROM tenantd.head", &[])
            .await
            .unwrap();
        (
            rows.iter().any(|row| row.get::<_, &str>(0) == version),
            format!("{rows:?}"),
        )
    })
    .await;
}

/// Several servers, or waits of seconds.
mod slow {
    use super::*;

    #[tokio::test]
    async fn a_standby_that_takes_over_in_a_rollout_is_followed_within_fifteen_seconds() {
        let primary = Server::with(&[KEEPS]).await;
        let mut app = at_work(&primary, "failover").await;
        let standby = primary.standby().await;
        let proxy = Proxy::to(primary.port());
        app.lead(Some(&proxy), None);
        let daemon = app.start();
        at_work_pid(&app, &daemon).await;
        replicated(&app, &standby, "0004").await;
        fail_over(&mut app, &proxy, &primary, &standby).await;
        let start = Instant::now();
        app.all_ready(&daemon, 1..=5).await;
        app.tenant(6).await;
        app.all_ready(&daemon, [6]).await;
        assert!(
            start.elapsed() < Duration::from_secs(15),
            "{}",
            daemon.log()
        );
        recovered(start);
        nobody_quarantined(&app).await;
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn what_a_failover_lost_is_done_again() {
        let primary = Server::with(&[KEEPS]).await;
        let mut app = at_work(&primary, "lost_commits").await;
        let standby = primary.standby().await;
        let proxy = Proxy::to(primary.port());
        app.lead(Some(&proxy), None);
        app.tenantd(&["migrate", "1"]).ok();
        replicated(&app, &standby, "0004").await;
        // From here on nothing reaches the standby.
        let client = standby.connect("postgres").await;
        client
            .batch_execute("ALTER SYSTEM SET primary_conninfo = ''")
            .await
            .unwrap();
        client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        until("replication to end", async || {
            let left = app.ask("SELECT count(*) FROM pg_stat_replication").await;
            (left == "0", left)
        })
        .await;
        let daemon = app.start();
        app.all_ready(&daemon, 1..=5).await;
        fail_over(&mut app, &proxy, &primary, &standby).await;
        let start = Instant::now();
        let lost = app
            .ask("SELECT count(*) FROM public.ran WHERE file = '0003'")
            .await;
        assert_eq!(lost, "1", "the rest was lost");
        app.all_ready(&daemon, 1..=5).await;
        recovered(start);
        nobody_quarantined(&app).await;
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_full_disk_stops_work_and_quarantines_nobody() {
        // However long the disk takes to fill: a file that needs room waits for the application to say that it is full.
        const FULL: &str = "SELECT pg_advisory_lock(28)";
        let server = Server::with_small_disk().await;
        let app = at_work(&server, "full_disk").await;
        app.migration(
            "0005_rows.sql",
            "DO $$ BEGIN
                 WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = 28) LOOP
                     PERFORM pg_sleep(0.02);
                 END LOOP;
             END $$;
             INSERT INTO items SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i;",
        );
        let daemon = app.start();
        at_work_pid(&app, &daemon).await;
        let ballast = server.fill();
        app.run(FULL).await;
        until("the disk to be full for it", async || {
            (daemon.log().contains("53100"), daemon.log())
        })
        .await;
        nobody_quarantined(&app).await;
        drop(ballast);
        let start = Instant::now();
        app.all_ready(&daemon, 1..=5).await;
        recovered(start);
        nobody_quarantined(&app).await;
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_server_that_is_away_for_a_while_finds_the_daemon_alive_and_its_work_waiting() {
        let server = Server::with(&[KEEPS]).await;
        let mut app = at_work(&server, "away").await;
        let daemon = app.start();
        at_work_pid(&app, &daemon).await;
        server.stop_immediate().await.unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            assert_eq!(daemon.get("/livez").await.0, 200, "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(daemon.get("/readyz").await.0, 503);
        server.start_again().await.unwrap();
        let start = Instant::now();
        app.sql = server.connect(&app.db.name).await;
        app.all_ready(&daemon, 1..=5).await;
        recovered(start);
        nobody_quarantined(&app).await;
        oracles(&app, &daemon).await;
    }

    #[tokio::test]
    async fn a_handshake_that_hangs_is_given_up_after_five_seconds() {
        let app = App::new("handshake").await;
        app.configure(FAST);
        let proxy = Proxy::to(shared().await.port());
        app.lead(Some(&proxy), None);
        proxy.set_new(Link::Stall);
        let (start, daemon) = (Instant::now(), app.start());
        until("it to give up", async || {
            let (code, body) = daemon.get("/readyz").await;
            (code == 503 && body.contains("no connection within"), body)
        })
        .await;
        assert!(start.elapsed() < Duration::from_secs(7), "{}", daemon.log());
        proxy.set_new(Link::Pass);
        let start = Instant::now();
        app.tenant(1).await;
        app.all_ready(&daemon, [1]).await;
        // The same for a running one, whose connections are gone.
        proxy.set_new(Link::Stall);
        proxy.set_open(Link::Cut);
        app.tenant(2).await;
        until("it to give up again", async || {
            let (code, body) = daemon.get("/readyz").await;
            (code == 503 && body.contains("no connection within"), body)
        })
        .await;
        proxy.set(Link::Pass);
        app.all_ready(&daemon, [2]).await;
        recovered(start);
        nobody_quarantined(&app).await;
        oracles(&app, &daemon).await;
    }
}
