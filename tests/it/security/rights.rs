//! Who may do what: the daemon's role, the files' role, the tenants'.

use crate::support::App;

#[tokio::test]
async fn what_install_grants_is_no_more_than_the_daemon_needs() {
    let app = App::bare("least").await;
    let [role, other] = ["daemon", "other"].map(|hint| format!("{hint}_{}", app.db.name));
    app.run(&format!(
        "CREATE ROLE {role} LOGIN; CREATE ROLE {other} LOGIN"
    ))
    .await;
    app.tenantd(&["install", "--role", &role]).ok();
    let may = "SELECT coalesce(string_agg(table_name || ' ' || privilege_type, ', '), 'nothing')
               FROM information_schema.role_table_grants WHERE table_schema = 'tenantd'";
    let excess = format!(
        "{may} AND grantee = '{role}' AND (privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')
                                           OR table_name = 'control' AND privilege_type <> 'SELECT')"
    );
    assert_eq!(app.ask(&excess).await, "nothing");
    assert_eq!(
        app.ask(&format!(
            "{may} AND grantee <> '{role}' AND grantee <> 'postgres'"
        ))
        .await,
        // The ids of those that a login would help: the application's triggers read them.
        "behind SELECT"
    );
    let plain =
        "SELECT concat_ws(' ', rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication)
                 FROM pg_roles WHERE rolname =";
    assert_eq!(app.ask(&format!("{plain} '{role}'")).await, "f f f f f");
    // A listener needs the right to connect and nothing else.
    app.tenant(1).await;
    app.connect_as(&role);
    let ears = app
        .db
        .conninfo
        .replace("user=postgres", &format!("user={other}"));
    app.configure_in("database", &format!("listen_url = \"{ears}\""));
    let daemon = app.daemon().await;
    app.tenant(2).await;
    app.all_ready(&daemon, [1, 2]).await;
    let sql = format!(
        "SELECT count(*) FROM pg_namespace WHERE has_schema_privilege('{other}', oid, 'CREATE') AND nspname LIKE 'tenant%'"
    );
    assert_eq!(app.ask(&sql).await, "0");
    assert!(
        daemon.metric("tenantd_listener_connected").await == 1.0,
        "{}",
        daemon.log()
    );
    assert!(
        !daemon.log().contains("connected as role"),
        "{}",
        daemon.log()
    );
    drop(daemon);
    for role in [role, other] {
        app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
            .await;
    }
}

#[tokio::test]
async fn the_daemon_warns_about_needless_powers_and_about_those_who_may_plant_objects() {
    let app = App::new("planters").await;
    let role = format!("web_{}", app.db.name);
    app.run(&format!(
        "CREATE ROLE {role}; REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE SCHEMA shared; GRANT CREATE ON SCHEMA public TO {role};
         GRANT CREATE ON SCHEMA shared TO PUBLIC"
    ))
    .await;
    app.configure_in(
        "migrations",
        "search_path = [\"{schema}\", \"shared\", \"public\"]",
    );
    let log = app.daemon().await.log();
    for expected in [
        "connected as role postgres, which has SUPERUSER".to_owned(),
        format!("REVOKE CREATE ON SCHEMA \"public\" FROM \"{role}\""),
        "REVOKE CREATE ON SCHEMA \"shared\" FROM PUBLIC".to_owned(),
    ] {
        assert!(log.contains(&expected), "{expected}: {log}");
    }
    app.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn the_ledger_says_who_applied_which_file_when_and_the_files_role_cannot_change_that() {
    let app = App::new("audit").await;
    let role = format!("files_{}", app.db.name);
    app.run(&format!("CREATE ROLE {role}")).await;
    app.configure_in("migrations", &format!("role = \"{role}\""));
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    let sql = "SELECT count(*)::text FROM tenantd.applied WHERE length(checksum) = 64 AND length(instance) = 36
               AND role = 'postgres' AND applied_at BETWEEN now() - interval '1 minute' AND clock_timestamp()";
    assert_eq!(app.ask(sql).await, "2");
    app.migration(
        "0003_tamper.sql",
        "DO $$ BEGIN DELETE FROM tenantd.applied; END $$;",
    );
    assert_eq!(app.tenantd(&["migrate", "1"]).code, 4);
    assert!(
        app.error("1")
            .contains("permission denied for table applied"),
        "{}",
        app.error("1")
    );
    assert_eq!(app.ask(sql).await, "2");
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_session_that_only_shares_our_name_is_never_ended() {
    let app = App::current("same name", 1).await;
    let conninfo = format!("{} application_name=tenantd/work", app.db.conninfo);
    let (other, connection) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    other
        .batch_execute("BEGIN; LOCK TABLE tenant_1.items")
        .await
        .unwrap();
    app.migration("0003_alter.sql", "ALTER TABLE items ADD COLUMN more text;");
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    other
        .batch_execute("INSERT INTO tenant_1.items VALUES (1, 'x'); COMMIT")
        .await
        .unwrap();
    app.tenantd(&["migrate", "1"]).ok();
}

#[tokio::test]
async fn what_somebody_planted_in_a_tenants_schema_or_in_public_is_not_called() {
    let app = App::current("planted", 1).await;
    for schema in ["tenant_1", "public"] {
        app.run(&format!(
            "CREATE FUNCTION {schema}.evil(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil ran'; END $$;
             CREATE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil ran'; END $$;
             CREATE FUNCTION {schema}.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil ran'; END $$;
             CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.evil);
             CREATE OPERATOR {schema}.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.evil);
             CREATE TABLE {schema}.pg_namespace (); CREATE TABLE {schema}.pg_locks ()"
        ))
        .await;
    }
    app.migration(
        "0003_at.sql",
        "ALTER TABLE items ADD COLUMN at timestamptz DEFAULT now();",
    );
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0003").await;
    app.tenant(2).await;
    app.login(2).await;
    app.all_ready(&daemon, [2]).await;
    assert!(!daemon.log().contains("evil ran"), "{}", daemon.log());
}
