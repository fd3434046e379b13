//! Files that reach where they should not, and a new set for a running daemon.

use crate::support::{App, until};

async fn sqlstate(app: &App, tenant: &str) -> String {
    app.ask(&format!(
        "SELECT error_sqlstate FROM tenantd.tenant WHERE tenant_id = '{tenant}'"
    ))
    .await
}

#[tokio::test]
pub(crate) async fn a_file_that_works_outside_its_schema_is_refused_and_leaves_nothing() {
    for (hint, sql) in [
        ("table", "CREATE TABLE public.stray (id bigint)"),
        ("altered", "ALTER TABLE public.logins ADD COLUMN stray int"),
        ("dropped", "DROP TABLE public.logins"),
        ("dropped_next_door", "DROP TABLE tenant_2.items"),
        ("index", "CREATE INDEX stray ON public.logins (at)"),
        (
            "neighbour",
            "ALTER TABLE tenant_2.items ADD COLUMN stray int",
        ),
        ("ledger", "CREATE TABLE tenantd.stray (id bigint)"),
        ("temporary", "CREATE TEMP TABLE stray (id bigint)"),
        ("view", "CREATE VIEW public.stray AS SELECT 1 AS one"),
    ] {
        let app = App::current(hint, 2).await;
        app.migration(
            "0003_astray.sql",
            &format!("CREATE TABLE fine (id bigint);\nDO $$ BEGIN EXECUTE '{sql}'; END $$;"),
        );
        let ran = app.tenantd(&["migrate", "1"]);
        assert_eq!(ran.code, 4, "{hint}: {ran:?}");
        assert_eq!(app.state("1").await, "quarantined 0002", "{hint}");
        assert_eq!(sqlstate(&app, "1").await, "TD003", "{hint}");
        assert!(
            app.error("1").contains("outside its schema"),
            "{hint}: {}",
            app.error("1")
        );
        let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname IN ('stray', 'fine'))
                         + (SELECT count(*) FROM pg_attribute WHERE attname = 'stray')
                         + (SELECT count(*) FROM pg_class WHERE relname = 'logins')";
        assert_eq!(app.ask(left).await, "1", "{hint}");
        assert_eq!(
            app.ask("SELECT count(*) FROM tenant_2.items").await,
            "0",
            "{hint}"
        );
    }
}

#[tokio::test]
pub(crate) async fn a_name_that_leads_to_a_shared_object_is_refused_before_it_is_touched() {
    for (hint, sql) in [
        ("altered", "ALTER TABLE plans ADD COLUMN stray int"),
        ("if_exists", "DROP TABLE IF EXISTS plans"),
        ("index", "CREATE INDEX stray ON plans (id)"),
        (
            "after_a_drop",
            "CREATE TABLE plans (id int); DROP TABLE plans; TRUNCATE plans",
        ),
        ("partition", "CREATE TABLE stray () INHERITS (plans)"),
        ("type", "ALTER TYPE mood ADD VALUE 'stray'"),
        (
            "concurrent",
            "CREATE INDEX CONCURRENTLY stray ON plans (id)",
        ),
        ("reindex", "REINDEX TABLE CONCURRENTLY plans"),
        (
            "alone",
            "-- tenantd: transaction=none\nALTER TABLE plans ADD COLUMN stray int",
        ),
    ] {
        let app = App::current(hint, 1).await;
        app.run("CREATE TABLE public.plans (id int); CREATE TYPE public.mood AS ENUM ('ok')")
            .await;
        let shared = "SELECT string_agg(concat_ws(' ', oid, relfilenode, xmin), ', ' ORDER BY oid) || (SELECT count(*) FROM pg_enum)
                      FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let before = app.ask(shared).await;
        app.migration(
            "0003_astray.sql",
            &format!("CREATE TABLE fine (id int);\n{sql};"),
        );
        let ran = app.tenantd(&["migrate", "1"]);
        assert_eq!(ran.code, 4, "{hint}: {ran:?}");
        assert_eq!(app.state("1").await, "quarantined 0002", "{hint}");
        assert_eq!(sqlstate(&app, "1").await, "TD003", "{hint}");
        let error = app.error("1");
        let line = 2 + sql.lines().count() - 1;
        assert!(
            error.contains(&format!(
                "0003_astray.sql:{line}: the migration would change public."
            )),
            "{hint}: {error}"
        );
        assert_eq!(app.ask(shared).await, before, "{hint}");
    }
}

