//! What tenantd says to wrong settings, wrong directories and files that it must not run.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fs;

use crate::support::{
    App,
    more::{Transcript, redact_number},
    until,
};

/// Fault 63: files that would leave their transaction, schema or session. The offence is on line 2.
const OUTLAWS: [(&str, &str); 7] = [
    ("commit", "CREATE TABLE a ();\nCOMMIT;"),
    (
        "search_path",
        "CREATE TABLE a ();\nSET search_path = public; SET search_path = tenant_1;",
    ),
    ("copy", "CREATE TABLE a (id int);\nCOPY a FROM STDIN;"),
    ("unterminated", "CREATE TABLE a ();\nDO $$ BEGIN NULL; END"),
    ("lock_timeout", "CREATE TABLE a ();\nSET lock_timeout = 0;"),
    ("prepare", "CREATE TABLE a ();\nPREPARE p AS SELECT 1;"),
    (
        "advisory_lock",
        "CREATE TABLE a ();\nSELECT pg_advisory_lock(1);",
    ),
];

#[tokio::test]
async fn wrong_settings_are_answered_with_what_to_do() {
    let app = App::new("wrong settings").await;
    let mut transcript = Transcript {
        app: &app,
        text: String::new(),
    };
    let mut say = |title: &str, arguments: &[&str], environment: &[(&str, &str)]| {
        transcript.add(title, arguments, environment);
    };
    say(
        "nobody listens there",
        &["status", "-d", "host=127.0.0.1 port=1 user=a dbname=a"],
        &[],
    );
    say(
        "no such database",
        &[
            "status",
            "-d",
            &app.db.conninfo.replace(&app.db.name, "nowhere"),
        ],
        &[],
    );
    say(
        "no such role",
        &[
            "status",
            "-d",
            &app.db.conninfo.replace("user=postgres", "user=nobody"),
        ],
        &[],
    );
    say(
        "a parameter misspelt",
        &["status", "-d", "host=a usr=b"],
        &[],
    );
    say(
        "no such table",
        &["status", "--set", "registry.table=public.customers"],
        &[],
    );
    say(
        "no such column",
        &["status", "--set", "registry.id_column=uid"],
        &[],
    );
    say(
        "no such name column",
        &["status", "--set", "registry.name_column=title"],
        &[],
    );
    say(
        "a filter that is no SQL",
        &["status", "--set", "registry.filter=id >"],
        &[],
    );
    say(
        "no such login column",
        &["install", "--set", "logins.tenant_column=tenant"],
        &[],
    );
    say(
        "no such directory",
        &["check", "/nonexistent/migrations"],
        &[],
    );
    say(
        "an unknown variable",
        &["status"],
        &[("TENANTD_DATABASE__WORKRES", "3")],
    );
    say(
        "a wrong value in a variable",
        &["status"],
        &[("TENANTD_DATABASE__WORKERS", "many")],
    );
    say(
        "--set without a value",
        &["status", "--set", "database.workers"],
        &[],
    );
    say(
        "--set of an unknown key",
        &["status", "--set", "sweep.intervall=1s"],
        &[],
    );
    say(
        "--set of a wrong value",
        &["status", "--set", "sweep.interval=1 fortnight"],
        &[],
    );
    app.configure("[lokcs]\nlock_timeout = \"1s\"\n[retry]\natempts = 2\ninitial = 3");
    say("a file with three mistakes", &["status"], &[]);
    fs::write(app.config(), "[database\nurl = 1\n").unwrap();
    say("a file that is no TOML", &["status"], &[]);
    fs::remove_file(app.config()).unwrap();
    say("no such file", &["status"], &[]);
    insta::assert_snapshot!("wrong_settings", transcript.text);
}

