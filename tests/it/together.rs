//! A quick file over many tenants: transactions are shared, and nobody is held up by another's trouble.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use crate::support::{App, postgres::Server, until};

/// Transactions in which the third file was recorded.
const TRANSACTIONS: &str =
    "SELECT count(DISTINCT xmin::text) FROM tenantd.applied WHERE version = '0003'";
const QUICK: &str = "ALTER TABLE items ADD COLUMN colour text;";

async fn transactions(app: &App) -> i64 {
    app.ask(TRANSACTIONS).await.parse().unwrap()
}

#[tokio::test]
async fn a_quick_file_takes_many_tenants_forward_in_few_transactions() {
    let app = App::current("shared", 60).await;
    app.run("COMMENT ON SCHEMA tenant_7 IS 'ours'; COMMENT ON SCHEMA tenant_8 IS 'unstamped'; COMMENT ON SCHEMA tenant_9 IS NULL")
        .await;
    app.run("SELECT tenantd.stamp('tenant_7', version, digest) FROM tenantd.tenant WHERE tenant_id = '7'")
        .await;
    app.migration("0003_colour.sql", QUICK);
    app.migration("0004_table.sql", "CREATE TABLE extras (id bigint);");
    let ran = app.tenantd(&["migrate", "--all"]).ok();
    assert!(
        ran.stdout.contains("60 of 60 tenants are at head"),
        "{}",
        ran.stdout
    );
    assert!(transactions(&app).await < 60);
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0004'",
        "60",
    )
    .await;
    let comment = app
        .ask("SELECT obj_description('tenant_7'::regnamespace)")
        .await;
    assert!(comment.starts_with("ours\ntenantd: 0004 "), "{comment}");
    let comments = "SELECT left(obj_description('tenant_8'::regnamespace), 24) || '|' || left(obj_description('tenant_9'::regnamespace), 14)";
    app.answers(comments, "unstamped\ntenantd: 0004 |tenantd: 0004 ")
        .await;
    app.tenantd(&["verify", "--all"]).ok();
    app.tenantd(&["status", "--check"]).ok();
}

#[tokio::test]
async fn a_tenant_is_found_by_an_index_alone_and_among_others() {
    let app = App::current("by_index", 60).await;
    // Sixty rows would be read whole where an index serves, too.
    app.run(&format!(
        "ALTER DATABASE {} SET enable_seqscan = off",
        app.db.name
    ))
    .await;
    app.migration("0003_colour.sql", QUICK);
    app.migration("0004_alone.sql", "UPDATE items SET colour = 'red';");
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(transactions(&app).await < 60);
    let reads = async |which: &str| {
        let sum = format!(
            "SELECT sum({which}) FROM pg_stat_user_tables
             WHERE schemaname = 'tenantd' AND relname IN ('tenant', 'behind')"
        );
        app.ask(&sum).await.parse::<i64>().unwrap()
    };
    until("the reads to be counted", async || {
        let counted = reads("idx_scan").await;
        (counted > 120, counted.to_string())
    })
    .await;
    let whole = reads("seq_scan").await;
    assert!(whole < 60, "{whole}");
}

#[tokio::test]
async fn plans_that_must_use_an_index_are_not_compiled_for_their_cost() {
    let app = App::bare("compiled").await;
    app.tenantd(&["install"]).ok();
    let by_index = "FROM pg_proc WHERE pronamespace = 'tenantd'::regnamespace AND 'enable_seqscan=off' = ANY (proconfig)";
    let compiled = format!("SELECT count(*) {by_index} AND 'jit=off' <> ALL (proconfig)");
    assert_ne!(app.ask(&format!("SELECT count(*) {by_index}")).await, "0");
    assert_eq!(app.ask(&compiled).await, "0");
}

#[tokio::test]
async fn a_daemon_shares_transactions_too_and_obeys_the_role_of_the_files() {
    let app = App::new("shared_role").await;
    let role = format!("files_{}", app.db.name);
    app.run(&format!("CREATE ROLE {role}")).await;
    app.configure_in("migrations", &format!("role = \"{role}\""));
    for id in 1..=40 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.migration("0003_owned.sql", "CREATE TABLE owned (id bigint);");
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=40).await;
    assert!(transactions(&app).await < 40);
    let owners =
        "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE tablename = 'owned'";
    assert_eq!(app.ask(owners).await, role);
    drop(daemon);
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn one_tenant_with_bad_data_falls_out_and_the_others_go_on_together() {
    let app = App::current("shared_poison", 60).await;
    app.run("ALTER TABLE tenant_30.items ADD COLUMN colour text")
        .await;
    app.migration("0003_colour.sql", &format!("\n{QUICK}"));
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.stdout.contains("59 of 60 tenants are at head"),
        "{}",
        ran.stdout
    );
    assert!(transactions(&app).await < 59);
    assert_eq!(app.state("30").await, "quarantined 0002");
    let error = app.error("30");
    assert!(
        error.contains("0003_colour.sql:2") && error.contains("42701"),
        "{error}"
    );
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0003'",
        "59",
    )
    .await;
}

