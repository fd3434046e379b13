//! What is found without any event, and what the daemon is asked for.

use tenantd::{
    Config,
    fleet::{Census, Depth, Registry, Release},
    migrations::MigrationSet,
};

use crate::support::{
    App,
    daemon::{FULL_SWEEPS, HEAD_SWEEPS},
    until,
};

#[tokio::test]
pub(crate) async fn without_any_notification_every_tenant_is_current_one_sweep_later() {
    let app = App::new("no_notify").await;
    let daemon = app.daemon().await;
    for id in 1..=20 {
        app.silent_tenant(id).await;
    }
    app.all_ready(&daemon, 1..=20).await;
    for channel in ["tenant_inserted", "dashboard_login", "tenantd_wake"] {
        assert_eq!(daemon.events(channel, "queued").await, 0.0);
    }
    assert_eq!(app.state("20").await, "current 0002");
}

#[tokio::test]
async fn a_signal_and_a_command_make_it_look_at_once() {
    let app = App::new("at_once").await;
    let daemon = app.quiet_daemon().await;
    app.silent_tenant(1).await;
    daemon.signal("USR1");
    app.all_ready(&daemon, [1]).await;
    // Tenants are woken before a sweep ends.
    until("the sweep to end", async || {
        (daemon.metric(FULL_SWEEPS).await >= 2.0, daemon.log())
    })
    .await;
    app.silent_tenant(2).await;
    let ran = app.tenantd(&["sweep"]).ok();
    assert!(ran.stdout.contains("asked for a sweep"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "", "a tenantd is running");
    app.all_ready(&daemon, [2]).await;
    assert_eq!(daemon.metric(HEAD_SWEEPS).await, 2.0, "only full ones");
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.request WHERE taken_at IS NULL")
            .await,
        "0"
    );
}

#[tokio::test]
async fn the_gauges_show_the_four_numbers() {
    let app = App::new("gauges").await;
    let daemon = app.quiet_daemon().await;
    // Held, so that they stay as they are: one with tables, one without, one without a schema.
    app.tenant(1).await;
    app.tenant(2).await;
    app.all_ready(&daemon, [1, 2]).await;
    app.run(
        "INSERT INTO tenantd.tenant (tenant_id, schema, state, held_by)
         VALUES ('3', 'tenant_3', 'held', 'test'), ('4', 'tenant_4', 'held', 'test');
         CREATE SCHEMA tenant_3",
    )
    .await;
    app.silent_tenant(3).await;
    app.silent_tenant(4).await;
    daemon.signal("USR1");
    until("the gauges to follow", async || {
        let mut seen = Vec::new();
        for name in [
            "tenants{",
            "schemas_existing",
            "schemas_with_tables",
            "schemas_without_tables",
            "tenants_by_state{database=\"main\",state=\"current\"}",
            "tenants_by_state{database=\"main\",state=\"held\"}",
            "tenants_by_state{database=\"main\",state=\"lost\"}",
        ] {
            seen.push(daemon.metric(&format!("tenantd_{name}")).await);
        }
        (
            seen == [4.0, 3.0, 2.0, 1.0, 2.0, 2.0, 0.0],
            format!("{seen:?}\n{}", daemon.log()),
        )
    })
    .await;
    let counts = app.tenantd(&["status", "--output", "json"]).ok().json()["counts"].clone();
    for (name, count) in [
        ("tenants", 4),
        ("schemas_existing", 3),
        ("schemas_with_tables", 2),
        ("schemas_without_tables", 1),
    ] {
        assert_eq!(counts[name], count, "{name}");
    }
}

#[tokio::test]
async fn the_schema_of_a_deleted_tenant_stays_as_an_orphan() {
    let app = App::new("orphan").await;
    let daemon = app.daemon().await;
    for id in [1, 2] {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, [1, 2]).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'precious'); DELETE FROM public.tenants WHERE id = 1")
        .await;
    until("the orphan to be noticed", async || {
        let state = app
            .ask("SELECT state FROM tenantd.tenant WHERE tenant_id = '1'")
            .await;
        (state == "orphan", state)
    })
    .await;
    assert_eq!(
        app.ask("SELECT label FROM tenant_1.items").await,
        "precious"
    );
    assert_eq!(app.ask("SELECT tenantd.ready('1')").await, "f");
    assert_eq!(
        app.ask("SELECT string_agg(id, ',') FROM tenantd.status")
            .await,
        "2"
    );
    // It comes back with its data.
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    assert_eq!(
        app.ask("SELECT label FROM tenant_1.items").await,
        "precious"
    );
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.applied a JOIN tenantd.tenant t ON t.id = a.tenant WHERE t.tenant_id = '1'")
            .await,
        "2",
        "nothing was applied twice"
    );
}

