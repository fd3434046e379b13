//! What people tell the fleet: released heads, pauses, holds, rates; and when a rollout stands back by itself.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::time::{Duration, Instant};

use crate::support::{App, Daemon, daemon::HEAD_SWEEPS, more::finish, postgres::Server, until};

const HEAD: &str = "SELECT version FROM tenantd.head";
const COLUMN: &str = "ALTER TABLE items ADD COLUMN note text;";
const BRAKE: &str = "tenantd_brake{database=\"main\",reason=\"";

/// Current tenants 1 to `tenants`, where a person releases.
async fn manual(hint: &str, tenants: i64) -> App {
    let app = App::new(hint).await;
    app.configure("[rollout]\nmode = \"manual\"");
    for id in 1..=tenants {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    assert_eq!(
        app.ask(HEAD).await,
        "0002",
        "the first set is released at once"
    );
    app
}

async fn sweeps(daemon: &Daemon) {
    let before = daemon.metric(HEAD_SWEEPS).await;
    until("two sweeps", async || {
        (
            daemon.metric(HEAD_SWEEPS).await >= before + 2.0,
            daemon.log(),
        )
    })
    .await;
}

/// How many tenants the ledger has at this version.
async fn at(app: &App, version: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM tenantd.tenant WHERE version = '{version}'");
    app.ask(&sql).await.parse().unwrap()
}

#[tokio::test]
async fn loaded_files_wait_for_a_person_and_every_daemon_follows_the_release() {
    let app = manual("manual", 3).await;
    let daemons = [app.daemon().await, app.daemon().await];
    app.migration("0003_note.sql", COLUMN);
    app.migration("0004_more.sql", "CREATE TABLE more (id bigint);");
    for daemon in &daemons {
        daemon.signal("HUP");
        until("it to have loaded the files", async || {
            (
                daemon.log().contains("2 loaded files wait behind 0002"),
                daemon.log(),
            )
        })
        .await;
    }
    app.tenant(4).await;
    app.all_ready(&daemons[0], 1..=4).await;
    sweeps(&daemons[0]).await;
    app.tenantd(&["migrate", "--all"]).ok();
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(
        (app.ask(HEAD).await.as_str(), at(&app, "0002").await),
        ("0002", 4)
    );
    let json = app.tenantd(&["status", "--output", "json"]).ok().json();
    let rollout = &json["rollout"];
    assert_eq!(
        (
            &rollout["loaded"],
            &rollout["released"],
            &rollout["mode"],
            &rollout["pending"]
        ),
        (&"0004".into(), &"0002".into(), &"manual".into(), &0.into())
    );
    assert_eq!(json["head"], "0002");

    // Some of it, then all; each daemon follows, whoever took the request.
    let ran = app.tenantd(&["release", "0003"]).ok();
    assert!(ran.stdout.contains("released 0003 to the fleet"), "{ran:?}");
    app.all_ready(&daemons[0], 1..=4).await;
    assert_eq!(
        (app.ask(HEAD).await.as_str(), at(&app, "0003").await),
        ("0003", 4)
    );
    for daemon in &daemons {
        until("it to follow", async || {
            (
                daemon.log().contains("follows the released head: 0003"),
                daemon.log(),
            )
        })
        .await;
    }
    app.tenantd(&["release"]).ok();
    app.all_ready(&daemons[0], 1..=4).await;
    assert_eq!(at(&app, "0004").await, 4);
    let again = app.tenantd(&["release"]);
    assert!(
        again.code == 1 && again.stderr.contains("nothing to release"),
        "{again:?}"
    );
    assert_eq!(app.tenantd(&["release", "0009"]).code, 1);
}

#[tokio::test]
async fn a_dry_run_tells_groups_and_the_locks_of_each_file() {
    let app = manual("dry_run", 3).await;
    app.migration("0003_note.sql", COLUMN);
    app.migration(
        "0004_fill.sql",
        "UPDATE items SET note = ''; CREATE INDEX i ON notes (body);",
    );
    app.migration("0005_block.sql", "DO $$ BEGIN NULL; END $$;");
    app.silent_tenant(9).await;
    let ran = app.tenantd(&["migrate", "--all", "--dry-run"]).ok();
    assert_eq!(
        ran.stdout,
        "1 tenants (tenant_9): create the schema, then all 2\n1 tenants; nothing was changed\n"
    );
    let ran = app.tenantd(&["release", "--dry-run"]).ok();
    assert_eq!(
        ran.stdout,
        "3 tenants (tenant_1, tenant_2, tenant_3): 0003, 0004, 0005\n\
         1 tenants (tenant_9): create the schema, then all 5\n\
         locks on tables that exist:\n\
         \u{20} 0003_note.sql: ACCESS EXCLUSIVE on items\n\
         \u{20} 0004_fill.sql: SHARE on notes, ROW EXCLUSIVE on items\n\
         \u{20} 0005_block.sql: unknown: its text does not tell all it does\n\
         4 tenants; nothing was changed\n"
    );
    assert_eq!(app.ask(HEAD).await, "0002");
    let groups = app
        .tenantd(&["release", "0004", "--dry-run", "--output", "json"])
        .ok()
        .json();
    let used = groups
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["tenants"] == 3)
        .unwrap();
    assert_eq!(used["locks"][1]["locks"][0]["on"], "notes");
    assert_eq!(
        (&used["schemas_truncated"], &used["files"][1]),
        (&false.into(), &"0004_fill.sql".into())
    );
}

