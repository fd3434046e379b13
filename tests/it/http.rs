//! The endpoints of a running daemon, and what the probes say while the database is away.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use crate::{
    faults::recovered,
    support::{
        App, Daemon,
        more::{address, raw},
        postgres::{Options, Server},
        until,
    },
};

async fn request(daemon: &Daemon, line: &str) -> String {
    raw(&address(&daemon.log()).unwrap(), line).await
}

/// Waits for an answer of `/readyz` with this code; its body.
async fn readyz(daemon: &Daemon, code: u16) -> String {
    let mut body = String::new();
    until(&format!("/readyz to answer {code}"), async || {
        let (now, text) = daemon.get("/readyz").await;
        body.clone_from(&text);
        (now == code, format!("{now} {text}\n{}", daemon.log()))
    })
    .await;
    body
}

#[tokio::test]
async fn every_endpoint_answers_with_its_type_and_nothing_else_is_served() {
    let app = App::new("endpoints").await;
    let daemon = app.daemon().await;
    let json = "application/json";
    for (line, code, kind) in [
        ("GET /", "200 OK", "text/html; charset=utf-8"),
        (
            "GET /metrics",
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "HEAD /metrics",
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        (
            "GET /metrics?x=1",
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
        ),
        ("GET /livez", "200 OK", json),
        ("GET /healthz", "200 OK", json),
        ("GET /-/healthy", "200 OK", json),
        ("GET /readyz", "200 OK", json),
        ("GET /-/ready", "200 OK", json),
        ("GET /status", "200 OK", json),
        ("GET /etc/passwd", "404 Not Found", json),
        ("POST /metrics", "405 Method Not Allowed", json),
        ("DELETE /", "405 Method Not Allowed", json),
        ("TRACE /metrics", "405 Method Not Allowed", json),
    ] {
        let answer = request(&daemon, line).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        let expected = format!("http/1.1 {}\r\n", code.to_ascii_lowercase());
        assert!(head.starts_with(&expected), "{line}: {answer}");
        let types: Vec<_> = head
            .lines()
            .filter_map(|line| line.strip_prefix("content-type: "))
            .collect();
        assert_eq!(types, [kind], "{line}: {answer}");
        assert_eq!(
            head.contains("allow: get, head"),
            code.starts_with("405"),
            "{line}: {answer}"
        );
        assert_eq!(
            body.is_empty(),
            line.starts_with("HEAD"),
            "{line}: {answer}"
        );
    }
}

#[tokio::test]
async fn status_over_http_is_the_report_of_the_command() {
    let app = App::new("http status").await;
    app.tenant(1).await;
    let daemon = app.daemon().await;
    until("both to tell of a current tenant", async || {
        let (_, body) = daemon.get("/status").await;
        let mut over_http: serde_json::Value = serde_json::from_str(&body).unwrap();
        let daemon = over_http.as_object_mut().unwrap().remove("daemon").unwrap();
        assert_eq!(
            (&daemon["leading"], &daemon["listener"]),
            (&true.into(), &"listening".into())
        );
        let ran = app.tenantd(&["status", "--output", "json"]).ok();
        let current = over_http["counts"]["by_state"]["current"] == 1;
        (
            current && over_http == ran.json(),
            format!("{body}\n{}", ran.stdout),
        )
    })
    .await;
}

#[tokio::test]
async fn the_metrics_pass_promtool() {
    let app = App::new("promtool").await;
    app.tenant(1).await;
    app.migration("0003_picky.sql", "ALTER TABLE items ADD CHECK (id > 0);");
    app.tenant(2).await;
    let daemon = app.daemon().await;
    app.login(1).await;
    until("the tenants to be current", async || {
        let count = daemon
            .metric("tenantd_tenants_by_state{database=\"main\",state=\"current\"}")
            .await;
        (count > 1.5, daemon.log())
    })
    .await;
    let (_, text) = daemon.get("/metrics").await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: `make promtool` installs it");
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{said}\n{text}"
    );
}

