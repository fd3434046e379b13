//! From a notification to a migrated schema, and what notifications must never do.

use crate::support::{App, app::lag, daemon::FULL_SWEEPS, until};

#[tokio::test]
pub(crate) async fn an_inserted_tenant_gets_its_schema_and_the_application_hears_of_it() {
    let app = App::new("insert").await;
    let daemon = app.quiet_daemon().await;
    let mut heard = app.listen("tenant_ready").await;
    app.tenant(7).await;
    assert_eq!(heard.next().await, "7");
    assert_eq!(app.ask("SELECT tenantd.ready('7')").await, "t");
    assert_eq!(
        app.ask("SELECT count(*) FROM tenant_7.items, tenant_7.notes")
            .await,
        "0"
    );
    assert_eq!(app.state("7").await, "current 0002");
    assert_eq!(daemon.events("tenant_inserted", "queued").await, 1.0);
    assert!(heard.so_far().await.is_empty(), "it was told once");
}

#[tokio::test]
async fn whoever_signed_up_hears_of_it_also_when_the_sweep_was_first() {
    let app = App::new("swept").await;
    let daemon = app.quiet_daemon().await;
    let mut heard = app.listen("tenant_ready").await;
    app.silent_tenant(7).await;
    daemon.signal("USR1");
    assert_eq!(heard.next().await, "7");
    until("it to be counted", async || {
        let applied = daemon.reconciles("sweep", "applied").await;
        (applied == 1.0, daemon.log())
    })
    .await;
    // A rollout tells nobody: nobody waits for it.
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint);");
    daemon.signal("HUP");
    app.becomes(&daemon, "7", "current 0003").await;
    assert!(heard.so_far().await.is_empty());
}

#[tokio::test]
async fn the_function_login_wakes_a_tenant_whose_insert_nobody_heard() {
    let app = App::new("login").await;
    let daemon = app.quiet_daemon().await;
    app.silent_tenant(1).await;
    app.run("CREATE SCHEMA tenant_2").await;
    app.silent_tenant(2).await;
    for id in [1, 2] {
        let ready = app.ask(&format!("SELECT tenantd.login('{id}')")).await;
        assert_eq!(ready, "f");
    }
    app.all_ready(&daemon, [1, 2]).await;
    until("both logins to be counted", async || {
        let applied = daemon.reconciles("login", "applied").await;
        (applied == 2.0, daemon.log())
    })
    .await;
    assert_eq!(daemon.events("tenant_inserted", "queued").await, 0.0);
}

#[tokio::test]
async fn the_application_may_notify_on_each_of_the_three_channels() {
    let app = App::new("channels").await;
    let daemon = app.quiet_daemon().await;
    for (id, channel, reason) in [
        (1, "tenant_inserted", "insert"),
        (2, "dashboard_login", "login"),
        (3, "tenantd_wake", "manual"),
    ] {
        app.silent_tenant(id).await;
        app.run(&format!("NOTIFY {channel}, '{id}'")).await;
        app.all_ready(&daemon, [id]).await;
        until("it to be counted", async || {
            let applied = daemon.reconciles(reason, "applied").await;
            (applied == 1.0, daemon.log())
        })
        .await;
        assert_eq!(daemon.events(channel, "queued").await, 1.0);
    }
}

#[tokio::test]
async fn the_function_login_tells_whether_a_tenant_is_ready_and_wakes_it() {
    let app = App::new("function").await;
    let daemon = app.quiet_daemon().await;
    let mut heard = app.listen("tenant_ready").await;
    app.silent_tenant(5).await;
    assert_eq!(app.ask("SELECT tenantd.login('5')").await, "f");
    assert_eq!(heard.next().await, "5");
    assert_eq!(app.ask("SELECT tenantd.login('5')").await, "t");
    assert_eq!(app.ask("SELECT tenantd.login('5', '0001')").await, "t");
    assert_eq!(
        app.ask("SELECT tenantd.login('5', '0099')").await,
        "f",
        "nobody has that version"
    );
    assert_eq!(app.ask("SELECT tenantd.login(NULL)").await, "f");
    assert_eq!(daemon.events("dashboard_login", "queued").await, 1.0);
}

