//! Which server is worked on: a primary, the one seen before, none that a failover left behind.

use std::time::{Duration, Instant};

use crate::{
    faults::recovered,
    support::{App, Link, Proxy, more::finish, postgres::Server, until},
};

#[tokio::test]
async fn of_several_hosts_the_primary_is_taken() {
    let server = Server::with(&[]).await;
    let app = App::on_server(&server, "hosts").await;
    app.tenantd(&["install"]).ok();
    let standby = server.standby().await;
    let text = std::fs::read_to_string(app.config()).unwrap();
    let url = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname={}",
        standby.port(),
        server.port(),
        app.db.name
    );
    std::fs::write(app.config(), text.replace(&app.db.conninfo, &url)).unwrap();
    let daemon = app.daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
pub(crate) async fn a_promoted_standby_is_followed_and_the_old_primary_is_not_taken_back() {
    let old = Server::with(&[]).await;
    let mut app = App::on_server(&old, "failover").await;
    app.tenantd(&["install"]).ok();
    let new = old.standby().await;
    let proxy = Proxy::to(old.port());
    app.lead(Some(&proxy), None);
    let daemon = app.daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    app.answers("SELECT timeline FROM tenantd.server", "1")
        .await;
    let new_sql = new.connect(&app.db.name).await;
    until("the standby to have caught up", async || {
        let row = new_sql
            .query_one("SELECT tenantd.ready('1')", &[])
            .await
            .unwrap();
        (row.get(0), "it has not".into())
    })
    .await;
    new.promote().await;
    proxy.lead_to(new.port());
    proxy.set_open(Link::Cut);
    let start = Instant::now();
    let old_sql = std::mem::replace(&mut app.sql, new_sql);
    app.silent_tenant(2).await;
    app.all_ready(&daemon, 1..=2).await;
    println!("at work on the new primary after {:?}", start.elapsed());
    recovered(start);
    assert!(start.elapsed() < Duration::from_secs(15));
    app.answers("SELECT timeline FROM tenantd.server", "2")
        .await;
    // Nobody told the old one, and the address leads there again.
    proxy.lead_to(old.port());
    proxy.set_open(Link::Cut);
    until("the old primary to be refused", async || {
        let (code, body) = daemon.get("/readyz").await;
        (
            code == 503 && body.contains("timeline 1, and timeline 2"),
            format!("{body}\n{}", daemon.log()),
        )
    })
    .await;
    old_sql
        .batch_execute("INSERT INTO public.tenants (id) VALUES (3)")
        .await
        .unwrap();
    proxy.lead_to(new.port());
    app.silent_tenant(4).await;
    app.all_ready(&daemon, [4]).await;
    let built = "SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_3'";
    let row = old_sql.query_one(built, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "nothing was done there");
}

#[tokio::test]
async fn sessions_that_became_read_only_are_not_used_again() {
    let app = App::new("read_only").await;
    let daemon = app.daemon().await;
    let all = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tenantd/work' AND datname = current_database()";
    let name = &app.db.name;
    app.run(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tenantd/work' AND datname = current_database()"
    ))
    .await;
    until("it to say so", async || {
        let (code, body) = daemon.get("/readyz").await;
        (
            code == 503 && body.contains("read-only"),
            format!("{body}\n{}", daemon.log()),
        )
    })
    .await;
    // One may be looked at right now.
    until("no session to be kept", async || {
        (app.ask(all).await == "0", daemon.log())
    })
    .await;
    app.run(&format!(
        "ALTER DATABASE {name} RESET default_transaction_read_only"
    ))
    .await;
    app.silent_tenant(1).await;
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
async fn a_copy_of_the_database_on_another_server_is_left_alone_until_it_is_installed() {
    let app = App::new("copied").await;
    app.tenant(1).await;
    app.run("UPDATE tenantd.server SET system_identifier = 42")
        .await;
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("was copied from another"), "{ran:?}");
    app.tenantd(&["status"]).ok();
    let daemon = app.start();
    until("it to say why it waits", async || {
        let (code, body) = daemon.get("/readyz").await;
        (
            code == 503 && body.contains("tenantd install"),
            format!("{body}\n{}", daemon.log()),
        )
    })
    .await;
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.tenant").await,
        "0",
        "nothing was done"
    );
    let ran = app.tenantd(&["install"]).ok();
    assert!(ran.stdout.contains("accepted this server"), "{ran:?}");
    app.all_ready(&daemon, [1]).await;
}

/// It waits a while for log lines that must not come.
pub(crate) mod slow {
    use super::*;

    #[tokio::test]
    pub(crate) async fn a_standby_is_refused_at_the_start_and_the_primary_is_taken_when_it_is_there()
     {
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "start_standby").await;
        app.tenantd(&["install"]).ok();
        let standby = server.standby().await;
        let proxy = Proxy::to(standby.port());
        app.lead(Some(&proxy), None);
        // Not waited for by blocking: the proxy runs in this process.
        let refused = finish(app.spawn(&["status"])).await;
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("is a standby"), "{refused:?}");
        let daemon = app.start();
        until("it to say why it waits", async || {
            let (code, body) = daemon.get("/readyz").await;
            (
                code == 503 && body.contains("is a standby"),
                format!("{body}\n{}", daemon.log()),
            )
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(
            daemon.log().matches("waiting for the database").count(),
            1,
            "one line for one cause"
        );
        proxy.lead_to(server.port());
        app.tenant(1).await;
        app.all_ready(&daemon, [1]).await;
    }
}

#[tokio::test]
async fn a_way_past_the_pooler_that_leads_to_another_server_is_not_taken() {
    let app = App::current("elsewhere", 1).await;
    let other = Server::with(&[]).await;
    other.create_database(&app.db.name).await;
    app.migration(
        "0003_index.sql",
        "CREATE INDEX CONCURRENTLY items_label ON items (label);",
    );
    let elsewhere = other.conninfo(&app.db.name);
    app.configure_in("database", &format!("listen_url = \"{elsewhere}\""));
    let ran = app.tenantd(&["migrate", "1"]);
    let said = format!("{ran:?}");
    assert!(said.contains("this is another server"), "{said}");
    assert_eq!(app.state("1").await, "behind 0002");
}
