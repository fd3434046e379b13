//! A server in trouble stops the workers, not the tenants.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use crate::{
    faults::recovered,
    support::{
        App, Daemon,
        postgres::{Options, Server},
        until,
    },
};

fn series(reason: &str) -> String {
    format!("tenantd_brake{{database=\"main\",reason=\"{reason}\"}}")
}

async fn pulled(daemon: &Daemon, reason: &str) {
    until(&format!("the brake to be on ({reason})"), async || {
        (daemon.metric(&series(reason)).await == 1.0, daemon.log())
    })
    .await;
}

async fn released(daemon: &Daemon, reason: &str) {
    until(&format!("the brake to be off ({reason})"), async || {
        (daemon.metric(&series(reason)).await == 0.0, daemon.log())
    })
    .await;
}

async fn failures(daemon: &Daemon) -> f64 {
    daemon.reconciles("sweep", "failed").await + daemon.reconciles("retry", "failed").await
}

/// Ends the sessions of tenantd's in this database.
async fn cut(app: &App) {
    app.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tenantd/%' AND datname = current_database()")
        .await;
}

#[tokio::test]
pub(crate) async fn a_full_disk_costs_no_tenant_an_attempt_and_work_goes_on_by_itself() {
    let app = App::current("brake_disk", 12).await;
    app.run("CREATE TABLE public.knob AS SELECT true AS full_disk")
        .await;
    app.migration(
        "0003_knob.sql",
        "DO $$ BEGIN IF (SELECT full_disk FROM public.knob) THEN RAISE 'no space left' USING ERRCODE = '53100'; END IF; END $$;",
    );
    let daemon = app.daemon().await;
    pulled(&daemon, "disk").await;
    until("another tenant to try", async || {
        (failures(&daemon).await >= 3.0, daemon.log())
    })
    .await;
    // Two workers met it, then one tenant tried at a time.
    let tried = failures(&daemon).await;
    assert!(tried <= 5.0, "{tried}:\n{}", daemon.log());
    assert_eq!(
        app.ask("SELECT concat_ws(' ', sum(attempts), count(*) FILTER (WHERE state NOT IN ('behind', 'current'))) FROM tenantd.tenant")
            .await,
        "0 0"
    );
    assert_eq!(
        daemon.log().matches("brake on").count(),
        1,
        "{}",
        daemon.log()
    );
    assert!(daemon.log().contains("make room on the server's disk"));
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("because the server is in trouble"),
        "{ran:?}"
    );

    app.run("UPDATE public.knob SET full_disk = false").await;
    app.all_ready(&daemon, 1..=12).await;
    released(&daemon, "disk").await;
    assert!(daemon.log().contains("brake off after"), "{}", daemon.log());
}

