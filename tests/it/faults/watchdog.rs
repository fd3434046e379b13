//! What systemd hears of a loop that stands still (fault 59). The test listens in its place.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use super::recovered;
use crate::support::{App, oracles, until, until_within};

/// What the daemon has said since the last call.
fn told(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        socket
            .recv(&mut buffer)
            .ok()
            .map(|read| buffer[..read].to_vec())
    })
    .map(|message| String::from_utf8(message).unwrap())
    .collect()
}

/// A loop is given 90 s.
mod slow {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_stands_still_is_named_and_the_watchdog_is_no_longer_fed() {
        let app = App::new("wedged").await;
        let path = app.dir().join("systemd");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let wedged = app.spawn_daemon(
            &[],
            &[
                ("NOTIFY_SOCKET", path.to_str().unwrap()),
                ("TENANTD_FAILPOINTS", "sweep.begins=sleep:1h@5"),
            ],
        );
        let mut heard = String::new();
        until("the watchdog to be fed", async || {
            heard.push_str(&told(&socket).concat());
            let fed = heard.contains("READY=1") && heard.contains("WATCHDOG=1");
            (fed, format!("{heard}\n{}", wedged.log()))
        })
        .await;
        until_within(
            Duration::from_secs(180),
            "the loop to be missed",
            async || {
                let (code, body) = wedged.get("/livez").await;
                (
                    code == 503 && body.contains("the sweeper loop has not come round"),
                    body,
                )
            },
        )
        .await;
        told(&socket);
        let mut since = Vec::new();
        until("three more rounds", async || {
            since.extend(told(&socket));
            let rounds = since.iter().filter(|text| text.contains("STATUS=")).count();
            (rounds >= 3, format!("{since:?}"))
        })
        .await;
        assert!(!since.concat().contains("WATCHDOG=1"), "{since:?}");
        // Events are worked on all the same, and the daemon that systemd starts in its place finds the rest.
        app.tenant(1).await;
        app.all_ready(&wedged, [1]).await;
        app.silent_tenant(2).await;
        drop(wedged);
        let start = Instant::now();
        let daemon = app.daemon().await;
        app.all_ready(&daemon, [2]).await;
        recovered(start);
        oracles(&app, &daemon).await;
    }
}