#[tokio::test]
async fn a_tenant_that_lost_its_tables_is_not_given_those_of_the_next_file() {
    let app = App::current("shared_lost", 40).await;
    app.run("DROP TABLE tenant_20.items, tenant_20.notes").await;
    app.run("CREATE VIEW tenant_20.items AS SELECT 1 AS id")
        .await;
    app.migration("0003_tags.sql", "CREATE TABLE tags (id bigint);");
    app.migration(
        "0004_items.sql",
        "ALTER TABLE items ALTER COLUMN id SET DEFAULT 1;",
    );
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(transactions(&app).await < 39);
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0004'",
        "39",
    )
    .await;
    assert_eq!(app.state("20").await, "lost 0002");
    app.answers("SELECT to_regclass('tenant_20.tags')", "-")
        .await;
}

#[tokio::test]
async fn a_tenant_whose_table_is_locked_waits_alone() {
    let app = App::current("shared_lock", 40).await;
    app.migration("0003_colour.sql", QUICK);
    let other = app.db.connect().await;
    other
        .batch_execute("BEGIN; LOCK TABLE tenant_20.items IN ACCESS SHARE MODE")
        .await
        .unwrap();
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.stdout.contains("39 of 40 tenants are at head"),
        "{}",
        ran.stdout
    );
    assert_eq!(app.state("20").await, "blocked 0002");
    other.batch_execute("COMMIT").await.unwrap();
    app.tenantd(&["migrate", "--all"]).ok();
    app.tenantd(&["verify", "--all"]).ok();
}

#[tokio::test]
async fn a_tenant_that_takes_long_is_taken_out_of_its_transaction() {
    let app = App::current("shared_slow", 40).await;
    app.run(
        "INSERT INTO tenant_20.items (id, label) SELECT g, g FROM generate_series(1000, 300000) g",
    )
    .await;
    app.migration("0003_again.sql", "UPDATE items SET label = label || '!';");
    app.tenantd(&["migrate", "--all"]).ok();
    app.answers(
        "SELECT count(*) FROM tenant_20.items WHERE label NOT LIKE '%!'",
        "0",
    )
    .await;
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0003'",
        "40",
    )
    .await;
}

#[tokio::test]
async fn a_slow_first_tenant_does_not_make_all_the_others_go_alone() {
    let app = App::current("shared_slow_first", 40).await;
    app.run(
        "INSERT INTO tenant_1.items (id, label) SELECT g, g FROM generate_series(1000, 300000) g",
    )
    .await;
    app.migration("0003_again.sql", "UPDATE items SET label = label || '!';");
    app.tenantd(&["migrate", "--all"]).ok();
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0003'",
        "40",
    )
    .await;
    assert!(transactions(&app).await < 40);
}

#[tokio::test]
async fn a_tenant_without_the_table_never_changes_the_one_that_all_share() {
    let app = App::current("shared_public", 20).await;
    app.run("CREATE TABLE public.items (id bigint); DROP TABLE tenant_5.items; CREATE TABLE tenant_5.left_over (id bigint)")
        .await;
    app.migration("0003_colour.sql", QUICK);
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let error = app.error("5");
    assert!(error.contains("TD003"), "{error}");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.items'::regclass AND attnum > 0";
    app.answers(columns, "1").await;
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0003'",
        "19",
    )
    .await;
}

