//! Where NOTIFY does not work: it is noticed, said once, and replaced by looking often.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use crate::support::{App, Daemon, Link, Proxy, database::shared, pooler::Pooler, until};

const POLLING: &str = "tenantd_listener_polling{database=\"main\"}";

/// A daemon that finds tenants by events and by polling only.
fn without_sweeps(app: &App, arguments: &[&str]) -> Daemon {
    let quiet = [
        "--set",
        "sweep.interval=1h",
        "--set",
        "sweep.full_interval=1h",
    ];
    app.start_with(&[&quiet, arguments].concat())
}

async fn polls(daemon: &Daemon) {
    until("it to poll", async || {
        (daemon.metric(POLLING).await == 1.0, daemon.log())
    })
    .await;
}

/// It works by looking, and says how it is and why.
async fn works_by_looking(app: &App, daemon: &Daemon) {
    app.silent_tenant(1).await;
    app.tenant(2).await;
    app.all_ready(daemon, 1..=2).await;
    let (code, body) = daemon.get("/readyz").await;
    assert_eq!(code, 200, "{body}");
    let status: serde_json::Value = serde_json::from_str(&daemon.get("/status").await.1).unwrap();
    assert_eq!(status["daemon"]["listener"], "polling");
    let log = daemon.log();
    let said = log.matches("NOTIFY does not work here").count();
    assert!(said == 1 && log.contains("database.listen_url"), "{log}");
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_hears_nothing_three_times_is_replaced_by_polling_until_it_hears() {
        let app = App::new("deaf").await;
        let proxy = Proxy::to(shared().await.port());
        app.lead(None, Some(&proxy));
        proxy.set(Link::Deaf);
        let daemon = without_sweeps(&app, &["--set", "sweep.poll_interval=100ms"]);
        polls(&daemon).await;
        works_by_looking(&app, &daemon).await;
        proxy.set(Link::Pass);
        until("it to hear again", async || {
            let hears = daemon
                .metric("tenantd_listener_connected{database=\"main\"}")
                .await
                == 1.0;
            (hears && daemon.metric(POLLING).await == 0.0, daemon.log())
        })
        .await;
        app.tenant(3).await;
        app.all_ready(&daemon, [3]).await;
    }

    #[tokio::test]
    async fn a_transaction_pooler_that_hands_through_what_a_session_sends_itself_is_noticed() {
        let app = App::new("bouncer").await;
        let pooler = Pooler::start(&app, 1).await;
        app.configure_in(
            "database",
            &format!("listen_url = \"{}\"", pooler.conninfo()),
        );
        let daemon = without_sweeps(&app, &[]);
        polls(&daemon).await;
        works_by_looking(&app, &daemon).await;
    }
}
