//! Who owns what tenantd creates, who may use it, and what tenantd's own role needs.

use crate::support::App;

/// Roles belong to the whole server: named after the test's database, dropped at the end.
struct Roles<'a> {
    app: &'a App,
    names: Vec<String>,
}

impl<'a> Roles<'a> {
    async fn new<const N: usize>(app: &'a App, hints: [&str; N]) -> (Self, [String; N]) {
        let names = hints.map(|hint| format!("{hint}_{}", app.db.name));
        for name in &names {
            app.run(&format!("CREATE ROLE {name} LOGIN")).await;
        }
        let roles = Self {
            app,
            names: names.to_vec(),
        };
        (roles, names)
    }

    async fn drop(self) {
        for name in &self.names {
            self.app
                .run(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
                .await;
        }
    }
}

/// A connection of this role's.
async fn connect(app: &App, role: &str) -> tokio_postgres::Client {
    let conninfo = app
        .db
        .conninfo
        .replace("user=postgres", &format!("user={role}"));
    let (client, connection) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls)
        .await
        .expect("connect");
    tokio::spawn(connection);
    client
}

async fn owners(app: &App, schema: &str) -> String {
    app.ask(&format!(
        "SELECT concat_ws(' ', pg_get_userbyid(nspowner),
                (SELECT string_agg(DISTINCT tableowner::text, ',') FROM pg_tables WHERE schemaname = '{schema}'))
         FROM pg_namespace WHERE nspname = '{schema}'"
    ))
    .await
}

#[tokio::test]
async fn the_application_can_use_what_migrations_make_by_owner_usage_and_role() {
    let app = App::new("usage").await;
    let (roles, [owner, user, files]) = Roles::new(&app, ["owner", "user", "files"]).await;
    app.migration(
        "0003_serial.sql",
        "CREATE TABLE tags (id bigserial PRIMARY KEY, label text);",
    );
    for (id, more, expected) in [
        (
            1,
            format!("[schema]\nowner = \"{owner}\"\nusage = [\"{user}\"]"),
            format!("{owner} postgres"),
        ),
        (
            2,
            format!("[schema]\nusage = [\"{user}\", \"{owner}\"]"),
            "postgres postgres".into(),
        ),
        (
            3,
            format!("[schema]\nowner = \"{owner}\"\nusage = [\"{user}\"]\n"),
            format!("{owner} {files}"),
        ),
        (
            4,
            format!("[schema]\nusage = [\"{user}\", \"{owner}\"]\n"),
            format!("{files} {files}"),
        ),
    ] {
        app.configure(&more);
        if id > 2 {
            app.configure_in("migrations", &format!("role = \"{files}\""));
        }
        app.tenant(id).await;
        app.tenantd(&["migrate", &id.to_string()]).ok();
        assert_eq!(
            owners(&app, &format!("tenant_{id}")).await,
            expected,
            "{id}"
        );
        for role in [&owner, &user] {
            connect(&app, role)
                .await
                .batch_execute(&format!(
                    "INSERT INTO tenant_{id}.tags (label) VALUES ('{role}'); UPDATE tenant_{id}.items SET label = '';
                     SELECT * FROM tenant_{id}.notes; DELETE FROM tenant_{id}.items"
                ))
                .await
                .unwrap_or_else(|error| panic!("{id} {role}: {error:?}"));
        }
        let denied = connect(&app, &user)
            .await
            .batch_execute(&format!("CREATE TABLE tenant_{id}.own ()"))
            .await;
        assert!(denied.is_err(), "usage is no more than that");
    }
    roles.drop().await;
}

