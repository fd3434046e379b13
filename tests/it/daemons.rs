//! Several daemons on one database: who leads, who takes over, who gives way.

use std::time::{Duration, Instant};

use crate::{
    faults::recovered,
    support::{App, Daemon, until},
};

const LEADING: &str = "tenantd_leading{database=\"main\"}";

async fn leads(daemon: &Daemon) -> bool {
    daemon.metric(LEADING).await == 1.0
}

/// The rows of `public.ran` that are missing or too many for this file.
async fn not_once(app: &App, file: &str, tenants: i64) -> String {
    app.ask(&format!(
        "SELECT concat_ws(' ', {tenants} - count(DISTINCT schema), count(*) - count(DISTINCT schema))
         FROM public.ran WHERE file = '{file}'"
    ))
    .await
}

async fn head(app: &App) -> String {
    app.ask("SELECT version FROM tenantd.head").await
}

/// Waits until three daemons have heard each other's heartbeats.
async fn know_each_other(app: &App) {
    app.answers(
        "SELECT count(*) FROM tenantd.instance
         WHERE heartbeat_at > (SELECT max(started_at) + interval '500ms' FROM tenantd.instance)",
        "3",
    )
    .await;
}

#[tokio::test]
async fn three_daemons_bring_a_hundred_tenants_to_head_once_each_and_one_leads() {
    let app = App::new("three").await;
    app.counted("0003").await;
    let daemons = [app.daemon().await, app.daemon().await, app.daemon().await];
    know_each_other(&app).await;
    app.run("INSERT INTO public.tenants (id) SELECT generate_series(1, 100)")
        .await;
    app.all_ready(&daemons[0], 1..=100).await;
    app.counted("0004").await;
    for daemon in &daemons {
        daemon.signal("HUP");
    }
    app.answers("SELECT version FROM tenantd.head", "0004")
        .await;
    app.all_ready(&daemons[0], 1..=100).await;
    assert_eq!(not_once(&app, "0003", 100).await, "0 0");
    assert_eq!(not_once(&app, "0004", 100).await, "0 0");
    let (mut busy, mut leading) = (0.0, 0);
    for daemon in &daemons {
        leading += i32::from(leads(daemon).await);
        for reason in ["insert", "sweep", "retry"] {
            busy += daemon.reconciles(reason, "busy").await;
        }
    }
    println!("200 applies by 3 daemons, {busy} attempts found another at work");
    assert_eq!(leading, 1);
    let failed = app
        .ask("SELECT count(*) FROM tenantd.tenant WHERE state <> 'current' OR attempts > 0")
        .await;
    assert_eq!(failed, "0");
}

#[tokio::test]
async fn of_three_daemons_that_hear_of_a_tenant_one_takes_it_and_each_takes_some() {
    let app = App::new("turns").await;
    let quiet = [
        "--set",
        "sweep.interval=1h",
        "--set",
        "sweep.full_interval=1h",
    ];
    let daemons = [(); 3].map(|()| app.start_with(&quiet));
    for daemon in &daemons {
        until("it to listen", async || {
            (daemon.get("/readyz").await.0 == 200, daemon.log())
        })
        .await;
    }
    know_each_other(&app).await;
    for id in 1..=40 {
        app.tenant(id).await;
        app.all_ready(&daemons[0], [id]).await;
    }
    let mut met = 0.0;
    for daemon in &daemons {
        met += daemon.reconciles("insert", "busy").await;
        let applied = daemon.reconciles("insert", "applied").await;
        assert!(applied > 2.0, "{applied} by one");
    }
    println!("40 tenants by 3 daemons, {met} attempts found another at work");
    assert!(met <= 4.0, "{met} attempts found another at work");
}

