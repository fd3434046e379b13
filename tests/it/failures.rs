//! What becomes of a tenant whose migration fails.

use crate::support::{App, until};

/// Fails with the SQLSTATE that the tenant's data name.
const MOODY: &str = "DO $$ DECLARE code text := (SELECT label FROM items); BEGIN
    IF code IS NOT NULL THEN RAISE EXCEPTION 'moody' USING ERRCODE = code; END IF; END $$";

#[tokio::test]
async fn one_bad_tenant_is_quarantined_with_file_and_line_and_the_others_go_on() {
    let app = App::current("one_bad", 6).await;
    app.run("INSERT INTO tenant_3.items VALUES (1, 'a'), (2, 'a')")
        .await;
    app.migration(
        "0003_unique.sql",
        "-- Labels become unique.\nALTER TABLE items ADD COLUMN note text;\n\nCREATE UNIQUE INDEX items_label\n    ON items (label);",
    );
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1, 2, 4, 5, 6]).await;
    app.becomes(&daemon, "3", "quarantined 0002").await;
    let error = app.error("3");
    assert!(
        error.contains("apply 0003 to schema tenant_3: 0003_unique.sql:4: ")
            && error.contains("SQLSTATE 23505"),
        "{error}"
    );
    assert!(!error.contains("(a)"), "no customer's data: {error}");
    assert_eq!(
        app.ask("SELECT count(*) FROM information_schema.columns WHERE table_schema = 'tenant_3' AND column_name = 'note'")
            .await,
        "0"
    );
    let ran = app.tenantd(&["status", "--check"]);
    assert_eq!(ran.code, 3);
    assert!(ran.stdout.contains("tenantd fix 3"), "{}", ran.stdout);
    // A new tenant is built; the bad one stays what it is.
    app.tenant(7).await;
    app.all_ready(&daemon, [7]).await;
    assert_eq!(app.state("3").await, "quarantined 0002");
}

#[tokio::test]
async fn a_file_that_fails_in_the_middle_leaves_nothing_and_earlier_ones_stay_recorded() {
    let app = App::current("in_the_middle", 1).await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    app.migration(
        "0004_half.sql",
        "CREATE TABLE half (id bigint);\nINSERT INTO items VALUES (1, 'half');\nINSERT INTO half VALUES (1/0);\nCREATE TABLE rest (id bigint)",
    );
    app.migration("0005_after.sql", "CREATE TABLE after (id bigint)");
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("0004_half.sql:3"), "{ran:?}");
    assert_eq!(app.state("1").await, "quarantined 0003");
    assert_eq!(
        app.ask("SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'tenant_1'")
            .await,
        "items notes tags"
    );
    assert_eq!(app.ask("SELECT count(*) FROM tenant_1.items").await, "0");
    assert_eq!(
        app.ask("SELECT string_agg(version, ' ' ORDER BY ordinal) FROM tenantd.applied")
            .await,
        "0001 0002 0003"
    );
    let comment = app
        .ask("SELECT obj_description('tenant_1'::regnamespace)")
        .await;
    assert!(comment.starts_with("tenantd: 0003 "), "{comment}");
    // An empty schema gets all or nothing.
    app.tenant(2).await;
    assert_eq!(app.tenantd(&["migrate", "2"]).code, 4);
    assert_eq!(app.state("2").await, "quarantined -");
    assert_eq!(
        app.ask("SELECT to_regnamespace('tenant_2')::text").await,
        "-"
    );
}

#[tokio::test]
async fn an_error_is_placed_in_its_file_whatever_the_text_before_it_holds() {
    let app = App::current("placed", 1).await;
    app.migration(
        "0003_text.sql",
        "-- é 🦀 \u{44f}\nINSERT INTO items VALUES (1, 'é;\n🦀 $$ ; --');\nCREATE FUNCTION f() RETURNS text LANGUAGE sql AS $f$ SELECT ';' $f$; -- no end",
    );
    app.migration(
        "0004_bad.sql",
        "/* é\n*/ INSERT INTO items VALUES (2, 'ü');\n\nINSERT INTO\n  nowhere VALUES (1);",
    );
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    let error = app.error("1");
    assert!(
        error.contains("0004_bad.sql:5: relation \"nowhere\""),
        "{error}"
    );
    assert_eq!(app.state("1").await, "quarantined 0003");
}