#[tokio::test]
async fn an_ordinary_role_that_install_prepared_can_run_the_daemon() {
    let app = App::new("ordinary").await;
    let (roles, [daemon_role, owner, user]) = Roles::new(&app, ["daemon", "owner", "user"]).await;
    app.run(&format!(
        "ALTER TABLE public.tenants OWNER TO {owner}; ALTER TABLE public.logins OWNER TO {owner};
         GRANT INSERT, SELECT ON public.tenants, public.logins TO {user}"
    ))
    .await;
    app.configure(&format!(
        "[schema]\nowner = \"{owner}\"\nusage = [\"{user}\"]"
    ));
    app.configure_in("migrations", &format!("role = \"{owner}\""));
    app.tenantd(&["install", "--role", &daemon_role]).ok();
    app.connect_as(&daemon_role);
    app.migration(
        "0003_block.sql",
        "DO $$ BEGIN CREATE TABLE tags (id bigint); END $$;",
    );
    let daemon = app.daemon().await;
    let customer = connect(&app, &user).await;
    customer
        .batch_execute("INSERT INTO public.tenants (id) VALUES (1); INSERT INTO public.logins (tenant_id) VALUES (1)")
        .await
        .expect("the triggers need no right of the application's");
    app.all_ready(&daemon, [1]).await;
    customer
        .batch_execute("INSERT INTO tenant_1.items VALUES (1, 'x'); SELECT tenantd.ready('1'), tenantd.login('1')")
        .await
        .unwrap();
    assert_eq!(owners(&app, "tenant_1").await, format!("{owner} {owner}"));
    app.migration("0004_alter.sql", "ALTER TABLE items ADD COLUMN note text;");
    daemon.signal("HUP");
    app.becomes(&daemon, "1", "current 0004").await;
    // Every command works for it too.
    for arguments in [
        &["status", "--check"][..],
        &["sweep"],
        &["fix"],
        &["migrate", "1"],
        &["status", "1"],
    ] {
        let ran = app.tenantd(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    app.run("DROP TABLE tenant_1.items, tenant_1.notes, tenant_1.tags")
        .await;
    app.tenantd(&["fix", "1", "--rebuild"]).ok();
    app.run("DELETE FROM tenantd.applied; DELETE FROM tenantd.tenant; COMMENT ON SCHEMA tenant_1 IS NULL")
        .await;
    app.becomes(&daemon, "1", "untracked -").await;
    app.tenantd(&["adopt", "1"]).ok();
    assert_eq!(app.state("1").await, "current 0004");
    drop(daemon);
    roles.drop().await;
}

#[tokio::test]
pub(crate) async fn a_missing_privilege_is_told_with_the_statement_that_grants_it() {
    let app = App::new("missing").await;
    let (roles, [role, stranger]) = Roles::new(&app, ["daemon", "stranger"]).await;
    app.connect_as(&role);
    let ran = app.tenantd(&["status"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("tenantd install --role"),
        "{}",
        ran.stderr
    );

    app.configure("");
    app.tenantd(&["install", "--role", &role]).ok();
    app.connect_as(&role);
    app.run(&format!("REVOKE SELECT ON public.tenants FROM {role}"))
        .await;
    let ran = app.tenantd(&["status"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("GRANT SELECT ON tenants TO"),
        "{}",
        ran.stderr
    );
    let mut refused = app.start();
    assert_eq!(refused.ended().await, 1, "the daemon says so too and ends");
    assert!(
        refused.log().contains("GRANT SELECT ON"),
        "{}",
        refused.log()
    );
    app.run(&format!("GRANT SELECT ON public.tenants TO {role}"))
        .await;

    app.run(&format!(
        "REVOKE CREATE ON DATABASE {} FROM {role}",
        app.db.name
    ))
    .await;
    app.tenant(1).await;
    let ran = app.tenantd(&["migrate", "1"]);
    assert_eq!(ran.code, 4);
    let grant = format!("GRANT CREATE ON DATABASE \"{}\" TO", app.db.name);
    assert!(ran.stdout.contains(&grant), "{}", ran.stdout);
    app.run(&format!(
        "GRANT CREATE ON DATABASE {} TO {role}",
        app.db.name
    ))
    .await;
    app.tenantd(&["fix", "1"]).ok();

    // A schema of somebody else's: the search path would lead elsewhere.
    app.run(&format!("CREATE SCHEMA tenant_2 AUTHORIZATION {stranger}"))
        .await;
    app.tenant(2).await;
    let ran = app.tenantd(&["migrate", "2"]);
    assert_eq!(ran.code, 4);
    assert!(
        ran.stdout
            .contains(&format!("GRANT USAGE, CREATE ON SCHEMA tenant_2 TO {role}")),
        "{}",
        ran.stdout
    );
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_class WHERE relname = 'items' AND relnamespace <> 'tenant_1'::regnamespace").await,
        "0",
        "nothing was built in the wrong place"
    );
    roles.drop().await;
}

#[tokio::test]
async fn what_install_would_run_is_printed_and_runs() {
    let app = App::bare("dry_run").await;
    let (roles, [role]) = Roles::new(&app, ["daemon"]).await;
    let ran = app.tenantd(&["install", "--dry-run", "--role", &role]).ok();
    assert_eq!(
        app.ask("SELECT to_regnamespace('tenantd')::text").await,
        "-"
    );
    app.run(&ran.stdout).await;
    app.connect_as(&role);
    let daemon = app.daemon().await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    drop(daemon);
    app.configure("");
    let again = app.tenantd(&["install"]).ok();
    assert!(!again.stdout.contains("version"), "{}", again.stdout);
    roles.drop().await;
}
