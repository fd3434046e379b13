//! The listener and its notifications (faults 1 to 16).

use std::time::{Duration, Instant};

use super::recovered;
use crate::support::{App, Link, Proxy, database::shared, oracles, until};

/// Waits until the daemon has listened anew this often.
async fn reconnected(daemon: &crate::support::Daemon, times: f64) {
    until("it to listen again", async || {
        let again = daemon.metric("tenantd_listener_reconnects_total").await >= times;
        let listens = daemon.metric("tenantd_listener_connected").await == 1.0;
        (again && listens, daemon.log())
    })
    .await;
}

#[tokio::test]
async fn a_listener_whose_backend_is_terminated_listens_again_within_two_seconds() {
    let app = App::new("terminated").await;
    let daemon = app.quiet_daemon().await;
    let (start, pid) = (Instant::now(), app.listener_pid().await);
    app.run(&format!("SELECT pg_terminate_backend({pid})"))
        .await;
    app.tenant(1).await;
    reconnected(&daemon, 1.0).await;
    app.all_ready(&daemon, [1]).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{}", daemon.log());
    recovered(start);
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn tenants_inserted_while_the_listener_is_cut_off_are_found_when_it_returns() {
    let app = App::new("cut_off").await;
    let proxy = Proxy::to(shared().await.port()).await;
    app.lead(None, Some(&proxy));
    let daemon = app.quiet_daemon().await;
    proxy.set(Link::Cut);
    until("it to notice", async || {
        (
            daemon.metric("tenantd_listener_connected").await == 0.0,
            daemon.log(),
        )
    })
    .await;
    for id in 1..=20 {
        app.tenant(id).await;
    }
    proxy.set(Link::Pass);
    let start = Instant::now();
    app.all_ready(&daemon, 1..=20).await;
    recovered(start);
    assert!(start.elapsed() < Duration::from_secs(2), "{}", daemon.log());
    oracles(&app, &daemon).await;
}
