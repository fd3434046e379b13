//! Every state of a tenant on a real database: what `status` calls it, whether it is ready, and whether a
//! login wakes the daemon. What a person does about it is in `heal.rs`.

use crate::support::{App, Daemon, until};

/// State and version as `status` tells them, `ready()`, and whether a login would notify.
async fn verdict(app: &App, id: i64) -> String {
    // First, because a command that loads the set releases it.
    let state = app.state(&id.to_string()).await;
    let flags = app
        .ask(&format!(
            "SELECT concat_ws(' ', tenantd.ready('{id}'), tenantd.wakes('{id}'))"
        ))
        .await;
    format!("{state} {flags}")
}

async fn settles(app: &App, daemon: &Daemon, id: i64, expected: &str) {
    until(&format!("tenant {id} to be {expected}"), async || {
        let seen = verdict(app, id).await;
        (seen == expected, format!("{seen}\n{}", daemon.log()))
    })
    .await;
}

#[tokio::test]
async fn a_tenant_without_schema_or_tables_is_healed_and_a_login_wakes_it() {
    let app = App::new("empty").await;
    app.run("CREATE SCHEMA tenant_2; CREATE SEQUENCE tenant_2.s; CREATE VIEW tenant_2.v AS SELECT 1 AS one")
        .await;
    app.tenant(1).await;
    app.tenant(2).await;
    assert_eq!(verdict(&app, 1).await, "unprovisioned - f t");
    assert_eq!(
        verdict(&app, 2).await,
        "empty - f t",
        "neither counts as a table"
    );
    app.tenantd(&["migrate", "1", "tenant_2"]).ok();
    assert_eq!(verdict(&app, 1).await, "current 0002 t f");
    assert_eq!(verdict(&app, 2).await, "current 0002 t f");
    assert_eq!(app.ask("SELECT one FROM tenant_2.v").await, "1");
}

#[tokio::test]
async fn a_tenant_with_pending_files_is_behind_and_a_login_wakes_it() {
    let app = App::current("behind", 2).await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    // Releases the set to all.
    app.tenantd(&["migrate", "2"]).ok();
    assert_eq!(verdict(&app, 1).await, "behind 0002 f t");
    assert_eq!(app.ask("SELECT tenantd.ready('1', '0002')").await, "t");
    assert_eq!(app.ask("SELECT tenantd.ready('1', '0003')").await, "f");
    app.tenantd(&["migrate", "1"]).ok();
    assert_eq!(verdict(&app, 1).await, "current 0003 t f");
}

#[tokio::test]
async fn a_tenant_with_versions_the_set_lacks_is_ahead_and_left_alone() {
    let app = App::current("ahead", 1).await;
    app.remove_migration("0002_notes.sql");
    let daemon = app.daemon().await;
    settles(&app, &daemon, 1, "ahead 0002 t f").await;
    assert_eq!(app.ask("SELECT count(*) FROM tenant_1.notes").await, "0");
    app.tenantd(&["migrate", "1"]).ok();
    app.migration(
        "0002_notes.sql",
        "CREATE TABLE notes (id bigint PRIMARY KEY, body text);",
    );
    daemon.signal("HUP");
    settles(&app, &daemon, 1, "current 0002 t f").await;
}

#[tokio::test]
async fn a_tenant_whose_applied_file_changed_is_modified() {
    let app = App::current("modified", 1).await;
    app.migration("0002_notes.sql", "CREATE TABLE notes (id bigint);");
    let daemon = app.daemon().await;
    settles(&app, &daemon, 1, "modified 0002 t f").await;
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("tenantd adopt 1"), "{ran:?}");
    // Another tenant is built from the changed file.
    app.tenant(2).await;
    app.all_ready(&daemon, [2]).await;
}

#[tokio::test]
async fn a_file_slipped_in_below_an_applied_one_makes_tenants_modified() {
    let app = App::new("slipped_in").await;
    app.migration("0004_tags.sql", "CREATE TABLE tags (id bigint)");
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    app.migration("0003_late.sql", "CREATE TABLE late (id bigint)");
    let daemon = app.daemon().await;
    settles(&app, &daemon, 1, "modified 0004 t f").await;
    assert_eq!(
        app.ask("SELECT to_regclass('tenant_1.late')::text").await,
        "-"
    );
    app.remove_migration("0003_late.sql");
    daemon.signal("HUP");
    settles(&app, &daemon, 1, "current 0004 t f").await;
}

#[tokio::test]
async fn a_schema_with_tables_of_somebody_else_is_untracked_and_not_touched() {
    let app = App::new("untracked").await;
    app.run("CREATE SCHEMA tenant_1; CREATE TABLE tenant_1.theirs (id bigint)")
        .await;
    app.tenant(1).await;
    let daemon = app.daemon().await;
    settles(&app, &daemon, 1, "untracked - t f").await;
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    assert_eq!(
        app.ask("SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'tenant_1'::regnamespace")
            .await,
        "theirs"
    );
}

#[tokio::test]
pub(crate) async fn a_schema_that_lost_its_tables_or_itself_is_lost_and_not_built_again() {
    let app = App::current("lost", 3).await;
    let daemon = app.daemon().await;
    app.run(
        "DROP TABLE tenant_1.items, tenant_1.notes; DROP SCHEMA tenant_2 CASCADE;
         DROP SCHEMA tenant_3 CASCADE; CREATE SCHEMA tenant_3",
    )
    .await;
    for id in 1..=3 {
        settles(&app, &daemon, id, "lost 0002 f f").await;
        app.login(id).await;
        app.run(&format!("NOTIFY dashboard_login, '{id}'")).await;
    }
    until("the logins to be left alone", async || {
        let left = daemon.reconciles("login", "left_alone").await;
        (left == 3.0, daemon.log())
    })
    .await;
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_tables WHERE schemaname LIKE 'tenant\\_%'")
            .await,
        "0"
    );
}