#[tokio::test]
async fn what_was_asked_for_while_no_daemon_ran_is_done_when_one_starts() {
    let app = App::new("asked_for").await;
    app.silent_tenant(1).await;
    for arguments in [
        &["fix"][..],
        &["migrate", "1", "--async"],
        &["migrate", "--all", "--async"],
        &["sweep"],
    ] {
        let ran = app.tenantd(arguments).ok();
        assert!(
            ran.stderr.contains("accepted, but no tenantd is running"),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
    assert_eq!(app.state("1").await, "unprovisioned -");
    // Not a quiet one: what was asked for changes the kind of its first sweeps.
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.request WHERE taken_at IS NULL")
            .await,
        "0"
    );
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.request WHERE taken_by IS NOT NULL")
            .await,
        "4"
    );
}

#[tokio::test]
async fn a_command_waits_until_the_daemon_has_done_what_it_was_asked() {
    let app = App::new("waits").await;
    let _daemon = app.quiet_daemon().await;
    for id in 1..=10 {
        app.silent_tenant(id).await;
    }
    let ran = app.tenantd(&["fix"]).ok();
    assert!(ran.stdout.contains("10 tenants"), "{}", ran.stdout);
    app.tenantd(&["status", "--wait", "30s", "--check"]).ok();
    assert_eq!(app.state("10").await, "current 0002");
}

#[tokio::test]
async fn a_daemon_that_is_told_to_stop_signs_off_and_ends_with_0() {
    let app = App::new("stop").await;
    let mut daemon = app.daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.instance").await, "1");
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, 0);
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.instance").await, "0");
}

/// A question waits for a minute.
mod slow {
    use super::*;

    #[tokio::test]
    async fn a_question_that_is_never_answered_is_given_up_and_the_daemon_stays_alive() {
        let app = App::new("unanswered").await;
        let daemon = app.daemon().await;
        let other = app.db.connect().await;
        let lock = "BEGIN; LOCK TABLE tenantd.request IN ACCESS EXCLUSIVE MODE";
        other.batch_execute(lock).await.unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for seconds in [25, 50] {
            let for_long =
                format!("{waits} AND clock_timestamp() - query_start > interval '{seconds}s'");
            app.answers(&for_long, "1").await;
        }
        until("it to give up", async || {
            let log = daemon.log();
            (log.contains("take requests: no answer within 1m"), log)
        })
        .await;
        assert_eq!(daemon.get("/livez").await.0, 200);
        app.answers(waits, "1").await;
        other.batch_execute("COMMIT").await.unwrap();
        app.silent_tenant(1).await;
        app.all_ready(&daemon, [1]).await;
        app.answers(waits, "0").await;
    }
}

