//! How the daemon ends: soon, whatever it is doing and whatever the database does.
#![allow(clippy::unwrap_used, reason = "tests panic")]

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

    /// What systemd would see of a daemon with these failpoints: how long it was told that it lives, and the daemon
    /// once nothing was said of that for longer than a tick may take.
    async fn silenced(app: &App, failpoints: &str) -> (Duration, Daemon) {
        let path = app.dir().join("notify");
        let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
        let environment = [
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("TENANTD_FAILPOINTS", failpoints),
        ];
        let daemon = app.spawn_daemon(&[], &environment);
        let (start, mut last) = (Instant::now(), None);
        while last.is_none_or(|last: Instant| last.elapsed() < Duration::from_secs(15)) {
            assert!(
                start.elapsed() < Duration::from_secs(150),
                "{}",
                daemon.log()
            );
            let mut said = [0; 256];
            let heard = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut said)).await;
            let Ok(Ok(length)) = heard else { continue };
            if said[..length].windows(10).any(|part| part == b"WATCHDOG=1") {
                last = Some(Instant::now());
            }
        }
        (last.unwrap() - start, daemon)
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_tells_systemd_no_longer_that_it_lives() {
        let (loops, threads) = (App::new("loop_hangs").await, App::new("threads_hang").await);
        threads.tenant(1).await;
        let ((hung, daemon), (blocked, deaf)) = tokio::join!(
            silenced(&loops, "sweep.begins=sleep:1h@3"),
            silenced(
                &threads,
                "sweep.begins=block:1h@3;reconcile.looked=block:1h"
            ),
        );
        // WatchdogSec is another minute.
        println!("silent after {hung:?}, and after {blocked:?}");
        assert!((80..=100).contains(&hung.as_secs()), "{}", daemon.log());
        let (code, body) = daemon.get("/livez").await;
        assert_eq!(code, 503, "{body}");
        assert!(
            body.contains("the sweeper loop has not come round"),
            "{body}"
        );
        assert!(blocked.as_secs() < 20, "{}", deaf.log());
        let asked = tokio::time::timeout(Duration::from_secs(2), deaf.get("/livez"));
        assert!(asked.await.is_err(), "a probe gets no answer");
    }
}
