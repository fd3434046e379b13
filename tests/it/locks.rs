//! The application works on while its tables are migrated.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_postgres::Client;

use crate::{
    faults::recovered,
    support::{App, Link, Proxy, database::shared, until},
};

const FAST: &str = "[retry]\ninitial = \"100ms\"\nmax = \"300ms\"";

/// Writes to a tenant's table until told to stop; ends with how often it did.
fn customer(
    client: Client,
    stop: Arc<AtomicBool>,
    rows: Arc<AtomicU32>,
) -> tokio::task::JoinHandle<Result<(), tokio_postgres::Error>> {
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let id = i64::from(rows.fetch_add(1, Ordering::Relaxed));
            client
                .execute(
                    "INSERT INTO tenant_1.items (id, label) VALUES ($1, 'x')",
                    &[&id],
                )
                .await?;
        }
        Ok(())
    })
}

/// A session of the application's, and its process, that reads items of tenant 1 in a transaction it leaves open.
async fn shop(app: &App) -> (Client, i32) {
    let client = app.db.connect().await;
    client
        .batch_execute("SET application_name = 'shop'; BEGIN; SELECT count(*) FROM tenant_1.items")
        .await
        .unwrap();
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
    let pid = row.unwrap().get(0);
    (client, pid)
}

#[tokio::test]
pub(crate) async fn a_lock_of_the_applications_blocks_the_tenant_alone_and_names_who_holds_it() {
    let app = App::current("blocked", 3).await;
    app.configure(FAST);
    let (holder, pid) = shop(&app).await;
    let (stop, rows) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let customer = customer(app.db.connect().await, Arc::clone(&stop), Arc::clone(&rows));
    app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "blocked 0002").await;
    app.all_ready(&daemon, [2, 3]).await;
    until("a second attempt", async || {
        let attempts = app
            .ask("SELECT attempts FROM tenantd.tenant WHERE tenant_id = '1'")
            .await;
        (attempts.parse::<u32>().unwrap() >= 2, daemon.log())
    })
    .await;
    let report = app
        .tenantd(&["status", "1", "--output", "json"])
        .ok()
        .json();
    let error = report["tenants"][0]["error"].as_str().unwrap();
    assert!(
        error.contains("0003_note.sql:1: ")
            && error.contains(&format!("waited for process {pid} (shop, user postgres)")),
        "{error}"
    );
    let flags =
        "SELECT concat_ws(' ', tenantd.ready('1'), tenantd.ready('1', '0002'), tenantd.wakes('1'))";
    assert_eq!(app.ask(flags).await, "f t f");
    // A login spends no attempt.
    app.login(1).await;
    assert_eq!(daemon.events("dashboard_login", "queued").await, 0.0);
    let before = rows.load(Ordering::Relaxed);
    until("the customer to go on writing", async || {
        (rows.load(Ordering::Relaxed) > before, daemon.log())
    })
    .await;
    holder.batch_execute("COMMIT").await.unwrap();
    let start = Instant::now();
    app.becomes(&daemon, "1", "current 0003").await;
    recovered(start);
    stop.store(true, Ordering::Relaxed);
    customer
        .await
        .unwrap()
        .expect("the application never fails because of us");
    assert_eq!(
        app.ask("SELECT concat(error, attempts) FROM tenantd.tenant WHERE tenant_id = '1'")
            .await,
        "0"
    );
}

/// The application has read notes and then wants items, while this file holds items and then wants notes. The
/// application gets what it wants, and the file its turn.
async fn deadlock(app: &App, file: &str) {
    app.configure(FAST);
    app.migration("0003_both.sql", file);
    let other = app.db.connect().await;
    other
        .batch_execute("BEGIN; SELECT count(*) FROM tenant_1.notes")
        .await
        .unwrap();
    let daemon = app.daemon().await;
    until("the migration to hold its first lock", async || {
        let held = app
            .ask("SELECT count(*) FROM pg_locks WHERE relation = 'tenant_1.items'::regclass AND mode = 'AccessExclusiveLock' AND granted")
            .await;
        (held == "1", daemon.log())
    })
    .await;
    other
        .batch_execute("SELECT count(*) FROM tenant_1.items; COMMIT")
        .await
        .expect("the application wins");
    let start = Instant::now();
    app.becomes(&daemon, "1", "current 0003").await;
    recovered(start);
}

#[tokio::test]
async fn of_a_deadlock_with_the_application_tenantd_is_the_victim() {
    let app = App::current("deadlock", 1).await;
    deadlock(
        &app,
        "ALTER TABLE items ADD COLUMN a int;\nSELECT pg_sleep(0.5);\nALTER TABLE notes ADD COLUMN a int;",
    )
    .await;
}

/// The application has waited longer than we have when the circle closes, so it looks for a deadlock before we would:
/// unless we look at once.
#[tokio::test]
pub(crate) async fn of_a_deadlock_that_comes_late_tenantd_is_the_victim_too() {
    let app = App::current("late_deadlock", 1).await;
    // Not the first attempt, so that it waits for a second: longer than the application's deadlock_timeout.
    app.run("UPDATE tenantd.tenant SET state = 'blocked', attempts = 6")
        .await;
    deadlock(
        &app,
        "ALTER TABLE items ADD COLUMN a int;
         DO $$ BEGIN
             FOR n IN 1..100 LOOP
                 EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass);
                 PERFORM pg_sleep(0.005);
             END LOOP;
             PERFORM pg_sleep(0.7);
         END $$;
         ALTER TABLE notes ADD COLUMN a int;",
    )
    .await;
}

