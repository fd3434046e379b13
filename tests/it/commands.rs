//! What people and scripts read: help texts, `status`, `migrate`, and the exit codes.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use serde_json::Value;

use crate::support::{
    App,
    more::{finish, program},
    until,
};

/// Fails where an item has a negative id.
const PICKY: &str = "ALTER TABLE items ADD CONSTRAINT positive CHECK (id > 0);";

#[test]
fn the_help_of_the_program_and_of_each_command_stays_as_reviewed() {
    let help = |arguments: &[&str]| {
        let output = program().args(arguments).arg("--help").output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = help(&[]);
    let commands = first.split_once("Commands:\n").unwrap().1;
    let commands = commands.split_once("\n\n").unwrap().0.lines();
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut text = first.clone();
    for name in names.filter(|name| !["", "help"].contains(name)) {
        text.push_str(&format!(
            "\n===== tenantd {name} --help\n\n{}",
            help(&[name])
        ));
    }
    insta::assert_snapshot!("help", text.replace(env!("CARGO_PKG_VERSION"), "<version>"));
    let version = program().arg("--version").output().unwrap();
    let expected = format!("tenantd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

/// 1 current, 2 quarantined, 3 behind, 4 untracked, 5 without a schema, 6 with an empty one.
async fn mixed_fleet(hint: &str) -> App {
    let app = App::new(hint).await;
    for id in 1..=6 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "1", "2", "3"]).ok();
    app.sql
        .batch_execute(
            "INSERT INTO tenant_2.items (id) VALUES (-1);
             CREATE SCHEMA tenant_4; CREATE TABLE tenant_4.others (); CREATE SCHEMA tenant_6",
        )
        .await
        .unwrap();
    app.migration("0003_picky.sql", PICKY);
    assert_eq!(app.tenantd(&["migrate", "1", "2"]).code, 4);
    app
}

/// What was migrated so far counts as done before the rollout, so that no rate is told.
async fn at_rest(app: &App) {
    app.run("UPDATE tenantd.head SET released_at = now()").await;
}

#[tokio::test]
async fn status_tells_people_the_numbers_and_who_needs_them() {
    let app = mixed_fleet("status table").await;
    at_rest(&app).await;
    let mut text = app.tenantd(&["status"]).ok().stdout;
    text.push_str("\n===== --all\n");
    text.push_str(&app.tenantd(&["status", "--all"]).ok().stdout);
    text.push_str("\n===== 2 tenant_5\n");
    text.push_str(&app.tenantd(&["status", "2", "tenant_5"]).ok().stdout);
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("status_table", app.redact(&lines.join("\n")));
}

#[tokio::test]
async fn status_as_json_is_what_the_contract_says() {
    let app = mixed_fleet("status json").await;
    at_rest(&app).await;
    let status = app.tenantd(&["status", "--all", "--output", "json"]).ok();
    insta::assert_snapshot!("status_json", app.redact(&status.stdout));
    let status = status.json();
    assert!(status["schema_version"].is_u64());
    let counts = &status["counts"];
    let count = |name: &str| counts[name].as_i64().unwrap();
    assert_eq!((count("tenants"), count("schemas_existing")), (6, 5));
    assert_eq!(count("schemas_with_tables"), 4);
    assert_eq!(count("schemas_without_tables"), 1);
    let by_state = counts["by_state"].as_object().unwrap();
    assert_eq!(by_state.values().filter_map(Value::as_i64).sum::<i64>(), 6);
    let keys = [
        "id", "name", "schema", "state", "version", "pending", "error", "next",
    ];
    for tenant in status["tenants"].as_array().unwrap() {
        for key in keys {
            assert!(tenant.get(key).is_some(), "{key} in {tenant}");
        }
    }
    let few = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert!(few.get("tenants").is_none(), "nobody asked for them");
}

#[tokio::test]
async fn status_names_the_daemons_that_run() {
    let app = App::new("status daemons").await;
    let daemon = app.daemon().await;
    let status = app.tenantd(&["status", "--output", "json"]).ok().json();
    let daemons = status["daemons"].as_array().unwrap();
    assert_eq!(daemons.len(), 1);
    let expected = format!("(process {})", daemon.pid());
    assert!(
        daemons[0].as_str().unwrap().ends_with(&expected),
        "{daemons:?}"
    );
    assert!(app.tenantd(&["status"]).ok().stdout.contains(&expected));
}

#[tokio::test]
async fn exit_codes_tell_done_wrong_usage_not_current_and_some_failed() {
    let app = mixed_fleet("exit codes").await;
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["status", "1", "--check"], 0),
        (&["status", "--check"], 3),
        (&["status", "2", "--check"], 3),
        (&["status", "5", "--wait", "1ms"], 3),
        (&["status", "--nonsense"], 2),
        (&["status", "1", "--all"], 2),
        (&["migrate"], 2),
        (&["nonsense"], 2),
        (&["fix", "--rebuild"], 1),
        (&["migrate", "99"], 1),
        (&["migrate", "1", "2"], 4),
        (&["migrate", "1", "5"], 0),
    ] {
        let ran = app.tenantd(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
}

#[tokio::test]
async fn status_wait_returns_when_the_tenant_is_current() {
    let app = App::new("status wait").await;
    app.tenant(7).await;
    let mut waiting = app.spawn(&["status", "7", "--wait", "--output", "json"]);
    until("the command to look for the first time", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'tenantd%'";
        let seen = app.ask(sql).await;
        (seen != "0", seen)
    })
    .await;
    assert!(waiting.try_wait().unwrap().is_none(), "it did not wait");
    let _daemon = app.daemon().await;
    let ran = finish(waiting).await.ok();
    assert_eq!(ran.json()["tenants"][0]["state"], "current");
}