#[tokio::test]
pub(crate) async fn a_schema_whose_stamp_says_otherwise_is_restored() {
    let app = App::current("restored", 3).await;
    let daemon = app.daemon().await;
    let older = app
        .ask("SELECT 'tenantd: 0001 ' || digest FROM tenantd.migration WHERE ordinal = 1")
        .await;
    let head = app
        .ask("SELECT obj_description('tenant_2'::regnamespace)")
        .await;
    app.run(&format!(
        "COMMENT ON SCHEMA tenant_1 IS '{older}';
         COMMENT ON SCHEMA tenant_2 IS E'the owner''s text\\ntenantd: 0009 {zeros}';
         ALTER SCHEMA tenant_3 RENAME TO moved; CREATE SCHEMA tenant_3; CREATE TABLE tenant_3.items (id bigint);
         CREATE SCHEMA tenant_4; CREATE TABLE tenant_4.items (id bigint); COMMENT ON SCHEMA tenant_4 IS '{head}'",
        zeros = "0".repeat(32),
    ))
    .await;
    app.tenant(4).await;
    // A changed stamp; one of no set we know; another schema under the name, without a stamp; a copy.
    settles(&app, &daemon, 1, "restored 0002 f f").await;
    settles(&app, &daemon, 2, "restored 0002 f f").await;
    settles(&app, &daemon, 3, "restored 0002 f f").await;
    settles(&app, &daemon, 4, "restored - f f").await;
}

#[tokio::test]
async fn a_held_tenant_stays_as_it_is_until_it_is_let_go() {
    let app = App::current("held", 1).await;
    app.run("UPDATE tenantd.tenant SET held_by = 'ada', held_why = 'audit' WHERE tenant_id = '1'")
        .await;
    let daemon = app.daemon().await;
    settles(&app, &daemon, 1, "held 0002 t f").await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    daemon.signal("HUP");
    app.tenant(2).await;
    app.all_ready(&daemon, [2]).await;
    settles(&app, &daemon, 1, "held 0002 f f").await;
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4);
    assert!(ran.stdout.contains("held by ada: audit"), "{ran:?}");
    app.run("UPDATE tenantd.tenant SET held_by = NULL WHERE tenant_id = '1'")
        .await;
    settles(&app, &daemon, 1, "current 0003 t f").await;
}

#[tokio::test]
async fn names_that_cannot_be_schemas_are_refused_and_harm_nobody() {
    let app = App::new("refused").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    let long = "x".repeat(64);
    let names = [
        "'public'",
        "'PUBLIC'",
        "'pg_x'",
        "'information_schema'",
        "'tenantd'",
        "'$user'",
        "''",
        "NULL",
        &format!("'{long}'"),
        "E'a\\nb'",
        "E'\\u0441' || repeat('\u{44f}', 31)",
    ];
    let daemon = app.daemon().await;
    for (id, name) in (1..).zip(names) {
        app.run(&format!(
            "INSERT INTO public.tenants (id, schema) VALUES ({id}, {name})"
        ))
        .await;
    }
    for id in 1..=names.len() as i64 {
        settles(&app, &daemon, id, "refused - f f").await;
    }
    app.run("INSERT INTO public.tenants (id, schema) VALUES (20, 'shared')")
        .await;
    settles(&app, &daemon, 20, "current 0002 t f").await;
    app.run("INSERT INTO public.tenants (id, schema) VALUES (21, 'shared')")
        .await;
    settles(&app, &daemon, 21, "refused - f f").await;
    let report = app
        .tenantd(&["status", "21", "--output", "json"])
        .ok()
        .json();
    let error = report["tenants"][0]["error"].as_str().unwrap();
    assert_eq!(error, "schema \"shared\" belongs to tenant 20");
    assert_eq!(
        app.ask("SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('items', 'notes')")
            .await,
        "-"
    );
    // Mended in the registry, it is built.
    app.run("UPDATE public.tenants SET schema = 'own' WHERE id = 21")
        .await;
    settles(&app, &daemon, 21, "current 0002 t f").await;
}

#[tokio::test]
async fn odd_names_that_can_be_schemas_are_schemas() {
    let app = App::new("odd_names").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    let longest = "\u{44f}".repeat(31) + "x";
    let names = [
        "with space",
        "Quo\"te",
        "it's",
        "x\"; DROP SCHEMA public; --",
        "{schema}",
        "{id}",
        "$1",
        "\\",
        "$$",
        "select",
        "Select",
        "s\u{435}lect",
        "\u{1f980}",
        longest.as_str(),
        "a.b",
        "%s%I",
        "-- x",
        "/*",
    ];
    let daemon = app.daemon().await;
    for (id, name) in (1i64..).zip(names) {
        app.sql
            .execute(
                "INSERT INTO public.tenants (id, schema) VALUES ($1, $2)",
                &[&id, &name],
            )
            .await
            .unwrap();
    }
    app.all_ready(&daemon, 1..=names.len() as i64).await;
    for name in names {
        let rows = app
            .sql
            .query(
                "SELECT count(*) FROM pg_tables WHERE schemaname = $1",
                &[&name],
            )
            .await
            .unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 2, "{name}");
    }
    assert_eq!(app.state("it's").await, "current 0002");
}