#[tokio::test]
async fn whoever_asks_for_a_current_tenant_is_answered_too() {
    let app = App::new("answered").await;
    let daemon = app.quiet_daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    let mut heard = app.listen("tenant_ready").await;
    for channel in ["tenant_inserted", "dashboard_login", "tenantd_wake"] {
        app.run(&format!("NOTIFY {channel}, '1'")).await;
        assert_eq!(heard.next().await, "1", "{channel}");
    }
}

#[tokio::test]
pub(crate) async fn a_login_to_a_current_tenant_notifies_nobody() {
    let app = App::new("silent").await;
    let daemon = app.quiet_daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    let mut heard = app.listen("dashboard_login").await;
    for somebody_is_behind in [false, true] {
        app.run(&format!(
            "SELECT setval('tenantd.any_behind', 1, {somebody_is_behind})"
        ))
        .await;
        for _ in 0..10 {
            app.login(1).await;
        }
    }
    assert!(heard.so_far().await.is_empty());
    until("the daemon to have heard the end", async || {
        let heard = daemon.events("dashboard_login", "rejected").await;
        (heard == 1.0, daemon.log())
    })
    .await;
    assert_eq!(daemon.events("dashboard_login", "queued").await, 0.0);
}

#[tokio::test]
async fn a_login_to_a_tenant_that_lags_behind_a_new_release_wakes_it() {
    let app = App::new("lags").await;
    let daemon = app.quiet_daemon().await;
    for id in [1, 2] {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, [1, 2]).await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint);");
    // A command releases the new set; the daemon has not loaded it yet.
    app.tenantd(&["migrate", "2"]).ok();
    assert_eq!(app.state("1").await, "behind 0002");
    let mut heard = app.listen("dashboard_login").await;
    app.login(1).await;
    app.login(2).await;
    assert_eq!(heard.so_far().await, ["1"]);
}

/// Whether a login looks who is behind.
const LOGINS_LOOK: &str = "SELECT pg_sequence_last_value('tenantd.any_behind') IS NOT NULL";

#[tokio::test]
async fn logins_look_who_is_behind_from_the_release_until_a_sweep_finds_nobody() {
    let app = App::current("look", 3).await;
    assert_eq!(app.ask(LOGINS_LOOK).await, "f", "`migrate --all` is done");
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint);");
    app.tenantd(&["migrate", "2"]).ok();
    assert_eq!(app.ask(LOGINS_LOOK).await, "t");
    let _daemon = app.daemon().await;
    app.answers(LOGINS_LOOK, "f").await;
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.behind").await, "0");
}

#[tokio::test]
async fn logins_look_on_while_somebody_who_lags_is_not_committed_yet() {
    let app = App::current("look_race", 2).await;
    let daemon = app.quiet_daemon().await;
    let sweep = async || {
        let done = daemon.metric(FULL_SWEEPS).await;
        daemon.signal("USR1");
        until("a sweep", async || {
            (daemon.metric(FULL_SWEEPS).await > done, daemon.log())
        })
        .await;
    };
    let other = app.db.connect().await;
    let lags = format!("BEGIN; {}", lag(&["1"]));
    other.batch_execute(&lags).await.unwrap();
    sweep().await;
    assert_eq!(app.ask(LOGINS_LOOK).await, "t");
    other.batch_execute("COMMIT").await.unwrap();
    // Were the two ever to differ, the next sweep would put it right.
    app.run("SELECT setval('tenantd.any_behind', 1, false)")
        .await;
    sweep().await;
    assert_eq!(app.ask(LOGINS_LOOK).await, "t");
    let mut heard = app.listen("dashboard_login").await;
    app.login(1).await;
    assert_eq!(heard.so_far().await, ["1"]);
}