#[tokio::test]
async fn names_that_are_the_tenants_own_may_be_shared_ones_too() {
    let app = App::current("own_names", 1).await;
    app.run("CREATE TABLE public.items (id serial); CREATE TABLE public.plans (id serial); CREATE TYPE public.mood AS ENUM ('ok')")
        .await;
    let shared =
        "SELECT string_agg(concat_ws(' ', oid, relfilenode, xmin), ', ' ORDER BY oid) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace";
    let before = app.ask(shared).await;
    app.migration(
        "0003_plans.sql",
        "ALTER TABLE items ADD COLUMN plan int;
         CREATE TABLE plans (id serial PRIMARY KEY, label text);
         ALTER SEQUENCE plans_id_seq CACHE 10; CREATE INDEX ON plans (label); ALTER TABLE plans RENAME TO tariffs;
         ALTER INDEX plans_pkey RENAME TO tariffs_pkey; DROP TABLE IF EXISTS nowhere;
         CREATE TYPE mood AS ENUM ('ok'); ALTER TYPE mood ADD VALUE 'sad'; INSERT INTO public_notes SELECT 1 WHERE false;",
    );
    app.run("CREATE TABLE public.public_notes (id int)").await;
    app.migration(
        "0004_index.sql",
        "CREATE INDEX CONCURRENTLY items_plan ON items (plan);",
    );
    app.tenant(2).await;
    app.tenantd(&["migrate", "--all"]).ok();
    app.tenantd(&["verify", "--all"]).ok();
    app.run("DROP TABLE public.public_notes").await;
    assert_eq!(app.ask(shared).await, before);
}

#[tokio::test]
async fn a_block_may_do_in_its_own_schema_what_it_likes() {
    let app = App::current("own_schema", 2).await;
    app.run("INSERT INTO tenant_1.items VALUES (1, 'kept')")
        .await;
    app.migration(
        "0003_own.sql",
        "CREATE TABLE fresh (id bigint);\nDO $$ BEGIN DROP TABLE notes; CREATE TABLE scratch (a text); DROP TABLE scratch;
             ALTER TABLE items ALTER COLUMN id TYPE numeric; TRUNCATE fresh; DROP TABLE fresh;
             ALTER TABLE items ADD COLUMN tenant bigint REFERENCES public.tenants;
             INSERT INTO public.logins (tenant_id) SELECT 1 FROM items; END $$;",
    );
    app.tenantd(&["migrate", "--all"]).ok();
    assert_eq!(app.state("1").await, "current 0003");
    assert_eq!(app.ask("SELECT label FROM tenant_1.items").await, "kept");
    assert_eq!(app.ask("SELECT count(*) FROM public.logins").await, "1");
    app.tenant(3).await;
    app.tenantd(&["migrate", "3"]).ok();
}

#[tokio::test]
pub(crate) async fn a_file_that_leaves_its_search_path_or_role_is_refused() {
    for (hint, sql) in [
        ("path", "SET search_path = public"),
        ("local_path", "SET LOCAL search_path = public"),
        ("role", "SET LOCAL ROLE pg_monitor"),
        ("renamed", "ALTER SCHEMA tenant_1 RENAME TO elsewhere"),
    ] {
        let app = App::current(hint, 1).await;
        app.migration(
            "0003_astray.sql",
            &format!("CREATE TABLE fine (id bigint);\nDO $$ BEGIN EXECUTE '{sql}'; END $$;"),
        );
        assert_eq!(app.tenantd(&["migrate", "1"]).code, 4, "{hint}");
        assert_eq!(app.state("1").await, "quarantined 0002", "{hint}");
        let told = sqlstate(&app, "1").await;
        assert!(
            told == "TD003" || told == "42501",
            "{hint}: {told} {}",
            app.error("1")
        );
        assert_eq!(
            app.ask("SELECT to_regclass('tenant_1.fine')::text").await,
            "-",
            "{hint}"
        );
    }
}

