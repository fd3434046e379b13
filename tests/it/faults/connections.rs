//! Connections, the server, failover (faults 17 to 32).

use std::time::{Duration, Instant};

use super::recovered;
use crate::support::{
    App, Daemon, Link, Proxy, database::shared, oracles, postgres::Server, server::signal, until,
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

/// The session of a worker that is in the middle of a file.
async fn at_work_pid(app: &App, daemon: &Daemon) -> u32 {
    const SQL: &str = "SELECT min(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'tenantd/work' AND datname = current_database()";
    until("a file to run", async || {
        (app.ask(SQL).await != "-", daemon.log())
    })
    .await;
    app.ask(SQL).await.parse().unwrap()
}

async fn nobody_quarantined(app: &App) {
    let quarantined = "SELECT count(*) FROM tenantd.tenant WHERE state = 'quarantined'";
    assert_eq!(app.ask(quarantined).await, "0");
}

#[tokio::test]
async fn a_worker_killed_in_a_file_takes_the_server_down_and_costs_nobody_more_than_time() {
    let server = Server::with(&[]).await;
    let mut app = at_work(&server, "killed_backend").await;
    let daemon = app.start();
    signal(at_work_pid(&app, &daemon).await, "KILL");
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
    crate::support::oracles_but(&app, &daemon, &["1"]).await;
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