#[tokio::test]
async fn payloads_that_name_no_tenant_are_counted_and_harm_nobody() {
    let app = App::new("garbage").await;
    let daemon = app.quiet_daemon().await;
    let long = "7".repeat(7_999);
    let garbage = [
        "",
        long.as_str(),
        "1; DROP SCHEMA public CASCADE; --",
        "🦀",
        "1.5",
        "99999999999999999999",
    ];
    for (channel, reason) in [
        ("tenant_inserted", "insert"),
        ("dashboard_login", "login"),
        ("tenantd_wake", "manual"),
    ] {
        for payload in garbage {
            app.run(&format!("SELECT pg_notify('{channel}', '{payload}')"))
                .await;
        }
        app.run(&format!("SELECT pg_notify('{channel}', '424242')"))
            .await;
        // On this channel an empty payload means "look at the requests".
        let rejected = if channel == "tenantd_wake" { 5.0 } else { 6.0 };
        until("the garbage to be counted", async || {
            let seen = daemon.events(channel, "rejected").await;
            (seen == rejected, format!("{seen}\n{}", daemon.log()))
        })
        .await;
        // Before the next channel wakes the same tenant: that would be one entry in the queue.
        until("the unknown tenant to be looked up", async || {
            let gone = daemon.reconciles(reason, "gone").await;
            (gone == 1.0, daemon.log())
        })
        .await;
    }
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.tenant").await, "0");
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
async fn an_insert_that_is_rolled_back_does_nothing() {
    let app = App::new("rolled_back").await;
    let daemon = app.quiet_daemon().await;
    let mut heard = app.listen("tenant_inserted").await;
    app.run("BEGIN; INSERT INTO public.tenants (id) VALUES (1); ROLLBACK")
        .await;
    assert!(heard.so_far().await.is_empty());
    app.tenant(2).await;
    app.all_ready(&daemon, [2]).await;
    assert_eq!(
        app.ask("SELECT to_regnamespace('tenant_1')::text").await,
        "-"
    );
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.tenant").await, "1");
}

#[tokio::test]
async fn the_application_inserts_on_while_the_id_column_has_another_name() {
    let app = App::new("renamed").await;
    let daemon = app.daemon().await;
    let mut heard = app.listen("tenantd_wake").await;
    app.run("ALTER TABLE public.tenants RENAME COLUMN id TO tenant_no")
        .await;
    app.run("INSERT INTO public.tenants (tenant_no) VALUES (1)")
        .await;
    assert_eq!(heard.so_far().await, [""], "a request to look, without id");
    until("the daemon to say what is wrong", async || {
        let log = daemon.log();
        (log.contains("sweep failed") && log.contains("id"), log)
    })
    .await;
    app.run("ALTER TABLE public.tenants RENAME COLUMN tenant_no TO id")
        .await;
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
async fn the_application_inserts_on_after_the_ledger_is_purged_or_its_rows_are_locked() {
    let app = App::new("write_path").await;
    let other = app.db.connect().await;
    other
        .batch_execute(
            "BEGIN; LOCK TABLE tenantd.behind, tenantd.tenant IN SHARE ROW EXCLUSIVE MODE",
        )
        .await
        .unwrap();
    app.run("SET statement_timeout = '20s'").await;
    app.tenant(1).await;
    app.login(1).await;
    other.batch_execute("ROLLBACK").await.unwrap();
    app.tenantd(&["uninstall", "--purge"]).ok();
    app.tenant(2).await;
    app.login(2).await;
    assert_eq!(app.ask("SELECT count(*) FROM public.logins").await, "2");
}

#[tokio::test]
async fn a_listener_that_is_cut_off_listens_again_and_misses_nobody() {
    let app = App::new("cut_off").await;
    let daemon = app.quiet_daemon().await;
    app.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'tenantd/listen' AND datname = current_database()",
    )
    .await;
    for id in 1..=5 {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, 1..=5).await;
    until("it to listen again", async || {
        let reconnects = daemon
            .metric("tenantd_listener_reconnects_total{database=\"main\"}")
            .await;
        let ready = daemon.get("/readyz").await.0;
        (reconnects >= 1.0 && ready == 200, daemon.log())
    })
    .await;
    app.tenant(6).await;
    app.all_ready(&daemon, [6]).await;
}

#[tokio::test]
async fn a_tenant_that_a_release_brings_back_to_head_is_no_longer_woken_by_logins() {
    let app = App::new("back").await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    // A longer set is published and taken back, as a rollback of a release does.
    app.migration("0003_more.sql", "CREATE TABLE more (id bigint);");
    app.tenant(2).await;
    app.tenantd(&["migrate", "2"]).ok();
    let asked = "SELECT concat(tenantd.wakes('1'), EXISTS (SELECT FROM tenantd.behind WHERE tenant_id = '1'))";
    assert_eq!(app.ask(asked).await, "tt");
    app.remove_migration("0003_more.sql");
    app.tenant(3).await;
    app.tenantd(&["migrate", "3"]).ok();
    assert_eq!(app.ask(asked).await, "ff");
    assert_eq!(app.ask("SELECT tenantd.ready('1')").await, "t");
}