#[tokio::test]
async fn a_block_cannot_leave_its_transaction() {
    for (hint, sql) in [
        ("commit", "DO $$ BEGIN EXECUTE 'COMMIT'; END $$"),
        (
            "procedure",
            "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;\nCALL p()",
        ),
    ] {
        let app = App::current(hint, 1).await;
        app.migration(
            "0003_leaves.sql",
            &format!("CREATE TABLE fine (id bigint);\n{sql};"),
        );
        assert_eq!(app.tenantd(&["migrate", "1"]).code, 4, "{hint}");
        assert_eq!(app.state("1").await, "quarantined 0002", "{hint}");
        assert_eq!(
            app.ask("SELECT to_regclass('tenant_1.fine')::text").await,
            "-",
            "{hint}"
        );
    }
}

#[tokio::test]
async fn session_state_that_a_block_leaves_does_not_reach_the_next_tenant() {
    let app = App::new("leaks").await;
    // What a tenant finds, then what it leaves.
    app.migration(
        "0003_found.sql",
        "CREATE TABLE found AS SELECT pg_catalog.pg_backend_pid() AS pid, current_setting('app.leak', true) AS setting,
             current_setting('work_mem') AS memory, (SELECT count(*) FROM pg_prepared_statements WHERE name = 'leak') AS prepared,
             (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objid = 4711) AS locks,
             (SELECT count(*) FROM pg_listening_channels()) AS channels, (SELECT count(*) FROM pg_cursors WHERE name = 'leak') AS cursors;",
    );
    app.migration(
        "0004_leaks.sql",
        "DO $$ BEGIN
             EXECUTE 'SET app.leak = ''leaked'''; EXECUTE 'SET work_mem = ''77MB'''; EXECUTE 'PREPARE leak AS SELECT 1';
             EXECUTE 'SELECT pg_advisory_lock(4711)'; EXECUTE 'LISTEN leak';
             EXECUTE 'DECLARE leak CURSOR WITH HOLD FOR SELECT 1';
             EXECUTE 'SET statement_timeout = ''1h'''; EXECUTE 'SET lock_timeout = 0';
         END $$;",
    );
    for id in 1..=12 {
        app.silent_tenant(id).await;
    }
    let daemon = app.quiet_daemon().await;
    app.all_ready(&daemon, 1..=12).await;
    let all = (1..=12)
        .map(|id| format!("SELECT * FROM tenant_{id}.found"))
        .collect::<Vec<_>>()
        .join(" UNION ALL ");
    let pids = app
        .ask(&format!("SELECT count(DISTINCT pid) FROM ({all}) f"))
        .await;
    // Two workers take turns with the sessions of a pool of four.
    assert!(
        pids.parse::<u32>().unwrap() <= 4,
        "sessions are shared: {pids}"
    );
    let leaked = app
        .ask(&format!(
            "SELECT string_agg(f::text, ' ') FROM ({all}) f WHERE coalesce(setting, '') <> '' OR memory = '77MB'
             OR prepared + locks + channels + cursors > 0"
        ))
        .await;
    assert_eq!(leaked, "-");
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_new_file_reaches_every_tenant_at_sighup_and_a_bad_one_changes_nothing() {
    let app = App::current("sighup", 5).await;
    let daemon = app.quiet_daemon().await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint)");
    daemon.signal("HUP");
    for id in 1..=5 {
        app.becomes(&daemon, &id.to_string(), "current 0003").await;
    }
    app.migration("0004_bad.sql", "CREATE TABLE bad (id bigint);\nCOMMIT;");
    daemon.signal("HUP");
    until("the set to be refused", async || {
        let log = daemon.log();
        let told = log.contains("the loaded set stays") && log.contains("0004_bad.sql:2");
        (told, log)
    })
    .await;
    app.tenant(6).await;
    app.all_ready(&daemon, 1..=6).await;
    assert_eq!(
        app.ask("SELECT version FROM tenantd.tenant WHERE tenant_id = '6'")
            .await,
        "0003"
    );
    assert_eq!(app.ask("SELECT version FROM tenantd.head").await, "0003");
    assert_eq!(daemon.get("/readyz").await.0, 200);
    let ran = app.tenantd(&["status"]);
    assert_eq!(ran.code, 1, "no command works with a bad set");
    assert!(ran.stderr.contains("0004_bad.sql:2"), "{}", ran.stderr);
}