#[tokio::test]
async fn a_trigger_that_does_not_fire_is_told_with_what_mends_it() {
    const MISSING: &str = "tenantd_trigger_missing{database=\"main\"}";
    let app = App::new("trigger_missing").await;
    let daemon = app.daemon().await;
    let missing = async |count: f64, says: &str| {
        until("the gauge to say so", async || {
            let holds = daemon.metric(MISSING).await == count && daemon.log().contains(says);
            (holds, daemon.log())
        })
        .await;
    };
    assert_eq!(daemon.metric(MISSING).await, 0.0);
    app.run("ALTER TABLE public.tenants DISABLE TRIGGER tenantd_inserted")
        .await;
    let enable = "ALTER TABLE \"public\".\"tenants\" ENABLE TRIGGER tenantd_inserted";
    missing(1.0, enable).await;
    app.run("DROP TRIGGER tenantd_login ON public.logins").await;
    missing(2.0, "trigger tenantd_login on public.logins is gone").await;
    app.run(enable).await;
    missing(1.0, "").await;
    assert_eq!(daemon.log().matches("is gone").count(), 1, "said once");
    for (statement, count) in [("DISABLE TRIGGER", 2.0), ("ENABLE REPLICA TRIGGER", 1.0)] {
        app.run(&format!(
            "ALTER TABLE public.tenants {statement} tenantd_inserted"
        ))
        .await;
        missing(count, "").await;
        app.tenantd(&["install"]).ok();
        missing(0.0, "").await;
    }
    // Logins of the application's roles are silent then.
    app.run("REVOKE SELECT ON SEQUENCE tenantd.any_behind FROM PUBLIC")
        .await;
    missing(1.0, "trigger tenantd_login on public.logins is another").await;
    app.tenantd(&["install"]).ok();
    missing(0.0, "").await;
    app.tenant(1).await;
    until("the trigger to have fired", async || {
        (
            daemon.events("tenant_inserted", "queued").await == 1.0,
            daemon.log(),
        )
    })
    .await;
}

#[tokio::test]
async fn deleted_rows_of_what_was_applied_are_told_until_they_are_back() {
    let app = App::current("unrecorded", 3).await;
    let daemon = app.daemon().await;
    let unrecorded = async |count: f64| {
        until("the gauge to say so", async || {
            let series = "tenantd_tenants_unrecorded{database=\"main\"}";
            (daemon.metric(series).await == count, daemon.log())
        })
        .await;
    };
    app.run("DELETE FROM tenantd.applied WHERE version = '0002' AND tenant <> 1")
        .await;
    unrecorded(2.0).await;
    assert!(
        daemon
            .log()
            .contains("2 tenants have fewer rows in tenantd.applied")
    );
    let said = app.tenantd(&["status"]).ok().stdout;
    assert!(said.contains("unrecorded           2"), "{said}");
    // As the guide says.
    let guide = std::fs::read_to_string(crate::support::app::repository("docs/troubleshooting.md"));
    let guide = guide.unwrap();
    let (_, mend) = guide
        .split_once("```sql\nINSERT INTO tenantd.applied")
        .unwrap();
    let (mend, _) = mend.split_once("```").unwrap();
    app.run(&format!("INSERT INTO tenantd.applied{mend}")).await;
    unrecorded(0.0).await;
    assert_eq!(app.ask("SELECT tenantd.ready('2', '0002')").await, "t");
}

#[tokio::test]
async fn windows_of_the_fleet_hold_each_tenant_once_and_name_those_in_doubt() {
    let app = App::current("windows", 11).await;
    let config = Config::load(Some(&app.config()), Vec::new()).unwrap();
    let release = Release::all(MigrationSet::load(&config.migrations.dir).unwrap());
    let registry = Registry::open(&app.sql, &config.registry).await.unwrap();
    let census = Census::new(registry, &release);
    app.run(
        "DROP TABLE tenant_2.items, tenant_2.notes; COMMENT ON SCHEMA tenant_4 IS 'tenantd: 0001 x';
         UPDATE tenantd.tenant SET held_by = 'me' WHERE tenant_id = '10';
         UPDATE public.tenants SET name = 'Renamed' WHERE id = 11; DROP SCHEMA tenant_9 CASCADE",
    )
    .await;
    for (depth, doubtful) in [
        (Depth::Heads, vec!["9", "10", "11"]),
        (Depth::Tables, vec!["2", "4", "9", "10", "11"]),
    ] {
        // 11: the last window is full.
        for size in [1, 2, 4, 11, 50] {
            let (mut found, mut plain, mut after) = (Vec::new(), 0, None);
            loop {
                let asked = census.glance(&app.sql, depth, after.as_deref(), size);
                let glance = asked.await.unwrap();
                found.extend(glance.doubtful);
                plain += glance.plain;
                after = glance.next;
                if after.is_none() {
                    break;
                }
            }
            found.sort_by_key(|id| id.parse::<i64>().unwrap());
            assert_eq!(found, doubtful, "{depth:?} in windows of {size}");
            assert_eq!(plain, 11 - i64::try_from(doubtful.len()).unwrap());
        }
    }
}