#[tokio::test]
async fn a_disk_that_is_really_full_stops_the_workers_until_there_is_room() {
    let server = Server::with_small_disk().await;
    let app = App::on_server(&server, "brake_disk_real").await;
    app.tenantd(&["install"]).ok();
    app.migration(
        "0003_rows.sql",
        "INSERT INTO items SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i;",
    );
    app.tenant(1).await;
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    let ballast = server.fill();
    // The application's own rows still fit into the page that it has.
    for id in 2..=20 {
        app.tenant(id).await;
    }
    pulled(&daemon, "disk").await;
    assert_eq!(
        daemon.log().matches("brake on").count(),
        1,
        "{}",
        daemon.log()
    );
    drop(ballast);
    app.all_ready(&daemon, 1..=20).await;
    released(&daemon, "disk").await;
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.tenant WHERE attempts > 0 OR state <> 'current'")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_file_too_big_for_the_lock_table_names_the_setting_and_the_daemon_still_ends_at_once() {
    let settings = [
        ("max_locks_per_transaction", "10"),
        ("max_connections", "25"),
    ];
    let server = Server::start(Options {
        settings: settings.map(|(a, b)| (a.into(), b.into())).to_vec(),
        ..Options::default()
    })
    .await
    .unwrap();
    let app = App::on_server(&server, "brake_locks").await;
    app.tenantd(&["install"]).ok();
    let tables: String = (0..2000)
        .map(|number| format!("CREATE TABLE big_{number} ();\n"))
        .collect();
    app.migration("0003_big.sql", &tables);
    app.tenant(1).await;
    let mut daemon = app.daemon().await;
    pulled(&daemon, "memory").await;
    let log = daemon.log();
    assert!(
        log.contains("SQLSTATE 53200") && log.contains("raise max_locks_per_transaction"),
        "{log}"
    );
    assert_eq!(app.state("1").await, "unprovisioned -");
    assert_eq!(
        app.ask("SELECT sum(attempts) FROM tenantd.tenant").await,
        "0"
    );
    let start = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn with_three_connections_fewer_workers_work_and_the_listener_keeps_its_own() {
    let app = App::new("brake_connections").await;
    let role = format!("few_{}", app.db.name);
    app.run(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 3"))
        .await;
    app.tenantd(&["install", "--role", &role]).ok();
    app.connect_as(&role);
    for id in 1..=30 {
        app.silent_tenant(id).await;
    }
    let daemon = app.start_with(&["--set", "database.workers=8"]);
    app.all_ready(&daemon, 1..=30).await;
    until("it to listen", async || {
        let heard = daemon
            .metric("tenantd_listener_connected{database=\"main\"}")
            .await;
        (heard == 1.0, daemon.log())
    })
    .await;
    app.tenant(31).await;
    app.all_ready(&daemon, [31]).await;
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.tenant WHERE attempts > 0 OR state <> 'current'")
            .await,
        "0"
    );

    // Not one: the brake, and it comes back by itself.
    app.run(&format!("ALTER ROLE {role} CONNECTION LIMIT 0"))
        .await;
    cut(&app).await;
    app.tenant(32).await;
    until("the brake to be on", async || {
        let on = daemon.metric(&series("connections")).await
            + daemon.metric(&series("unreachable")).await;
        (on == 1.0, daemon.log())
    })
    .await;
    app.run(&format!("ALTER ROLE {role} CONNECTION LIMIT -1"))
        .await;
    app.all_ready(&daemon, [32]).await;
    released(&daemon, "connections").await;
    drop(daemon);
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_rotated_password_is_read_again_and_a_refused_one_is_not_tried_often() {
    let server = Server::start(Options::default()).await.unwrap();
    let app = App::on_server(&server, "brake_password").await;
    app.run("CREATE ROLE rotated LOGIN PASSWORD 'one'").await;
    app.tenantd(&["install", "--role", "rotated"]).ok();
    let hba = server.socket_dir().join("data/pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all rotated scram-sha-256\n{rules}")).unwrap();
    app.run("SELECT pg_reload_conf()").await;
    let passfile = app.config().with_file_name("pgpass");
    let write = |password: &str| {
        fs::write(&passfile, format!("*:*:*:rotated:{password}\n")).unwrap();
        fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("one");
    app.connect_as("rotated");
    let config = fs::read_to_string(app.config()).unwrap();
    let url = format!("user=rotated passfile={}", passfile.display());
    fs::write(app.config(), config.replace("user=rotated", &url)).unwrap();
    let mut daemon = app.daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;

    write("two");
    app.run("ALTER ROLE rotated PASSWORD 'two'").await;
    cut(&app).await;
    let start = Instant::now();
    app.tenant(2).await;
    app.all_ready(&daemon, [2]).await;
    recovered(start);
    assert!(!daemon.log().contains("28P01"), "{}", daemon.log());

    app.run("ALTER ROLE rotated PASSWORD 'three'").await;
    cut(&app).await;
    app.tenant(3).await;
    pulled(&daemon, "password").await;
    let start = Instant::now();
    until("some time without a storm", async || {
        (start.elapsed().as_secs() >= 4, String::new())
    })
    .await;
    // One connection of the workers, one of the listener.
    let refused = server
        .log()
        .matches("password authentication failed")
        .count();
    assert!((1..=2).contains(&refused), "{refused}:\n{}", daemon.log());
    assert!(daemon.log().contains("check the password in database.url"));
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0);
}