#[tokio::test]
pub(crate) async fn a_file_that_holds_a_lock_too_long_is_cancelled_unless_its_marker_allows_it() {
    const SLOW: &str = "ALTER TABLE items ADD COLUMN note text;\nSELECT pg_sleep(1.5);\n";
    let app = App::current("max_hold", 1).await;
    app.configure("[locks]\nmax_hold = \"300ms\"");
    app.migration("0003_slow.sql", SLOW);
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let error = app.ask("SELECT error FROM tenantd.tenant").await;
    assert!(
        error.contains("0003_slow.sql:2: ")
            && error.contains("-- tenantd: max_hold=")
            && error.contains("57014"),
        "{error}"
    );
    assert_eq!(
        app.ask("SELECT count(*) FROM information_schema.columns WHERE column_name = 'note'")
            .await,
        "0"
    );
    // A new tenant has no table that anybody could wait for.
    app.tenant(2).await;
    app.becomes(&daemon, "2", "current 0003").await;
    app.migration(
        "0003_slow.sql",
        &format!("-- tenantd: max_hold=30s\n{SLOW}"),
    );
    daemon.signal("HUP");
    app.becomes(&daemon, "1", "current 0003").await;
}

#[tokio::test]
async fn the_marker_of_one_file_does_not_allow_another_to_hold_on() {
    let app = App::current("max_hold_each", 1).await;
    app.configure("[locks]\nmax_hold = \"300ms\"");
    app.migration(
        "0003_marked.sql",
        "-- tenantd: max_hold=30s\nALTER TABLE items ADD COLUMN a int;\nSELECT pg_sleep(0.6);",
    );
    app.migration(
        "0004_slow.sql",
        "ALTER TABLE items ADD COLUMN b int;\nSELECT pg_sleep(10);",
    );
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(app.state("1").await, "quarantined 0003");
    let error = app.error("1");
    assert!(
        error.contains("0004_slow.sql:2: ") && error.contains("-- tenantd: max_hold="),
        "{error}"
    );
}

#[tokio::test]
async fn who_blocks_is_named_although_the_role_may_not_see_since_when() {
    let app = App::current("blocked_ordinary", 1).await;
    let role = format!("ordinary_{}", app.db.name);
    app.run(&format!("CREATE ROLE {role} LOGIN")).await;
    app.run(&format!("GRANT USAGE, CREATE ON SCHEMA tenant_1 TO {role}; ALTER TABLE tenant_1.items OWNER TO {role}; ALTER SCHEMA tenant_1 OWNER TO {role}"))
        .await;
    app.tenantd(&["install", "--role", &role]).ok();
    app.connect_as(&role);
    app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
    let (holder, pid) = shop(&app).await;
    let blocked = async |when: &str| {
        let text =
            format!("waited for process {pid} (shop, user postgres), in a transaction {when}");
        // The first attempts wait for as little as 100 ms.
        until("the one in the way to be named", async || {
            let ran = app.tenantd(&["migrate", "1"]);
            (ran.stdout.contains(&text), format!("{ran:?}"))
        })
        .await;
    };
    blocked("of unknown age (GRANT pg_read_all_stats shows it)").await;
    app.run(&format!("GRANT pg_read_all_stats TO {role}")).await;
    blocked("for 00:00:").await;
    holder.batch_execute("COMMIT").await.unwrap();
    app.tenantd(&["migrate", "1"]).ok();
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
pub(crate) async fn a_migration_of_another_session_is_waited_for_and_not_repeated() {
    let app = App::current("busy", 1).await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    let other = app.db.connect().await;
    other
        .batch_execute(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('tenantd:tenant_1', 0))",
        )
        .await
        .unwrap();
    let daemon = app.daemon().await;
    until("it to find the schema busy", async || {
        let busy = daemon.reconciles("sweep", "busy").await;
        (busy >= 1.0, daemon.log())
    })
    .await;
    assert_eq!(app.state("1").await, "behind 0002", "that is no failure");
    other.batch_execute("ROLLBACK").await.unwrap();
    app.becomes(&daemon, "1", "current 0003").await;
}

#[tokio::test]
async fn a_cancel_that_comes_when_its_file_has_committed_is_not_held_against_the_next() {
    let app = App::current("late_cancel", 1).await;
    app.configure("[locks]\nmax_hold = \"300ms\"");
    let proxy = Proxy::to(shared().await.port());
    app.lead(Some(&proxy), None);
    app.migration(
        "0003_warm.sql",
        "ALTER TABLE items ADD COLUMN a int;\nSELECT pg_sleep(0.2);",
    );
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    proxy.set_new(Link::LateCancel(Duration::from_millis(600)));
    app.migration(
        "0004_slow.sql",
        "ALTER TABLE items ADD COLUMN b int;\nSELECT pg_sleep(0.65);",
    );
    app.migration("0005_innocent.sql", "SELECT pg_sleep(1.5);");
    daemon.signal("HUP");
    until("the second file to be tried again", async || {
        let (again, log) = (daemon.reconciles("sweep", "busy").await, daemon.log());
        (again >= 1.0 || log.contains("0005_innocent.sql"), log)
    })
    .await;
    proxy.set_new(Link::Pass);
    app.becomes(&daemon, "1", "current 0005").await;
    let charged = daemon.reconciles("sweep", "failed").await
        + daemon.reconciles("sweep", "quarantined").await;
    assert!(charged < 1.0, "{}", daemon.log());
}