#[tokio::test]
async fn migrate_takes_ids_and_schemas_and_reports_each() {
    let app = App::new("migrate names").await;
    for id in 1..=3 {
        app.tenant(id).await;
    }
    let ran = app
        .tenantd(&["migrate", "1", "tenant_2", "--output", "json"])
        .ok();
    let lines = ran.json();
    let lines = lines.as_array().unwrap();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!(line["outcome"], "applied", "{line}");
        assert_eq!(
            (&line["version"], &line["files"]),
            (&"0002".into(), &2.into())
        );
    }
    for (id, state) in [
        ("1", "current 0002"),
        ("2", "current 0002"),
        ("3", "unprovisioned -"),
    ] {
        assert_eq!(app.state(id).await, state);
    }
    let again = app.tenantd(&["migrate", "tenant_1"]).ok().stdout;
    assert!(again.contains("1 of 1 tenants are at head"), "{again}");
}

#[tokio::test]
async fn a_dry_run_groups_tenants_by_their_pending_work_and_changes_nothing() {
    let app = mixed_fleet("dry run").await;
    let look = async || {
        let ledger = app
            .ask("SELECT string_agg(t::text, ';' ORDER BY id) FROM tenantd.tenant t")
            .await;
        let sql = "SELECT string_agg(relnamespace::regnamespace || '.' || relname, ';' ORDER BY oid) FROM pg_class WHERE oid > 16384";
        (ledger, app.ask(sql).await)
    };
    let before = look().await;
    let table = app.tenantd(&["migrate", "--all", "--dry-run"]).ok().stdout;
    insta::assert_snapshot!("dry_run", table);
    let groups = app
        .tenantd(&[
            "migrate",
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "--dry-run",
            "--output",
            "json",
        ])
        .ok()
        .json();
    let groups = groups.as_array().unwrap();
    let of = |schema: &str| {
        let mut all = groups.iter();
        all.find(|group| {
            group["schemas"]
                .as_array()
                .unwrap()
                .contains(&schema.into())
        })
        .unwrap()
    };
    assert_eq!(
        of("tenant_3")["files"],
        serde_json::json!(["0003_picky.sql"])
    );
    assert_eq!(of("tenant_5")["files"].as_array().unwrap().len(), 3);
    assert_eq!(of("tenant_5")["create_schema"], true);
    assert_eq!(of("tenant_6")["create_schema"], false);
    assert_eq!(
        of("tenant_1"),
        of("tenant_4"),
        "at head, or not ours to touch"
    );
    assert_eq!(look().await, before);
}

#[tokio::test]
async fn migrate_all_brings_whoever_may_be_touched_to_head() {
    let app = mixed_fleet("migrate all").await;
    let ran = app.tenantd(&["migrate", "--all"]).ok();
    assert!(ran.stdout.contains("3 of 3 tenants are at head"), "{ran:?}");
    for (id, state) in [
        ("1", "current 0003"),
        ("2", "quarantined 0002"),
        ("3", "current 0003"),
        ("4", "untracked -"),
        ("5", "current 0003"),
        ("6", "current 0003"),
    ] {
        assert_eq!(app.state(id).await, state, "tenant {id}");
    }
    let ran = app.tenantd(&["migrate", "--all"]).ok();
    assert!(ran.stdout.contains("0 of 0"), "{ran:?}");
}