#[tokio::test]
async fn the_contract_s_series_exist_from_the_start() {
    let app = App::new("series").await;
    let daemon = app.daemon().await;
    let (_, text) = daemon.get("/metrics").await;
    for name in [
        "tenantd_tenants{",
        "tenantd_schemas_existing{",
        "tenantd_schemas_with_tables{",
        "tenantd_schemas_without_tables{",
        "tenantd_tenants_by_state{",
        "tenantd_listener_connected{",
        "tenantd_queue_depth{",
        "tenantd_sweep_last_success_timestamp_seconds{",
        "tenantd_events_total{",
        "tenantd_reconciles_total{",
        "tenantd_migrations_applied_total{",
        "tenantd_listener_reconnects_total{",
        "tenantd_event_to_ready_seconds_count{",
        "tenantd_reconcile_duration_seconds_count{",
        "tenantd_sweep_duration_seconds_count{",
    ] {
        let mut series = text
            .lines()
            .filter(|line| line.starts_with(name))
            .peekable();
        assert!(series.peek().is_some(), "{name} in {text}");
        assert!(
            series.all(|line| line.contains("database=\"main\"")),
            "{name} in {text}"
        );
    }
    assert!(text.contains("\ntenantd_build_info{"), "{text}");
}

#[tokio::test]
async fn readiness_follows_the_database_and_liveness_does_not() {
    let server = Server::start(Options {
        durable: true,
        ..Options::default()
    })
    .await
    .unwrap();
    let app = App::on_server(&server, "database away").await;
    app.tenantd(&["install"]).ok();
    let mut daemon = app.daemon().await;
    server.stop_immediate().await.unwrap();
    let body = readyz(&daemon, 503).await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], "unavailable");
    let reasons = body["reasons"].as_array().unwrap();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.as_str().unwrap().len() > 10),
        "{reasons:?}"
    );
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert_eq!(daemon.get("/metrics").await.0, 200);
    until("the listener's gauge to fall", async || {
        let value = daemon.metric("tenantd_listener_connected").await;
        (value == 0.0, value.to_string())
    })
    .await;
    let (code, body) = daemon.get("/status").await;
    assert!(code == 503 && body.contains("\"error\":"), "{code} {body}");

    server.start_again().await.unwrap();
    readyz(&daemon, 200).await;
    let sql = server.connect(&app.db.name).await;
    sql.execute("INSERT INTO public.tenants (id) VALUES (1)", &[])
        .await
        .unwrap();
    until("tenant 1 to be current", async || {
        let row = sql
            .query_one("SELECT tenantd.ready('1')", &[])
            .await
            .unwrap();
        (row.get(0), daemon.log())
    })
    .await;
    assert_eq!(daemon.metric("tenantd_listener_connected").await, 1.0);
    assert!(daemon.metric("tenantd_listener_reconnects_total").await >= 1.0);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log());
}

#[tokio::test]
async fn a_daemon_that_starts_before_its_database_waits_for_it() {
    let server = Server::start(Options {
        durable: true,
        ..Options::default()
    })
    .await
    .unwrap();
    let app = App::on_server(&server, "database late").await;
    app.tenantd(&["install"]).ok();
    app.tenant(1).await;
    server.stop_immediate().await.unwrap();
    let mut daemon = app.start();
    let reasons = readyz(&daemon, 503).await;
    assert_eq!(daemon.get("/livez").await.0, 200);
    assert_eq!(daemon.get("/status").await.0, 503);
    until("the reason to name the server", async || {
        let (_, body) = daemon.get("/readyz").await;
        (
            body.contains("connect to host="),
            format!("{reasons} {body}"),
        )
    })
    .await;
    server.start_again().await.unwrap();
    let start = Instant::now();
    readyz(&daemon, 200).await;
    let sql = server.connect(&app.db.name).await;
    until("tenant 1 to be current", async || {
        let row = sql
            .query_one("SELECT tenantd.ready('1')", &[])
            .await
            .unwrap();
        (row.get(0), daemon.log())
    })
    .await;
    recovered(start);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log());
}

#[tokio::test]
async fn sigterm_ends_an_idle_daemon_with_0_and_signs_it_off() {
    let app = App::new("sigterm").await;
    let mut daemon = app.daemon().await;
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.instance").await, "1");
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log());
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    let status = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert_eq!(status["daemons"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn sigterm_ends_a_daemon_that_still_waits_for_its_database() {
    let app = App::bare("sigterm early").await;
    let text = std::fs::read_to_string(app.config()).unwrap();
    let text = text.replace(&app.db.conninfo, "host=127.0.0.1 port=1 user=a dbname=a");
    std::fs::write(app.config(), text).unwrap();
    let mut daemon = app.start();
    readyz(&daemon, 503).await;
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0, "{}", daemon.log());
}

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_the_key() {
    let app = App::new("taken address").await;
    let daemon = app.daemon().await;
    let listen = format!("http.listen={}", address(&daemon.log()).unwrap());
    let ran = app.tenantd(&["run", "--set", &listen]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("listen on http.listen = 127.0.0.1:"),
        "{ran:?}"
    );
}
