//! Start, stop, several daemons, scale, hostile input (faults 50 to 60).

use std::time::Instant;

use super::recovered;
use crate::support::{App, oracles, server::freeze};

#[tokio::test]
async fn a_daemon_frozen_while_it_holds_a_tenant_applies_nothing_twice() {
    let app = App::current("frozen", 3).await;
    app.counted("0003").await;
    app.migration(
        "0004_slow.sql",
        "CREATE TABLE slow (id bigint); SELECT pg_sleep(1);",
    );
    let one = app.start();
    let sleeps = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    app.answers(sleeps, "t").await;
    let frozen = freeze(one.pid());
    let two = app.daemon().await;
    app.all_ready(&two, 1..=3).await;
    app.tenant(4).await;
    app.all_ready(&two, [4]).await;
    drop(frozen);
    let start = Instant::now();
    app.tenant(5).await;
    app.all_ready(&one, [5]).await;
    recovered(start);
    drop(two);
    oracles(&app, &one).await;
}