#[tokio::test]
async fn a_control_schema_that_does_not_fit_is_refused_before_anything_is_done() {
    let app = App::bare("control schema").await;
    app.tenant(1).await;
    let mut transcript = Transcript {
        app: &app,
        text: String::new(),
    };
    for command in ["status", "migrate --all", "fix", "sweep", "run"] {
        let arguments: Vec<_> = command
            .split(' ')
            .chain(["--set", "log.level=error"])
            .collect();
        transcript.add(&format!("not installed: {command}"), &arguments, &[]);
    }
    app.tenantd(&["install"]).ok();
    app.run("DELETE FROM tenantd.control WHERE version > 7")
        .await;
    transcript.add("older: status", &["status"], &[]);
    app.run("INSERT INTO tenantd.control (version, name) VALUES (999, 'future')")
        .await;
    for command in ["status", "run", "install"] {
        let arguments = [command, "--set", "log.level=error"];
        transcript.add(&format!("newer: {command}"), &arguments, &[]);
    }
    insta::assert_snapshot!(
        "control_schema",
        redact_number(
            &redact_number(&transcript.text, "this program knows "),
            "this program needs "
        )
    );
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.applied").await, "0");
}

#[tokio::test]
async fn a_directory_that_is_no_migration_set_is_refused() {
    let app = App::new("wrong directory").await;
    let mut transcript = Transcript {
        app: &app,
        text: String::new(),
    };
    app.migration("0002_again.sql", "CREATE TABLE again ();");
    app.migration("0003_typo.sql", "CREATE TABLE a ();\nCRATE TABLE b ();");
    app.migration("init.sql", "CREATE TABLE c ();");
    app.migration("0004_nothing.sql", "-- later\n");
    transcript.add("files with mistakes", &["check"], &[]);
    transcript.add(
        "the same for a program",
        &["check", "--output", "json"],
        &[],
    );
    transcript.add("the same for other commands", &["status"], &[]);
    let names = [
        "0001_items",
        "0002_notes",
        "0002_again",
        "0003_typo",
        "init",
        "0004_nothing",
    ];
    for name in names {
        app.remove_migration(&format!("{name}.sql"));
    }
    transcript.add("an empty directory", &["check"], &[]);
    transcript.add(
        "an empty directory, run",
        &["run", "--set", "log.level=error"],
        &[],
    );
    insta::assert_snapshot!("wrong_directory", transcript.text);
}

#[tokio::test]
async fn a_file_that_would_take_its_guard_apart_is_refused_before_any_tenant_is_touched() {
    let app = App::new("outlaws").await;
    app.tenant(1).await;
    let mut checked = String::new();
    for (name, sql) in OUTLAWS {
        let file = format!("0003_{name}.sql");
        app.migration(&file, sql);
        let ran = app.tenantd(&["check"]);
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(
            ran.stdout.contains(&format!("{file}:2: error[")),
            "{name}: {ran:?}"
        );
        checked.push_str(&ran.stdout);
        for command in [&["run"][..], &["migrate", "--all"], &["status"]] {
            let ran = app.tenantd(command);
            assert_eq!(ran.code, 1, "{name}, {command:?}: {ran:?}");
            assert!(
                ran.stderr.contains(&format!("{file}:2: error[")),
                "{name}: {ran:?}"
            );
        }
        app.remove_migration(&file);
    }
    insta::assert_snapshot!("outlaws", checked);
    assert_eq!(app.ask("SELECT to_regnamespace('tenant_1')").await, "-");
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.applied").await, "0");
    app.tenantd(&["migrate", "1"]).ok();
}

#[tokio::test]
async fn a_running_daemon_keeps_its_set_when_the_new_one_is_refused() {
    let app = App::new("outlaw reload").await;
    let daemon = app.daemon().await;
    for (name, sql) in OUTLAWS {
        let file = format!("0003_{name}.sql");
        app.migration(&file, sql);
        daemon.signal("HUP");
        until("the daemon to refuse the set", async || {
            (
                daemon.log().contains(&format!("{file}:2: error[")),
                daemon.log(),
            )
        })
        .await;
        app.remove_migration(&file);
    }
    app.tenant(1).await;
    until("tenant 1 to be current", async || {
        (
            app.ask("SELECT tenantd.ready('1')").await == "t",
            daemon.log(),
        )
    })
    .await;
    assert_eq!(app.state("1").await, "current 0002");
}