#[tokio::test]
async fn one_that_follows_tells_no_numbers_and_takes_requests_and_over_at_once_from_one_that_signs_off()
 {
    let app = App::new("follows").await;
    app.tenant(1).await;
    let mut leader = app.daemon().await;
    let follower = app.daemon().await;
    assert!(leads(&leader).await && !leads(&follower).await);
    assert_eq!(
        follower.metric("tenantd_tenants{database=\"main\"}").await,
        0.0
    );
    leader.signal("STOP");
    app.tenantd(&["sweep"]).ok();
    app.answers(
        "SELECT count(*) FROM tenantd.request WHERE taken_at IS NULL",
        "0",
    )
    .await;
    leader.signal("CONT");
    leader.signal("TERM");
    assert_eq!(leader.ended().await, 0);
    let start = Instant::now();
    until("the other to lead", async || {
        let tenants = follower.metric("tenantd_tenants{database=\"main\"}").await;
        (leads(&follower).await && tenants == 1.0, follower.log())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(7), "{start:?}");
}

#[tokio::test]
async fn a_daemon_that_starts_after_one_that_signed_off_leads_at_once() {
    let app = App::new("restarted").await;
    let mut first = app.daemon().await;
    assert!(leads(&first).await);
    first.signal("TERM");
    assert_eq!(first.ended().await, 0);
    let second = app.start();
    until("it to be ready", async || {
        (second.get("/readyz").await.0 == 200, second.log())
    })
    .await;
    assert!(leads(&second).await, "{}", second.log());
}

#[tokio::test]
async fn a_frozen_daemon_that_holds_a_tenant_repeats_nothing_when_it_thaws() {
    let app = App::current("thaw", 1).await;
    app.run("CREATE TABLE public.ran (file text, schema text)")
        .await;
    app.migration(
        "0003_slow.sql",
        "DO $$ BEGIN INSERT INTO public.ran VALUES ('0003', current_schema()); PERFORM pg_sleep(1.5); END $$;",
    );
    let frozen = app.start();
    app.answers(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        "1",
    )
    .await;
    frozen.signal("STOP");
    let other = app.daemon().await;
    app.tenant(2).await;
    app.all_ready(&other, 1..=2).await;
    frozen.signal("CONT");
    until("it to be at work again", async || {
        (frozen.get("/readyz").await.0 == 200, frozen.log())
    })
    .await;
    app.tenant(3).await;
    app.all_ready(&frozen, 1..=3).await;
    assert_eq!(not_once(&app, "0003", 3).await, "0 0");
}

#[tokio::test]
async fn another_key_with_the_same_hash_means_to_wait_and_never_that_it_is_done() {
    let app = App::new("collision").await;
    let daemon = app.quiet_daemon().await;
    app.run("SELECT pg_advisory_lock(hashtextextended('tenantd:tenant_1', 0))")
        .await;
    app.tenant(1).await;
    until("some attempts", async || {
        let busy =
            daemon.reconciles("insert", "busy").await + daemon.reconciles("retry", "busy").await;
        (busy >= 3.0, daemon.log())
    })
    .await;
    assert_eq!(app.ask("SELECT tenantd.ready('1')").await, "f");
    app.run("SELECT pg_advisory_unlock_all()").await;
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
async fn a_daemon_whose_control_schema_was_upgraded_stops_and_says_so_by_its_exit_code() {
    let app = App::new("upgraded").await;
    let mut daemon = app.daemon().await;
    app.run("INSERT INTO tenantd.control (version, name) VALUES (999, 'later')")
        .await;
    assert_eq!(daemon.ended().await, 5);
    assert!(
        daemon.log().contains("at version 999, this program knows"),
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn an_older_daemon_beside_a_newer_one_keeps_off_its_head_until_it_is_the_last() {
    let app = App::new("older").await;
    app.migration("0003_more.sql", "CREATE TABLE more (id bigint);");
    app.tenant(1).await;
    let mut newer = app.daemon().await;
    app.all_ready(&newer, [1]).await;
    app.remove_migration("0003_more.sql");
    let older = app.daemon().await;
    assert!(
        older.log().contains("the released head stays 0003"),
        "{}",
        older.log()
    );
    app.tenant(2).await;
    app.answers(
        "SELECT count(*) FROM tenantd.tenant WHERE version = '0003'",
        "2",
    )
    .await;
    assert_eq!(head(&app).await, "0003");
    assert!(!leads(&older).await);
    // The rollback is complete: nobody has the newer files any more.
    newer.signal("TERM");
    assert_eq!(newer.ended().await, 0);
    app.answers("SELECT version FROM tenantd.head", "0002")
        .await;
    app.becomes(&older, "1", "ahead 0003").await;
    app.tenant(3).await;
    app.all_ready(&older, 1..=3).await;
    assert_eq!(app.state("3").await, "current 0002");
}

#[tokio::test]
pub(crate) async fn a_lease_that_ran_out_goes_to_a_daemon_that_runs() {
    let app = App::new("ran_out").await;
    let leader = app.daemon().await;
    let follower = app.daemon().await;
    assert!(leads(&leader).await && !leads(&follower).await);
    leader.signal("STOP");
    app.run("UPDATE tenantd.lead SET expires_at = now()").await;
    until("the other to lead", async || {
        (leads(&follower).await, follower.log())
    })
    .await;
}

/// Makes the ledger take a daemon that cannot write its heartbeats for one that has stopped.
async fn counts_no_longer(app: &App, daemon: &Daemon) {
    app.run(&format!(
        "UPDATE tenantd.instance SET heartbeat_at = now() - interval '1 minute' WHERE pid = {};
         DELETE FROM tenantd.lead WHERE instance = (SELECT id FROM tenantd.instance WHERE pid = {0})",
        daemon.pid()
    ))
    .await;
}

#[tokio::test]
async fn a_newer_daemon_takes_its_head_back_when_an_outage_is_over_and_the_older_one_waits_again() {
    let app = App::new("outage").await;
    let older = app.daemon().await;
    app.migration("0003_more.sql", "CREATE TABLE more (id bigint);");
    app.tenant(1).await;
    let mut newer = app.daemon().await;
    app.all_ready(&newer, [1]).await;
    // The older one was there first, and has seen by now that it is outdone.
    until("the newer one to lead", async || {
        (leads(&newer).await, newer.log())
    })
    .await;
    newer.signal("STOP");
    counts_no_longer(&app, &newer).await;
    app.answers("SELECT version FROM tenantd.head", "0002")
        .await;
    newer.signal("CONT");
    app.answers("SELECT version FROM tenantd.head", "0003")
        .await;
    app.tenant(2).await;
    app.answers(
        "SELECT count(*) FROM tenantd.tenant WHERE version = '0003'",
        "2",
    )
    .await;
    until("the newer one to lead again", async || {
        (leads(&newer).await && !leads(&older).await, newer.log())
    })
    .await;
    assert_eq!(
        newer.log().matches("released our head").count(),
        1,
        "{}",
        newer.log()
    );
    newer.signal("TERM");
    assert_eq!(newer.ended().await, 0);
    app.answers("SELECT version FROM tenantd.head", "0002")
        .await;
}

#[tokio::test]
async fn daemons_whose_files_contradict_each_other_do_not_take_the_head_in_turns() {
    let app = App::new("contradict").await;
    app.migration("0003_more.sql", "CREATE TABLE more (id bigint);");
    let one = app.daemon().await;
    app.migration("0003_more.sql", "CREATE TABLE other (id bigint);");
    let other = app.daemon().await;
    let released = "SELECT h.digest = i.head FROM tenantd.head h, tenantd.instance i WHERE i.pid =";
    let released = format!("{released} {}", other.pid());
    // Beats of both.
    let beats =
        "SELECT count(*) FROM tenantd.instance WHERE heartbeat_at - started_at > interval '4 s'";
    app.answers(beats, "2").await;
    assert_eq!(app.ask(&released).await, "t", "{}", one.log());
}

mod slow {
    use super::*;

    /// Seconds until the follower leads and has swept, after the leader got this signal.
    async fn taken_over(app: &App, leader: &Daemon, follower: &Daemon, name: &str) -> f64 {
        assert!(leads(leader).await && !leads(follower).await);
        leader.signal(name);
        let start = Instant::now();
        app.silent_tenant(7).await;
        app.all_ready(follower, [7]).await;
        assert!(leads(follower).await);
        let took = start.elapsed().as_secs_f64();
        println!("{name}: taken over after {took:.1} s");
        recovered(start);
        took
    }

    #[tokio::test]
    async fn a_listener_that_hears_heartbeats_is_not_asked_whether_it_is_there() {
        let app = App::new("not_asked").await;
        let _daemons = [app.daemon().await, app.daemon().await];
        let beats = "SELECT count(*) FROM tenantd.instance WHERE heartbeat_at > started_at + interval '16s'";
        app.answers(beats, "2").await;
        let last = "SELECT string_agg(DISTINCT left(query, 6), ' ') FROM pg_stat_activity
                    WHERE application_name = 'tenantd/listen' AND datname = current_database()";
        assert_eq!(app.ask(last).await, "LISTEN");
    }

    #[tokio::test]
    async fn a_killed_leader_is_followed_within_fifteen_seconds_and_counts_no_longer() {
        let app = App::new("killed_leader").await;
        let (leader, follower) = (app.daemon().await, app.daemon().await);
        assert!(taken_over(&app, &leader, &follower, "KILL").await < 15.0);
        until("one to be counted", async || {
            let report = app.tenantd(&["status", "--output", "json"]).ok().json();
            let running = report["daemons"].as_array().unwrap().len();
            (running == 1, report.to_string())
        })
        .await;
    }

    #[tokio::test]
    async fn a_frozen_leader_is_followed_within_fifteen_seconds_and_follows_when_it_thaws() {
        let app = App::new("frozen_leader").await;
        let (leader, follower) = (app.daemon().await, app.daemon().await);
        assert!(taken_over(&app, &leader, &follower, "STOP").await < 15.0);
        leader.signal("CONT");
        until("it to follow", async || {
            (!leads(&leader).await, leader.log())
        })
        .await;
        assert!(leads(&follower).await);
    }

    #[tokio::test]
    async fn an_older_daemon_that_leads_gives_way_to_a_newer_one() {
        let app = App::new("gives_way").await;
        let older = app.daemon().await;
        app.tenant(1).await;
        app.all_ready(&older, [1]).await;
        app.migration("0003_more.sql", "CREATE TABLE more (id bigint);");
        let newer = app.daemon().await;
        app.answers("SELECT version FROM tenantd.tenant", "0003")
            .await;
        until("the newer one to lead", async || {
            (
                leads(&newer).await && !leads(&older).await,
                format!("{}\n{}", older.log(), newer.log()),
            )
        })
        .await;
        app.silent_tenant(2).await;
        app.answers(
            "SELECT version FROM tenantd.tenant WHERE tenant_id = '2'",
            "0003",
        )
        .await;
        assert_eq!(head(&app).await, "0003");
    }
}
