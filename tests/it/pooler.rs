//! PgBouncer in transaction mode in front of the workers: no session is our own.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use crate::support::{App, oracles, pooler::Pooler, until};

/// Everything through the pooler but LISTEN and what needs a session.
async fn pooled(hint: &str, connections: u32) -> (App, Pooler) {
    let app = App::new(hint).await;
    let pooler = Pooler::start(&app, connections).await;
    app.configure_in("database", &format!("listen_url = \"{}\"", app.db.conninfo));
    app.connect_to(&pooler.conninfo());
    (app, pooler)
}

#[tokio::test]
async fn tenants_forced_onto_one_backend_stay_apart() {
    let (app, _pooler) = pooled("pooled", 1).await;
    app.migration(
        "0003_block.sql",
        "DO $$ BEGIN CREATE TABLE made (here text DEFAULT current_schema()); INSERT INTO made DEFAULT VALUES; END $$;",
    );
    let daemon = app.daemon().await;
    for id in 1..=8 {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, 1..=8).await;
    app.migration("0004_more.sql", "ALTER TABLE items ADD COLUMN more int;\nINSERT INTO items VALUES (1, current_schema(), 1);");
    app.migration(
        "0005_index.sql",
        "CREATE INDEX CONCURRENTLY items_more ON items (more);",
    );
    daemon.signal("HUP");
    for id in 1..=8 {
        app.becomes(&daemon, &id.to_string(), "current 0005").await;
        let label = app
            .ask(&format!("SELECT label FROM tenant_{id}.items"))
            .await;
        let here = app.ask(&format!("SELECT here FROM tenant_{id}.made")).await;
        assert_eq!(
            (label, here),
            (format!("tenant_{id}"), format!("tenant_{id}"))
        );
    }
    let elsewhere = "SELECT count(*) FROM pg_tables WHERE tablename IN ('items', 'made') AND schemaname NOT LIKE 'tenant\\_%'";
    assert_eq!(app.ask(elsewhere).await, "0");
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                 WHERE locktype = 'advisory' AND datname = current_database()";
    until("no lock to be left", async || {
        let left = app.ask(locks).await;
        (left == "0", left)
    })
    .await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_file_that_fails_behind_a_pooler_leaves_nothing_for_the_next_tenant() {
    let (app, _pooler) = pooled("pooled", 1).await;
    app.migration(
        "0003_unique.sql",
        "INSERT INTO items VALUES (7, 'x');\nCREATE TABLE late ();",
    );
    let daemon = app.daemon().await;
    app.run("CREATE SCHEMA tenant_1; CREATE TABLE tenant_1.late ()")
        .await;
    for id in 1..=4 {
        app.tenant(id).await;
    }
    app.all_ready(&daemon, 2..=4).await;
    app.becomes(&daemon, "1", "untracked -").await;
    app.migration(
        "0004_fails.sql",
        "ALTER TABLE items ADD CONSTRAINT low CHECK (id < 5);",
    );
    app.run("DELETE FROM tenant_3.items").await;
    daemon.signal("HUP");
    app.becomes(&daemon, "3", "current 0004").await;
    app.becomes(&daemon, "2", "quarantined 0003").await;
    app.becomes(&daemon, "4", "quarantined 0003").await;
}

#[tokio::test]
async fn who_is_in_the_way_is_seen_through_a_pooler() {
    let (app, _pooler) = pooled("pooled", 3).await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    app.run("SET application_name = 'shop'; BEGIN; SELECT count(*) FROM tenant_1.items")
        .await;
    app.migration("0003_more.sql", "ALTER TABLE items ADD COLUMN more int;");
    until("the one in the way to be named", async || {
        // The first attempts wait for as little as 100 ms.
        let ran = app.tenantd(&["migrate", "1"]);
        let named = ran.stdout.contains("waited for process")
            && ran.stdout.contains("(shop, user postgres)");
        (named, format!("{ran:?}"))
    })
    .await;
}

/// A tenant with tables, and a file for it that needs a session of its own.
async fn with_an_index_to_build(hint: &str) -> App {
    let app = App::current(hint, 1).await;
    app.migration(
        "0003_index.sql",
        "CREATE INDEX CONCURRENTLY items_label ON items (label);",
    );
    app
}

/// What a migration of tenant 1 says, which is that it was refused and not begun.
async fn refused(app: &App) -> String {
    let ran = app.tenantd(&["migrate", "1"]);
    assert!(ran.code != 0, "{ran:?}");
    let expected = "0003_index.sql runs outside a transaction and needs a session of its own, and a pooler is in between";
    let said = app.error("1");
    assert!(said.contains(expected), "{said}");
    assert!(said.contains("set database.listen_url"), "{said}");
    assert_eq!(app.state("1").await, "failed 0002");
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.outside").await, "0");
    said
}

#[tokio::test]
async fn a_file_outside_a_transaction_is_refused_behind_a_pooler_until_there_is_a_way_past_it() {
    let app = with_an_index_to_build("unpooled").await;
    let pooler = Pooler::start(&app, 1).await;
    app.connect_to(&pooler.conninfo());
    let said = refused(&app).await;
    assert!(said.contains("port=6432"), "{said}");
    app.configure_in("database", &format!("listen_url = \"{}\"", app.db.conninfo));
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
}

#[tokio::test]
async fn a_pooler_that_swallows_options_is_noticed_too_and_so_is_one_at_listen_url() {
    let app = with_an_index_to_build("swallows").await;
    let more = "ignore_startup_parameters = options";
    let pooler = Pooler::start_with(&app, 2, more).await;
    app.configure_in(
        "database",
        &format!("listen_url = \"{}\"", pooler.conninfo()),
    );
    refused(&app).await;
    app.connect_to(&pooler.conninfo());
    refused(&app).await;
}
