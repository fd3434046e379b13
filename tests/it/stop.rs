//! How the daemon ends: soon, whatever it is doing and whatever the database does.

use std::time::{Duration, Instant};

use crate::support::{App, Daemon, Link, Proxy, database::shared, until};

const ASLEEP: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

/// The exit code, and that it took no longer than this.
async fn ends_within(daemon: &mut Daemon, limit: Duration) -> i32 {
    let start = Instant::now();
    let code = daemon.ended().await;
    println!("ended after {:.2} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < limit, "{}", daemon.log());
    code
}

#[tokio::test]
async fn an_idle_daemon_in_a_black_hole_ends_within_five_seconds() {
    let app = App::new("stop_hole").await;
    app.tenant(1).await;
    let proxy = Proxy::to(shared().await.port());
    app.lead(Some(&proxy), None);
    let mut daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    proxy.set(Link::Stall);
    daemon.signal("TERM");
    assert_eq!(ends_within(&mut daemon, Duration::from_secs(5)).await, 0);
    assert!(
        daemon.log().contains("could not sign off"),
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn a_daemon_that_waits_for_its_database_is_live_and_not_ready_and_ends_when_told() {
    let app = App::new("stop_start").await;
    let proxy = Proxy::to(shared().await.port());
    app.lead(Some(&proxy), None);
    for link in [Link::Cut, Link::Stall] {
        proxy.set(link);
        let mut daemon = app.start();
        until("it to wait", async || {
            let (ready, live) = (daemon.get("/readyz").await.0, daemon.get("/livez").await.0);
            ((ready, live) == (503, 200), daemon.log())
        })
        .await;
        daemon.signal("TERM");
        assert_eq!(ends_within(&mut daemon, Duration::from_secs(2)).await, 0);
    }
}

#[tokio::test]
async fn the_second_signal_ends_it_within_a_second_and_cancels_what_runs() {
    let app = App::current("second", 1).await;
    app.migration("0003_slow.sql", "SELECT pg_sleep(60);");
    let mut daemon = app.start();
    app.answers(ASLEEP, "1").await;
    daemon.signal("TERM");
    until("it to be told", async || {
        (daemon.log().contains("stopping"), daemon.log())
    })
    .await;
    daemon.signal("INT");
    assert_eq!(ends_within(&mut daemon, Duration::from_secs(1)).await, 130);
    app.answers(ASLEEP, "0").await;
    assert_eq!(app.state("1").await, "behind 0002");
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn a_long_migration_gets_its_grace_and_is_cancelled_then_without_blame() {
        let app = App::current("grace", 1).await;
        app.migration("0003_slow.sql", "SELECT pg_sleep(60);");
        let mut daemon = app.start();
        app.answers(ASLEEP, "1").await;
        daemon.signal("TERM");
        assert_eq!(ends_within(&mut daemon, Duration::from_secs(30)).await, 0);
        assert!(daemon.log().contains("cancelled 1"), "{}", daemon.log());
        assert_eq!(app.ask(ASLEEP).await, "0");
        assert_eq!(app.state("1").await, "behind 0002");
    }

    #[tokio::test]
    async fn a_migration_in_a_black_hole_does_not_keep_it_longer_than_thirty_seconds() {
        let app = App::current("grace_hole", 1).await;
        let proxy = Proxy::to(shared().await.port());
        app.lead(Some(&proxy), None);
        app.migration("0003_slow.sql", "SELECT pg_sleep(60);");
        let mut daemon = app.start();
        app.answers(ASLEEP, "1").await;
        proxy.set(Link::Stall);
        daemon.signal("TERM");
        assert_eq!(ends_within(&mut daemon, Duration::from_secs(30)).await, 0);
    }
}
