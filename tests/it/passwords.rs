//! A password is asked for where the server wants one, and shown nowhere.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    fs::{self, File},
    process::{Child, Stdio},
};

use crate::support::{
    App,
    more::{Transcript, address, raw},
    postgres::{Options, Server},
    until,
};

const CANARY: &str = "Kanarienvogel";

/// A daemon whose every word is kept; killed on drop.
struct Loud(Child);

impl Drop for Loud {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_password_is_asked_for_and_never_shown() {
    let server = Server::start(Options {
        tcp: true,
        ..Options::default()
    })
    .await
    .unwrap();
    let mut app = App::on_server(&server, "passwords").await;
    let hba = app.ask("SHOW hba_file").await;
    app.sql
        .batch_execute(&format!(
            "CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{CANARY}';
             COPY (VALUES ('local all postgres trust'), ('local all all scram-sha-256'), ('host all all all scram-sha-256')) TO '{hba}';
             SELECT pg_reload_conf()"
        ))
        .await
        .unwrap();
    let trusted = app.db.conninfo.clone();
    let wrong = trusted.replace(
        "user=postgres",
        &format!("user=canary password=not{CANARY}"),
    );
    until("the server to ask for passwords", async || {
        let ran = app.tenantd(&["status", "-d", &wrong]);
        (ran.stderr.contains("password"), ran.stderr)
    })
    .await;
    let mut transcript = Transcript {
        app: &app,
        text: String::new(),
    };
    transcript.add("a wrong password", &["status", "-d", &wrong], &[]);
    let missing = trusted.replace("user=postgres", "user=canary");
    transcript.add("no password", &["status", "-d", &missing], &[]);
    insta::assert_snapshot!("passwords", transcript.text);

    app.db.conninfo = trusted.replace("user=postgres", &format!("user=canary password={CANARY}"));
    app.configure("");
    let mut said = String::new();
    for url in urls(&app, &server) {
        for command in ["install", "status"] {
            for format in ["text", "json"] {
                let format = format!("log.format={format}");
                let arguments = [
                    command,
                    "-d",
                    &url,
                    "--set",
                    "log.level=trace",
                    "--set",
                    &format,
                ];
                said.push_str(&format!("{:?}\n", app.tenantd(&arguments)));
            }
        }
    }
    said.push_str(&wrong_files(&app));
    said.push_str(&watch_a_daemon(&app).await);
    assert!(
        said.contains("installed version 1"),
        "no right setting:\n{said}"
    );
    assert!(
        said.contains("SQLSTATE 28P01"),
        "no wrong password:\n{said}"
    );
    let leak = said.lines().find(|line| line.contains(CANARY));
    assert_eq!(leak, None);
}

/// Right and wrong ways to write the password into a connection string.
fn urls(app: &App, server: &Server) -> Vec<String> {
    let (name, port) = (&app.db.name, server.port());
    let host = format!("127.0.0.1:{port}");
    vec![
        app.db.conninfo.clone(),
        format!("postgres://canary:{CANARY}@{host}/{name}"),
        format!("postgres://canary:not{CANARY}@{host}/{name}"),
        format!("postgres://canary:{CANARY}@127.0.0.1:1/{name}"),
        format!("postgres://canary:{CANARY}@{host}/nowhere"),
        format!("postgres://canary:{CANARY}@{host}/{name}?sslmode={CANARY}"),
        format!("postgres://canary:{CANARY}@{host}/{name}?pasword={CANARY}"),
        format!("postgres://canary:{CANARY}/x@{host}/{name}"),
        format!("postgres://canary:a@{CANARY}@{host}/{name}"),
        format!("postgres://canary:{CANARY}%zz@{host}/{name}"),
        format!("postgres://canary:x:{CANARY}@{host}/{name}"),
        format!("canary:{CANARY}@{host}/{name}"),
        format!("canary:{CANARY}@{host}/{name}?sslmode=disable"),
        format!("host=127.0.0.1 port={port} user=canary password=a {CANARY} dbname={name}"),
        format!("host=127.0.0.1 port={port} user=canary password='{CANARY}"),
        format!("host=127.0.0.1 port={CANARY} user=canary"),
    ]
}

/// Mistakes beside the password in file, environment and flags; what all of them were answered.
fn wrong_files(app: &App) -> String {
    let url = format!("postgres://canary:{CANARY}@localhost/a");
    let mut said = String::new();
    let sound = fs::read_to_string(app.config()).unwrap();
    for line in [
        format!("url = \"{url}"),
        format!("url = {url}"),
        format!("url = [\"{url}\"]"),
        format!("urll = \"{url}\""),
        format!("url = \"{url}\"\nlisten_url = {{ a = \"{url}\" }}"),
        format!("url = \"{url}\"\nworkers = 0\nlisten_url = \"{url}?nonsense=1\""),
    ] {
        fs::write(app.config(), format!("[database]\n{line}\n")).unwrap();
        let ran = app.tenantd(&["status", "--set", "log.level=trace"]);
        assert_eq!(ran.code, 1, "{line}: {ran:?}");
        said.push_str(&format!("{ran:?}\n"));
    }
    fs::write(app.config(), sound).unwrap();
    for (name, value) in [
        ("DATABASE__URL", &url),
        ("DATABASE__ULR", &url),
        ("DATABASE", &url),
    ] {
        let mut command = app.command(&["status"]);
        said.push_str(&format!(
            "{:?}\n",
            command.env(format!("TENANTD_{name}"), value).output()
        ));
    }
    for set in [
        format!("database.ulr={url}"),
        format!("database.url {url}"),
        format!("url={url}"),
    ] {
        let ran = app.tenantd(&["status", "--set", &set]);
        assert_eq!(ran.code, 1, "{set}: {ran:?}");
        said.push_str(&format!("{ran:?}\n"));
    }
    said
}

/// A daemon at the finest log level migrates a tenant; what it logs and serves.
async fn watch_a_daemon(app: &App) -> String {
    let log = app.migrations().join("daemon.log");
    let mut command = app.command(&["run", "--set", "log.level=trace"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let _daemon = Loud(command.stderr(File::create(&log).unwrap()).spawn().unwrap());
    app.tenant(1).await;
    let read = || fs::read_to_string(&log).unwrap();
    until("tenant 1 to be current", async || {
        (app.ask("SELECT tenantd.ready('1')").await == "t", read())
    })
    .await;
    let address = address(&read()).unwrap();
    let mut said = String::new();
    for path in ["/", "/metrics", "/status", "/readyz", "/livez"] {
        said.push_str(&raw(&address, &format!("GET {path}")).await);
    }
    assert!(said.contains("tenantd_tenants{"), "{said}");
    said + &read()
}