#[tokio::test]
async fn a_failing_tenant_costs_the_others_nothing_and_says_what_to_do() {
    let app = mixed_fleet("some failed").await;
    let again = app.tenantd(&["migrate", "2", "3", "5"]);
    assert_eq!(again.code, 4, "{again:?}");
    for expected in ["2 of 3 tenants are at head", "run `tenantd fix 2`"] {
        assert!(again.stdout.contains(expected), "{again:?}");
    }
    let fix = app.tenantd(&["fix", "2"]);
    assert_eq!(fix.code, 4, "{fix:?}");
    for expected in [
        "2 (tenant_2): quarantined at 0002",
        "0003_picky.sql:1",
        "(SQLSTATE 23514)",
    ] {
        assert!(fix.stdout.contains(expected), "{expected} in {fix:?}");
    }
    app.sql
        .batch_execute("DELETE FROM tenant_2.items")
        .await
        .unwrap();
    app.tenantd(&["fix", "2"]).ok();
    assert_eq!(app.state("2").await, "current 0003");
}

#[tokio::test]
async fn migrate_async_is_kept_until_a_daemon_runs() {
    let app = App::new("migrate async").await;
    app.sql
        .batch_execute("ALTER TABLE public.tenants DISABLE TRIGGER ALL")
        .await
        .unwrap();
    app.tenant(1).await;
    let ran = app.tenantd(&["migrate", "1", "--async"]).ok();
    assert!(ran.stdout.contains("asked for 1 tenants"), "{ran:?}");
    assert!(ran.stderr.contains("no tenantd is running"), "{ran:?}");
    assert_eq!(app.state("1").await, "unprovisioned -");
    let daemon = app.daemon().await;
    let ready = async |id: i64| {
        until("the tenant to be current", async || {
            let ready = app.ask(&format!("SELECT tenantd.ready('{id}')")).await;
            (ready == "t", daemon.log())
        })
        .await;
    };
    ready(1).await;
    app.tenant(2).await;
    let ran = app.tenantd(&["migrate", "tenant_2", "--async"]).ok();
    assert_eq!(ran.stderr, "", "a daemon runs");
    ready(2).await;
    app.tenant(3).await;
    let ran = app.tenantd(&["migrate", "--all", "--async"]).ok();
    assert_eq!(ran.stderr, "");
    ready(3).await;
}

#[tokio::test]
async fn a_command_for_an_unknown_tenant_names_it() {
    let app = App::new("unknown tenant").await;
    app.tenant(1).await;
    for command in ["status", "migrate", "fix", "adopt"] {
        let ran = app.tenantd(&[command, "1", "nobody", "42"]);
        assert_eq!(ran.code, 1, "{command}: {ran:?}");
        assert!(ran.stderr.contains("public.tenants"), "{command}: {ran:?}");
        assert!(ran.stderr.contains("nobody, 42"), "{command}: {ran:?}");
        assert_eq!(ran.stdout, "", "{command}");
    }
    assert_eq!(app.state("1").await, "unprovisioned -");
}

#[tokio::test]
async fn two_commands_migrate_one_tenant_once() {
    let app = App::new("two migrate").await;
    app.migration("0003_slow.sql", "SELECT pg_sleep(0.5);");
    app.tenant(1).await;
    let (one, two) = (app.spawn(&["migrate", "1"]), app.spawn(&["migrate", "1"]));
    for ran in [finish(one).await.ok(), finish(two).await.ok()] {
        assert!(ran.stdout.contains("1 of 1 tenants are at head"), "{ran:?}");
    }
    let sql = "SELECT string_agg(version, ',' ORDER BY ordinal) FROM tenantd.applied";
    assert_eq!(app.ask(sql).await, "0001,0002,0003");
    assert_eq!(app.state("1").await, "current 0003");
}

#[tokio::test]
async fn sweep_says_whether_anybody_will_do_it() {
    let app = App::new("sweep command").await;
    let ran = app.tenantd(&["sweep"]).ok();
    assert!(ran.stderr.contains("no tenantd is running"), "{ran:?}");
    let _daemon = app.daemon().await;
    let ran = app.tenantd(&["sweep", "--output", "json"]).ok();
    assert_eq!(
        (ran.json()["requested"].as_str(), ran.stderr.as_str()),
        (Some("sweep"), "")
    );
}