#[tokio::test]
async fn going_back_takes_force_and_leaves_those_ahead_alone() {
    let app = manual("back", 2).await;
    app.migration("0003_note.sql", COLUMN);
    app.tenantd(&["release"]).ok();
    app.tenantd(&["migrate", "1"]).ok();
    let ran = app.tenantd(&["release", "0002"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("add `--force`"),
        "{ran:?}"
    );
    assert_eq!(app.ask(HEAD).await, "0003");
    app.tenantd(&["release", "0002", "--force"]).ok();
    assert_eq!(app.ask(HEAD).await, "0002");
    assert_eq!(app.state("1").await, "ahead 0003");
    assert_eq!(app.state("2").await, "current 0002");
    let daemon = app.daemon().await;
    app.tenant(3).await;
    app.all_ready(&daemon, 1..=3).await;
    assert_eq!(app.state("3").await, "current 0002");
}

#[tokio::test]
async fn an_older_set_works_at_all_it_has_and_another_one_at_what_is_common() {
    let app = manual("prefix", 1).await;
    app.migration("0003_note.sql", COLUMN);
    app.tenantd(&["release"]).ok();
    app.tenantd(&["migrate", "1"]).ok();
    app.remove_migration("0003_note.sql");
    app.tenant(2).await;
    app.tenantd(&["migrate", "2"]).ok();
    assert_eq!(app.state("1").await, "ahead 0003");
    assert_eq!(app.state("2").await, "current 0002");
    // A third file of another history.
    app.migration("0003_other.sql", "CREATE TABLE other (id bigint);");
    app.tenant(3).await;
    app.tenantd(&["migrate", "3"]).ok();
    assert_eq!(app.state("3").await, "current 0002");
    assert_eq!(app.ask(HEAD).await, "0003");
    // Nothing in common.
    app.migration("0001_items.sql", "CREATE TABLE things (id bigint);");
    for command in [["status"].as_slice(), &["migrate", "--all"], &["run"]] {
        let ran = app.tenantd(command);
        let why = "has nothing in common with the loaded set";
        assert!(ran.code == 1 && ran.stderr.contains(why), "{ran:?}");
        assert!(ran.stderr.contains("tenantd release --force"), "{ran:?}");
    }
    assert_eq!(app.tenantd(&["release"]).code, 1);
    app.tenantd(&["release", "--force"]).ok();
    app.tenantd(&["status"]).ok();
}

#[tokio::test]
async fn a_stopped_version_below_the_released_head_is_tried_again_by_its_name() {
    let app = manual("stopped_below", 1).await;
    app.migration("0003_note.sql", COLUMN);
    app.migration("0004_more.sql", "CREATE TABLE more (id bigint);");
    app.tenantd(&["release"]).ok();
    app.run(
        "INSERT INTO tenantd.breaker (digest, version, file, tried, places, tenants, error, opened_at)
         SELECT digest, version, '0003_note.sql', 5, '{1}', '{1}', 'why', now() FROM tenantd.migration WHERE version = '0003'",
    )
    .await;
    let ran = app.tenantd(&["release", "0003"]).ok();
    assert!(ran.stdout.contains("released 0003: tried again"), "{ran:?}");
    assert_eq!(app.ask(HEAD).await, "0004");
    app.tenantd(&["migrate", "--all"]).ok();
    assert_eq!(app.state("1").await, "current 0004");
}

#[tokio::test]
async fn a_paused_fleet_stays_as_it_is_but_for_new_tenants_and_those_a_person_names() {
    let app = App::current("paused", 3).await;
    let daemon = app.daemon().await;
    let ran = app.tenantd(&["pause", "--reason", "the audit"]).ok();
    assert!(ran.stdout.contains("paused: no existing schema"), "{ran:?}");
    app.migration("0003_note.sql", COLUMN);
    daemon.signal("HUP");
    app.answers(HEAD, "0003").await;
    app.login(1).await;
    until("the login to be answered", async || {
        (
            daemon.reconciles("login", "waiting").await >= 1.0,
            daemon.log(),
        )
    })
    .await;
    sweeps(&daemon).await;
    app.tenant(4).await;
    app.all_ready(&daemon, [4]).await;
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4);
    assert!(
        ran.stdout
            .contains("3 tenants wait: the fleet was paused by"),
        "{ran:?}"
    );
    assert_eq!((at(&app, "0002").await, at(&app, "0003").await), (3, 1));
    let said = app.tenantd(&["status"]).ok().stdout;
    assert!(
        said.contains("the audit; `tenantd resume` goes on"),
        "{said}"
    );
    let json = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert_eq!(json["rollout"]["paused"]["why"], "the audit");
    assert_eq!(json["rollout"]["pending"], 3);
    let (_, status) = daemon.get("/status").await;
    assert!(status.contains("the audit"), "{status}");
    until("the gauge to say so", async || {
        let paused = daemon
            .metric("tenantd_rollout_paused{database=\"main\"}")
            .await;
        (paused == 1.0, daemon.log())
    })
    .await;

    app.tenantd(&["migrate", "2"]).ok();
    assert_eq!(app.state("2").await, "current 0003");
    // A restart changes nothing; nor does pausing again.
    drop(daemon);
    let daemon = app.daemon().await;
    let ran = app.tenantd(&["pause"]).ok();
    assert!(ran.stdout.contains("the audit already"), "{ran:?}");
    sweeps(&daemon).await;
    assert_eq!(at(&app, "0002").await, 2);
    app.tenantd(&["resume"]).ok();
    app.all_ready(&daemon, 1..=4).await;
    let ran = app.tenantd(&["resume"]).ok();
    assert!(ran.stdout.contains("was not paused"), "{ran:?}");
}