#[tokio::test]
async fn a_role_that_may_not_use_a_schema_never_changes_the_one_that_all_share() {
    let app = App::current("shared_usage", 20).await;
    let role = format!("files_{}", app.db.name);
    app.run(&format!(
        "CREATE ROLE {role}; GRANT ALL ON SCHEMA public TO {role};
         CREATE TABLE public.items (id bigint); ALTER TABLE public.items OWNER TO {role};
         DO $$ BEGIN FOR n IN 1..20 LOOP
             EXECUTE format('GRANT ALL ON SCHEMA tenant_%s TO {role}; ALTER TABLE tenant_%1$s.items OWNER TO {role}', n);
         END LOOP; END $$;
         REVOKE ALL ON SCHEMA tenant_5 FROM {role}"
    ))
    .await;
    app.configure_in("migrations", &format!("role = \"{role}\""));
    app.migration("0003_colour.sql", QUICK);
    let ran = app.tenantd(&["migrate", "--all"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'public.items'::regclass AND attnum > 0";
    app.answers(columns, "1").await;
    let recorded = "SELECT count(*) FROM tenantd.applied WHERE version = '0003'";
    app.answers(recorded, "19").await;
    assert!(transactions(&app).await < 19);
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_stopped_version_of_another_set_concerns_nobody_here() {
    let app = App::current("shared_stopped", 40).await;
    app.run(
        "INSERT INTO tenantd.breaker (digest, version, file, tried, places, tenants, error, opened_at)
         VALUES (repeat('a', 32), '0003', '0003_other.sql', 5, '{}', '{}', 'once', now())",
    )
    .await;
    app.migration("0003_colour.sql", QUICK);
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(transactions(&app).await < 40);
}

#[tokio::test]
async fn a_tenant_that_is_held_after_a_sweep_saw_it_is_not_taken_forward() {
    let app = App::current("shared_held", 40).await;
    app.migration("0003_colour.sql", QUICK);
    let daemon = app.start_at("sweep.noted=sleep:2s@1");
    let lags = "SELECT count(*) FROM tenantd.behind";
    app.answers(lags, "40").await;
    app.tenantd(&["hold", "20", "--reason", "a look"]).ok();
    app.answers(
        "SELECT count(*) FROM tenantd.applied WHERE version = '0003'",
        "39",
    )
    .await;
    assert!(transactions(&app).await < 39);
    assert!(app.state("20").await.contains("0002"));
    drop(daemon);
}

#[tokio::test]
async fn a_rollout_waits_for_the_disk_once_and_a_new_tenant_at_its_commit() {
    let server = Server::with(&[("synchronous_commit", "on")]).await;
    for (durability, expected) in [("fast", "off"), ("strict", "on")] {
        let app = App::on_server(&server, &format!("durable_{durability}")).await;
        app.tenantd(&["install"]).ok();
        for id in 1..=3 {
            app.tenant(id).await;
        }
        app.tenantd(&["migrate", "--all"]).ok();
        app.migration(
            "0003_how.sql",
            "CREATE TABLE how AS SELECT current_setting('synchronous_commit') AS committed;",
        );
        app.configure(&format!("[rollout]\ndurability = \"{durability}\""));
        app.tenantd(&["migrate", "--all"]).ok();
        for tenant in [1, 3] {
            let how = format!("SELECT committed FROM tenant_{tenant}.how");
            app.answers(&how, expected).await;
        }
        let daemon = app.daemon().await;
        app.tenant(4).await;
        app.all_ready(&daemon, [4]).await;
        app.answers("SELECT committed FROM tenant_4.how", "on")
            .await;
    }
}

#[tokio::test]
async fn schemas_of_any_name_share_transactions() {
    let app = App::bare("shared_names").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    app.tenantd(&["install"]).ok();
    let names = [
        r#"a", public; DROP TABLE public.tenants; --"#,
        r#"qu"ote"#,
        r"back\slash\",
        "it's $$ not $1",
        "$users",
        "Ab c",
        "select",
        "1e5",
        "ünïcödé",
        "{schema}",
        &"x".repeat(63),
    ];
    for (id, schema) in (1_i64..).zip(names) {
        let row = "INSERT INTO public.tenants (id, schema) VALUES ($1, $2)";
        app.sql.execute(row, &[&id, &schema]).await.unwrap();
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.migration("0003_colour.sql", QUICK);
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(transactions(&app).await < 11);
    let coloured = "SELECT string_agg(n.nspname, '|' ORDER BY n.nspname COLLATE \"C\")
                    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE a.attname = 'colour' AND c.relname = 'items'";
    let mut sorted = names;
    sorted.sort_unstable();
    app.answers(coloured, &sorted.join("|")).await;
}

#[tokio::test]
async fn what_pg_stat_statements_knows_of_the_application_is_not_driven_out_by_a_rollout() {
    let counts = ("shared_preload_libraries", "pg_stat_statements");
    let server = Server::with(&[counts]).await;
    let app = App::on_server(&server, "counted").await;
    app.run("CREATE EXTENSION pg_stat_statements").await;
    app.tenantd(&["install"]).ok();
    for id in 1..=30 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.migration("0003_colour.sql", QUICK);
    app.run("SELECT pg_stat_statements_reset()").await;
    app.tenantd(&["migrate", "--all"]).ok();
    assert!(transactions(&app).await < 30);
    let counted = "SELECT count(*) FILTER (WHERE query LIKE 'ALTER TABLE items %') || ' ' ||
                          count(*) FILTER (WHERE query LIKE '%\"tenant\\_%')
                   FROM pg_stat_statements";
    app.answers(counted, "1 0").await;
}

#[tokio::test]
async fn everybody_who_asks_at_once_for_tenants_that_are_current_is_answered() {
    let app = App::current("answers", 200).await;
    let daemon = app.quiet_daemon().await;
    let mut heard = app.listen("tenant_ready").await;
    app.run("SELECT pg_notify('tenantd_wake', g::text) FROM generate_series(1, 200) g")
        .await;
    let mut answers = std::collections::BTreeSet::new();
    while answers.len() < 200 {
        answers.insert(heard.next().await);
    }
    until("all of them to be counted", async || {
        let counted = daemon.reconciles("manual", "current").await;
        (counted == 200.0, counted.to_string())
    })
    .await;
}