#[tokio::test]
async fn a_terminal_error_quarantines_and_the_tenant_serves_its_old_version() {
    let app = App::current("quarantined", 1).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'a'), (2, 'a')")
        .await;
    app.migration("0003_unique.sql", "CREATE UNIQUE INDEX ON items (label);");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    assert_eq!(app.ask("SELECT tenantd.ready('1', '0002')").await, "t");
    // Another set releases it.
    app.migration("0003_unique.sql", "CREATE INDEX ON items (label);");
    daemon.signal("HUP");
    app.becomes(&daemon, "1", "current 0003").await;
}

#[tokio::test]
async fn a_transient_error_is_tried_again_and_never_quarantines() {
    let app = App::current("failed", 1).await;
    app.configure("[retry]\nattempts = 2\ninitial = \"50ms\"\nmax = \"100ms\"");
    app.run("INSERT INTO tenant_1.items VALUES (1, '40001')")
        .await;
    app.migration("0003_moody.sql", MOODY);
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "failed 0002").await;
    until("more attempts than would quarantine it", async || {
        let attempts = app.ask("SELECT attempts FROM tenantd.tenant").await;
        (attempts.parse::<u32>().unwrap() >= 4, daemon.log())
    })
    .await;
    assert_eq!(app.ask("SELECT tenantd.ready('1', '0002')").await, "t");
    app.run("DELETE FROM tenant_1.items").await;
    app.becomes(&daemon, "1", "current 0003").await;
}

#[tokio::test]
async fn an_error_that_nobody_knows_quarantines_after_some_attempts() {
    let app = App::current("unknown_error", 1).await;
    app.configure("[retry]\nattempts = 3\ninitial = \"50ms\"\nmax = \"100ms\"");
    app.run("INSERT INTO tenant_1.items VALUES (1, '58030')")
        .await;
    app.migration("0003_moody.sql", MOODY);
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    assert_eq!(
        app.ask(
            "SELECT concat_ws(' ', attempts, error_sqlstate, error_version) FROM tenantd.tenant"
        )
        .await,
        "3 58030 0003"
    );
}

#[tokio::test]
async fn what_an_administrator_cancels_is_tried_again() {
    let app = App::current("cancelled", 1).await;
    app.configure("[retry]\ninitial = \"50ms\"\nmax = \"100ms\"");
    app.migration("0003_sleep.sql", "SELECT pg_sleep(20);");
    let daemon = app.daemon().await;
    until("it to be cancelled twice", async || {
        app.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
            .await;
        let attempts = app.ask("SELECT attempts FROM tenantd.tenant").await;
        (attempts.parse::<u32>().unwrap() >= 2, daemon.log())
    })
    .await;
    assert_eq!(app.state("1").await, "failed 0002");
    assert!(app.error("1").contains("due to user request"));
}

#[tokio::test]
async fn what_fails_on_many_tenants_alike_is_told_once_and_then_counted() {
    let app = App::current("alike", 64).await;
    app.migration(
        "0003_conflict.sql",
        "DO $$ BEGIN RAISE 'tuple concurrently updated' USING ERRCODE = 'XX000'; END $$;",
    );
    // No window passes without a failure: that would be a new beginning.
    app.configure("[retry]\ninitial = \"1s\"\nmax = \"1s\"");
    let daemon = app.daemon().await;
    let warned = || {
        let log = daemon.log();
        let about = |line: &&str| line.contains(" WARN ") && line.contains("XX000");
        let lines: Vec<_> = log.lines().filter(about).map(ToOwned::to_owned).collect();
        lines
    };
    until("the others to be counted", async || {
        (warned().len() > 1, daemon.log())
    })
    .await;
    let warned = warned();
    let (first, others) = warned.split_first().unwrap();
    assert!(
        first.contains("apply 0003 to schema tenant_"),
        "{warned:#?}"
    );
    for other in others {
        assert!(
            other.contains("more failures like it within 10s"),
            "{warned:#?}"
        );
    }
    let each = daemon.log().matches("failed: apply 0003").count();
    assert!(each > 20, "{each} failures have a line of their own");
}