#[tokio::test]
async fn when_hold_returns_nothing_runs_on_the_tenant_and_nothing_will() {
    let app = App::current("hold", 2).await;
    app.silent_tenant(3).await;
    app.migration(
        "0003_slow.sql",
        "DO $$ BEGIN PERFORM pg_sleep(2); END $$; ALTER TABLE items ADD COLUMN slow text;",
    );
    app.migration("0004_next.sql", COLUMN);
    let migrates = app.spawn(&["migrate", "1"]);
    app.answers(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        "1",
    )
    .await;
    let ran = finish(app.spawn(&["hold", "1", "--reason", "an audit"])).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    // The file that ran has come to its end, the one behind it has not begun.
    let reached = app
        .ask("SELECT version FROM tenantd.tenant WHERE tenant_id = '1'")
        .await;
    assert_eq!(reached, "0003");
    assert_eq!(finish(migrates).await.code, 4);
    assert_eq!(app.state("1").await, "held 0003");

    // Also one that nobody has seen yet.
    app.tenantd(&["hold", "tenant_3", "--reason", "not yet"])
        .ok();
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [2]).await;
    sweeps(&daemon).await;
    assert_eq!(app.state("3").await, "held -");
    let said = app.tenantd(&["status", "3"]).ok().stdout;
    assert!(
        said.contains("not yet; let it go with `tenantd unhold 3`"),
        "{said}"
    );
    assert_eq!(app.tenantd(&["migrate", "3"]).code, 4);
    app.tenantd(&["unhold", "1"]).ok();
    app.tenantd(&["unhold", "tenant_3"]).ok();
    app.all_ready(&daemon, 1..=3).await;
    let ran = app.tenantd(&["unhold", "1"]);
    assert!(
        ran.code == 1 && ran.stderr.contains("is not held"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn a_hold_that_has_to_wait_too_long_says_for_whom_and_stays() {
    let app = App::current("hold_busy", 1).await;
    app.run("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('tenantd:tenant_1', 0))")
        .await;
    let ran = finish(app.spawn(&["hold", "1", "--reason", "an audit"])).await;
    assert_eq!(ran.code, 1);
    let pid = app.ask("SELECT pg_backend_pid()").await;
    assert!(
        ran.stderr.contains(&format!("process {pid} of the server")),
        "{ran:?}"
    );
    app.run("COMMIT").await;
    assert_eq!(app.state("1").await, "held 0002");
}

#[tokio::test]
async fn the_rate_is_the_ledgers_and_another_one_holds_at_once() {
    let app = App::new("rate").await;
    app.run("INSERT INTO public.tenants (id) SELECT generate_series(1, 60)")
        .await;
    app.tenantd(&["migrate", "--all"]).ok();
    let ran = app.tenantd(&["release", "--max-rate", "2"]).ok();
    assert!(
        ran.stdout.contains("max_rate: 2 tenants a second"),
        "{ran:?}"
    );
    app.migration("0003_note.sql", COLUMN);
    let daemon = app.daemon().await;
    until("the first tenants to be done", async || {
        (at(&app, "0003").await >= 4, daemon.log())
    })
    .await;
    let json = app.tenantd(&["status", "--output", "json"]).ok().json();
    let rollout = &json["rollout"];
    assert_eq!(rollout["max_rate"], 2);
    let (rate, eta) = (
        rollout["rate"].as_f64().unwrap(),
        rollout["eta_seconds"].as_f64().unwrap(),
    );
    assert!(rate > 0.0 && rate < 5.0 && eta > 5.0, "{rollout}");
    assert!(rollout["pending"].as_i64().unwrap() > 30, "{rollout}");
    until("the gauges to say so", async || {
        let pending = daemon
            .metric("tenantd_rollout_pending{database=\"main\"}")
            .await;
        (pending > 30.0, format!("{pending}\n{}", daemon.log()))
    })
    .await;
    app.tenantd(&["release", "--max-rate", "0"]).ok();
    let start = Instant::now();
    app.all_ready(&daemon, 1..=60).await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    until("its end to be told", async || {
        (
            daemon
                .log()
                .contains("rollout of 0003: 60 tenants done here"),
            daemon.log(),
        )
    })
    .await;
    app.tenantd(&["release", "--max-rate", "default"]).ok();
    let json = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert_eq!(json["rollout"]["max_rate"], 200);
    assert_eq!(app.tenantd(&["release", "--max-rate", "-1"]).code, 2);
}

#[tokio::test]
async fn migrate_all_keeps_the_ledgers_rate() {
    let app = App::current("rate_all", 9).await;
    app.tenantd(&["release", "--max-rate", "3"]).ok();
    app.migration("0003_note.sql", COLUMN);
    let start = Instant::now();
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(
        start.elapsed() > Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_rollout_waits_for_a_standby_that_lags_and_new_tenants_do_not() {
    let server = Server::with(&[]).await;
    let app = App::on_server(&server, "lag").await;
    let standby = server.standby().await;
    app.configure("[rollout]\nmax_rate = 5\nmax_replication_lag = \"2s\"");
    app.tenantd(&["install"]).ok();
    app.run("INSERT INTO public.tenants (id) SELECT generate_series(1, 60)")
        .await;
    app.tenantd(&["migrate", "--all", "--set", "rollout.max_rate=0"])
        .ok();
    app.migration("0003_note.sql", COLUMN);
    let replay = standby.connect("postgres").await;
    replay
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .unwrap();
    let daemon = app.daemon().await;
    let on = format!("{BRAKE}replication_lag\"}}");
    until("the rollout to stand back", async || {
        (daemon.metric(&on).await == 1.0, daemon.log())
    })
    .await;
    assert!(
        daemon
            .log()
            .contains("the rollout stands back (replication_lag): standby")
    );
    // Those that were taken already come to their end.
    let mut reached = at(&app, "0003").await;
    until("no further tenant to be migrated", async || {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let before = std::mem::replace(&mut reached, at(&app, "0003").await);
        (before == reached, format!("{reached}"))
    })
    .await;
    assert!(reached < 60, "{}", daemon.log());
    let said = app.tenantd(&["status"]).ok().stdout;
    assert!(said.contains("the rollout stands back: standby"), "{said}");
    app.tenant(61).await;
    app.all_ready(&daemon, [61]).await;
    replay
        .batch_execute("SELECT pg_wal_replay_resume()")
        .await
        .unwrap();
    app.all_ready(&daemon, 1..=61).await;
    assert!(
        daemon.log().contains("the rollout goes on"),
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn a_rollout_stands_back_while_sessions_wait_behind_it() {
    let app = App::current("waiting", 40).await;
    app.configure("[rollout]\nmax_rate = 10\nmax_waiting = 1\n[locks]\nmax_hold = \"1m\"");
    app.migration(
        "0003_slow.sql",
        "ALTER TABLE items ADD COLUMN note text; SELECT pg_sleep(CASE current_schema() WHEN 'tenant_3' THEN 6 ELSE 0 END);",
    );
    let daemon = app.daemon().await;
    app.answers(
        "SELECT count(*) FROM pg_locks WHERE relation = 'tenant_3.items'::regclass AND mode = 'AccessExclusiveLock' AND granted",
        "1",
    )
    .await;
    let other = app.db.connect().await;
    let waits =
        tokio::spawn(async move { other.batch_execute("SELECT FROM tenant_3.items").await });
    let on = format!("{BRAKE}waiting\"}}");
    until("the rollout to stand back", async || {
        (daemon.metric(&on).await == 1.0, daemon.log())
    })
    .await;
    app.silent_tenant(99).await;
    app.run("NOTIFY tenant_inserted, '99'").await;
    app.all_ready(&daemon, [99]).await;
    waits.await.unwrap().unwrap();
    app.all_ready(&daemon, 1..=40).await;
    assert_eq!(daemon.metric(&on).await, 0.0);
}
