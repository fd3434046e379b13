//! What a person does about a tenant that needs one: adopt, fix, rebuild.

use crate::support::{App, until};

const ITEMS: &str = "CREATE TABLE tenant_1.items (id bigint PRIMARY KEY, label text)";
const NOTES: &str = "CREATE TABLE tenant_1.notes (id bigint PRIMARY KEY, body text)";

/// An application with one current tenant.
async fn current(hint: &str) -> App {
    let app = App::new(hint).await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    app
}

/// Version and way of each file in the ledger.
async fn applied(app: &App) -> String {
    app.ask(
        "SELECT string_agg(a.version || ' ' || a.how, ', ' ORDER BY a.ordinal)
         FROM tenantd.applied a JOIN tenantd.tenant t ON t.id = a.tenant WHERE t.tenant_id = '1'",
    )
    .await
}

#[tokio::test]
async fn an_untracked_schema_that_equals_a_fresh_one_is_adopted() {
    let app = App::new("adopt_equal").await;
    app.run(&format!(
        "CREATE SCHEMA tenant_1; COMMENT ON SCHEMA tenant_1 IS 'ours'; {ITEMS}; {NOTES}"
    ))
    .await;
    app.tenant(1).await;
    assert_eq!(app.state("1").await, "untracked -");
    let ran = app.tenantd(&["adopt", "1", "--dry-run"]).ok();
    assert!(ran.stdout.contains("would be adopted at 0002"), "{ran:?}");
    assert_eq!(app.state("1").await, "untracked -");
    app.tenantd(&["adopt", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0002");
    assert_eq!(applied(&app).await, "0001 adopted, 0002 adopted");
    let comment = app
        .ask("SELECT obj_description('tenant_1'::regnamespace)")
        .await;
    assert!(comment.starts_with("ours\ntenantd: 0002 "), "{comment}");
}

#[tokio::test]
async fn an_untracked_schema_that_differs_is_adopted_only_at_its_version_or_by_force() {
    let app = App::new("adopt_different").await;
    app.run(&format!("CREATE SCHEMA tenant_1; {ITEMS}")).await;
    app.tenant(1).await;
    let ran = app.tenantd(&["adopt", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("- table notes"), "{}", ran.stderr);
    assert_eq!(app.state("1").await, "untracked -");
    // At the version it really has, the rest is applied.
    app.tenantd(&["adopt", "1", "--version", "0001"]).ok();
    assert_eq!(app.state("1").await, "current 0002");
    assert_eq!(applied(&app).await, "0001 adopted, 0002 applied");

    app.run("CREATE SCHEMA tenant_2; CREATE TABLE tenant_2.items (id bigint PRIMARY KEY, label text, extra int)")
        .await;
    app.tenant(2).await;
    let ran = app.tenantd(&["adopt", "2", "--version", "0001"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("+ column items.extra integer"),
        "{}",
        ran.stderr
    );
    let ran = app
        .tenantd(&["adopt", "2", "--version", "0001", "--force"])
        .ok();
    assert!(
        ran.stderr.contains("+ column items.extra integer"),
        "{}",
        ran.stderr
    );
    assert_eq!(app.state("2").await, "current 0002");
    assert_eq!(
        app.ask("SELECT count(extra) FROM tenant_2.items").await,
        "0"
    );
    let schemas = app
        .ask("SELECT string_agg(nspname, ' ' ORDER BY nspname COLLATE \"C\") FROM pg_namespace WHERE nspname !~ '^pg_|^information'")
        .await;
    assert_eq!(
        schemas, "public tenant_1 tenant_2 tenantd",
        "the fresh build leaves nothing"
    );
}

#[tokio::test]
async fn a_schema_restored_from_an_older_backup_is_adopted_and_brought_forward() {
    let app = current("adopt_restored").await;
    let stamp = app
        .ask("SELECT 'tenantd: 0001 ' || digest FROM tenantd.migration WHERE ordinal = 1")
        .await;
    app.run(&format!(
        "DROP SCHEMA tenant_1 CASCADE; CREATE SCHEMA tenant_1; {ITEMS}; COMMENT ON SCHEMA tenant_1 IS '{stamp}';
         INSERT INTO tenant_1.items VALUES (1, 'saved')"
    ))
    .await;
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "restored 0002").await;
    app.tenantd(&["adopt", "1"]).ok();
    app.becomes(&daemon, "1", "current 0002").await;
    app.all_ready(&daemon, [1]).await;
    assert_eq!(applied(&app).await, "0001 applied, 0002 applied");
    assert_eq!(
        app.ask("SELECT label FROM tenant_1.items LEFT JOIN tenant_1.notes USING (id)")
            .await,
        "saved"
    );
}

#[tokio::test]
async fn a_schema_with_the_stamp_of_no_known_set_needs_a_version() {
    let app = current("adopt_stranger").await;
    app.run(&format!(
        "COMMENT ON SCHEMA tenant_1 IS 'tenantd: 0077 {}'",
        "ab".repeat(16)
    ))
    .await;
    assert_eq!(app.state("1").await, "restored 0002");
    let ran = app.tenantd(&["adopt", "1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--version"), "{}", ran.stderr);
    app.tenantd(&["adopt", "1", "--version", "0002"]).ok();
    assert_eq!(app.state("1").await, "current 0002");
}

#[tokio::test]
async fn a_changed_file_is_accepted_by_adopting() {
    let app = current("adopt_modified").await;
    app.migration(
        "0002_notes.sql",
        "-- a comment more\nCREATE TABLE notes (id bigint PRIMARY KEY, body text);",
    );
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    assert_eq!(app.state("1").await, "modified 0002");
    app.tenantd(&["adopt", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(
        applied(&app).await,
        "0001 applied, 0002 adopted, 0003 applied"
    );
}

#[tokio::test]
async fn what_needs_no_adoption_cannot_be_adopted() {
    let app = current("adopt_nothing").await;
    app.tenant(2).await;
    for id in ["1", "2"] {
        let ran = app.tenantd(&["adopt", id, "--force"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.stderr.contains(&format!("cannot adopt tenant {id}")),
            "{ran:?}"
        );
    }
    let ran = app.tenantd(&["adopt", "3"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no tenant"), "{}", ran.stderr);
}

#[tokio::test]
async fn fix_releases_a_quarantine_after_the_data_is_mended() {
    let app = current("fix").await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'a'), (2, 'a')")
        .await;
    app.migration("0003_unique.sql", "CREATE UNIQUE INDEX ON items (label);");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let ran = app.tenantd(&["fix", "1"]);
    assert_eq!(ran.code, 4, "not mended yet: {ran:?}");
    assert!(ran.stdout.contains("0003_unique.sql:1"), "{}", ran.stdout);
    assert_eq!(app.state("1").await, "quarantined 0002");
    app.run("UPDATE tenant_1.items SET label = 'b' WHERE id = 2")
        .await;
    app.tenantd(&["fix", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(
        app.ask("SELECT concat(error, error_sqlstate, attempts) FROM tenantd.tenant")
            .await,
        "0"
    );
    app.all_ready(&daemon, [1]).await;
}

#[tokio::test]
async fn a_lost_tenant_is_built_anew_on_a_persons_word_and_the_remains_are_kept() {
    let app = current("rebuild").await;
    app.run(
        "CREATE FUNCTION tenant_1.theirs() RETURNS int LANGUAGE sql AS 'SELECT 42';
         DROP TABLE tenant_1.items, tenant_1.notes",
    )
    .await;
    assert_eq!(app.state("1").await, "lost 0002");
    assert_eq!(app.tenantd(&["fix", "1"]).code, 4, "only with --rebuild");
    assert_eq!(app.state("1").await, "lost 0002");
    app.tenantd(&["fix", "1", "--rebuild"]).ok();
    assert_eq!(app.state("1").await, "current 0002");
    assert_eq!(applied(&app).await, "0001 applied, 0002 applied");
    let remains = app
        .ask("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant\\_1\\_\\_lost\\_%'")
        .await;
    assert_eq!(app.ask(&format!("SELECT {remains}.theirs()")).await, "42");
    assert_eq!(
        app.ask(&format!(
            "SELECT state FROM tenantd.tenant WHERE schema = '{remains}'"
        ))
        .await,
        "orphan"
    );
    // A second time: the remains of both are kept.
    app.run("DROP TABLE tenant_1.items, tenant_1.notes").await;
    app.tenantd(&["fix", "1", "--rebuild"]).ok();
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_1\\_\\_lost\\_%'")
            .await,
        "2"
    );
    assert_eq!(app.tenantd(&["fix", "--rebuild"]).code, 1, "it wants names");
}

#[tokio::test]
async fn lost_tenants_are_built_anew_by_themselves_where_the_configuration_says_so() {
    let app = current("heal_lost").await;
    app.tenant(2).await;
    app.tenantd(&["migrate", "2"]).ok();
    app.configure("[heal]\nlost = \"rebuild\"");
    let daemon = app.daemon().await;
    app.run("CREATE VIEW tenant_1.theirs AS SELECT 42; DROP TABLE tenant_1.items, tenant_1.notes; DROP SCHEMA tenant_2 CASCADE")
        .await;
    for id in [1, 2] {
        until("it to be built again", async || {
            let sql = format!("SELECT to_regclass('tenant_{id}.notes') IS NOT NULL");
            (app.ask(&sql).await == "t", daemon.log())
        })
        .await;
        app.becomes(&daemon, &id.to_string(), "current 0002").await;
    }
    app.all_ready(&daemon, [1, 2]).await;
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_views WHERE schemaname LIKE 'tenant\\_1\\_\\_lost\\_%'")
            .await,
        "1"
    );
    assert_eq!(
        app.ask("SELECT to_regclass('tenant_1.theirs')::text").await,
        "-"
    );
}
