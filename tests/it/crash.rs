//! Several daemons, and daemons and servers that die in the middle.

use crate::support::{App, until};

/// How many different shapes the tenants' schemas have.
const SHAPES: &str = "SELECT count(DISTINCT shape) FROM (
    SELECT table_schema, string_agg(concat_ws(' ', table_name, column_name, ordinal_position, data_type, is_nullable, column_default),
                                    ', ' ORDER BY table_name, column_name) AS shape
    FROM information_schema.columns WHERE table_schema LIKE 'tenant\\_%' GROUP BY 1) s";

/// Tells the application's table that it ran, from where no one can look: a block.
fn counted(file: &str) -> String {
    format!(
        "DO $$ BEGIN INSERT INTO public.ran VALUES ('{file}', current_schema()); PERFORM pg_sleep(0.02); END $$;"
    )
}

async fn with_counter(hint: &str) -> App {
    let app = App::new(hint).await;
    app.run("CREATE TABLE public.ran (file text, schema text)")
        .await;
    app
}

/// Files that ran more or less than once for a tenant, and what the ledger says about it.
async fn not_once(app: &App, file: &str, tenants: i64) -> String {
    app.ask(&format!(
        "SELECT concat_ws(' ', {tenants} - count(DISTINCT schema), count(*) - count(DISTINCT schema),
                {tenants} - (SELECT count(*) FROM tenantd.applied WHERE version = '{file}'))
         FROM public.ran WHERE file = '{file}'"
    ))
    .await
}

#[tokio::test]
async fn two_daemons_apply_each_file_to_each_tenant_once() {
    let app = with_counter("two").await;
    app.migration("0003_count.sql", &counted("0003"));
    let (one, two) = (app.daemon().await, app.daemon().await);
    for id in 1..=30 {
        app.tenant(id).await;
    }
    app.all_ready(&one, 1..=30).await;
    assert_eq!(not_once(&app, "0003", 30).await, "0 0 0");
    app.migration("0004_count.sql", &counted("0004"));
    app.migration("0005_more.sql", "ALTER TABLE items ADD COLUMN more text;");
    one.signal("HUP");
    two.signal("HUP");
    until("both to have loaded the set", async || {
        let loaded = |log: String| log.contains("head is 0005");
        (loaded(one.log()) && loaded(two.log()), one.log())
    })
    .await;
    app.all_ready(&one, 1..=30).await;
    assert_eq!(not_once(&app, "0004", 30).await, "0 0 0");
    assert_eq!(app.ask(SHAPES).await, "1");
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.tenant WHERE state <> 'current' OR attempts > 0 OR error IS NOT NULL").await,
        "0"
    );
    let both = app
        .ask("SELECT count(DISTINCT instance) FROM tenantd.applied")
        .await;
    assert_eq!(both, "2", "both had their share");
}

#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_a_rollout_leaves_only_work_to_do() {
    let app = with_counter("killed").await;
    for id in 1..=40 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    for (version, name) in [("0003", "a"), ("0004", "b"), ("0005", "c")] {
        app.migration(
            &format!("{version}_{name}.sql"),
            &format!(
                "ALTER TABLE items ADD COLUMN {name} text;\n{}\nCREATE TABLE {name} (id bigint REFERENCES items);",
                counted(version)
            ),
        );
    }
    for round in 1..=3 {
        let mut daemon = app.start();
        until("some work to be done", async || {
            let done = app
                .ask("SELECT count(*) FROM tenantd.applied WHERE ordinal > 2")
                .await;
            (done.parse::<u32>().unwrap() >= round * 20, daemon.log())
        })
        .await;
        daemon.signal("KILL");
        daemon.ended().await;
        let lag = app
            .ask("SELECT count(*) FROM tenantd.tenant WHERE version < '0005'")
            .await;
        assert_ne!(lag, "0", "it was killed too late");
    }
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=40).await;
    for file in ["0003", "0004", "0005"] {
        assert_eq!(not_once(&app, file, 40).await, "0 0 0", "{file}");
    }
    assert_eq!(app.ask(SHAPES).await, "1");
    // As one that was never disturbed.
    app.tenant(99).await;
    app.all_ready(&daemon, [99]).await;
    assert_eq!(app.ask(SHAPES).await, "1");
}

#[tokio::test]
async fn a_daemon_killed_while_it_fills_new_schemas_leaves_whole_ones_or_none() {
    let app = with_counter("killed_new").await;
    app.migration("0003_count.sql", &counted("0003"));
    for id in 1..=40 {
        app.silent_tenant(id).await;
    }
    let mut daemon = app.start();
    until("some work to be done", async || {
        let done = app.ask("SELECT count(*) FROM public.ran").await;
        (done.parse::<u32>().unwrap() >= 5, daemon.log())
    })
    .await;
    daemon.signal("KILL");
    daemon.ended().await;
    // What was sent may still commit; what did not leaves no schema.
    until("the server to notice", async || {
        let left = app
            .ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tenantd/%' AND datname = current_database()")
            .await;
        (left == "0", left)
    })
    .await;
    assert_eq!(
        app.ask("SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_%') - (SELECT count(*) FROM tenantd.tenant WHERE version = '0003')").await,
        "0"
    );
    assert_eq!(app.ask(SHAPES).await, "1");
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=40).await;
    assert_eq!(not_once(&app, "0003", 40).await, "0 0 0");
}

#[tokio::test]
async fn sessions_that_the_server_ends_cost_an_attempt_and_nothing_else() {
    let app = with_counter("sessions").await;
    app.configure("[retry]\ninitial = \"50ms\"\nmax = \"200ms\"");
    for id in 1..=20 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.migration("0003_count.sql", &counted("0003"));
    let daemon = app.start();
    for round in 1..=4 {
        until("work to go on", async || {
            let done = app.ask("SELECT count(*) FROM public.ran").await;
            (done.parse::<u32>().unwrap() >= round * 3, daemon.log())
        })
        .await;
        app.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tenantd/%' AND datname = current_database()")
            .await;
    }
    app.all_ready(&daemon, 1..=20).await;
    assert_eq!(not_once(&app, "0003", 20).await, "0 0 0");
    assert_eq!(
        app.ask("SELECT count(*) FROM tenantd.tenant WHERE state = 'quarantined'")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_reload_that_loses_its_database_is_tried_again() {
    let app = App::current("reload", 1).await;
    let daemon = app.quiet_daemon().await;
    let other = app.db.connect().await;
    other
        .batch_execute("BEGIN; LOCK TABLE tenantd.migration")
        .await
        .unwrap();
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    daemon.signal("HUP");
    until("the reload to be under way", async || {
        let ended = app
            .ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'tenantd/%' AND datname = current_database()")
            .await;
        (ended != "0", daemon.log())
    })
    .await;
    other.batch_execute("ROLLBACK").await.unwrap();
    app.becomes(&daemon, "1", "current 0003").await;
    assert!(daemon.log().contains("stays for now"), "{}", daemon.log());
}
