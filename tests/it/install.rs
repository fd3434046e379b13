//! `tenantd install` and `uninstall`, and what the triggers mean to the application's own statements.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::time::{Duration, Instant};

use crate::support::{
    App,
    app::lag,
    database::TestDb,
    more::{finish, listen},
    until,
};

/// All that an installation consists of, a line each.
const INSTALLED: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('relation %s %s %s', relkind, relname, relacl) FROM pg_class
        WHERE relnamespace = 'tenantd'::regnamespace
        UNION ALL SELECT format('function %s %s %s', oid::regprocedure, md5(pg_get_functiondef(oid)), proacl) FROM pg_proc
        WHERE pronamespace = 'tenantd'::regnamespace
        UNION ALL SELECT format('trigger %s %s', pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger')) FROM pg_trigger
        WHERE NOT tgisinternal
        UNION ALL SELECT format('schema %s', nspacl) FROM pg_namespace WHERE nspname = 'tenantd'
        UNION ALL SELECT format('version %s %s', version, name) FROM tenantd.control
    ) AS all_of_it (line)";
const TRIGGERS: &str =
    "SELECT string_agg(tgname, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal";

#[tokio::test]
async fn install_twice_changes_nothing_the_second_time() {
    let app = App::bare("install twice").await;
    let first = app.tenantd(&["install"]).ok().stdout;
    for expected in [
        "installed version 1 ",
        "trigger tenantd_inserted on ",
        "trigger tenantd_login on ",
    ] {
        assert!(first.contains(expected), "{expected} in {first}");
    }
    let before = app.ask(INSTALLED).await;
    let second = app.tenantd(&["install"]).ok().stdout;
    assert_eq!(second, "nothing to do: everything is installed\n");
    assert_eq!(app.ask(INSTALLED).await, before);
    let rest = app.tenantd(&["install", "--dry-run"]).ok().stdout;
    assert_eq!(rest.trim(), "");
}

#[tokio::test]
async fn the_sql_of_a_dry_run_installs_the_same_by_hand() {
    let (app, other) = (
        App::bare("dry run").await,
        App::bare("dry run by hand").await,
    );
    let ran = app.tenantd(&["install", "--dry-run"]).ok();
    assert_eq!(app.ask("SELECT to_regnamespace('tenantd')").await, "-");
    assert_eq!(app.ask(TRIGGERS).await, "-");
    other.sql.batch_execute(&ran.stdout).await.unwrap();
    app.tenantd(&["install"]).ok();
    assert_eq!(other.ask(INSTALLED).await, app.ask(INSTALLED).await);
    let again = other.tenantd(&["install"]).ok().stdout;
    assert_eq!(again, "nothing to do: everything is installed\n");
    other.tenant(1).await;
    other.tenantd(&["migrate", "1"]).ok();
}

#[tokio::test]
async fn a_role_is_granted_what_the_daemon_needs_also_by_the_sql_of_a_dry_run() {
    let (app, other) = (App::bare("role").await, App::bare("role by hand").await);
    let role = format!("{}_daemon", app.db.name);
    app.sql
        .batch_execute(&format!("CREATE ROLE {role} LOGIN"))
        .await
        .unwrap();
    let ran = app.tenantd(&["install", "--role", &role, "--dry-run"]).ok();
    other.sql.batch_execute(&ran.stdout).await.unwrap();
    let granted = app.tenantd(&["install", "--role", &role]).ok().stdout;
    let unknown = "PostgreSQL 14 has no privileges for parameters";
    assert_eq!(granted.contains(unknown), ran.stdout.contains(unknown));
    for app in [&app, &other] {
        app.tenant(1).await;
        let url = app
            .db
            .conninfo
            .replace("user=postgres", &format!("user={role}"));
        app.tenantd(&["migrate", "1", "-d", &url]).ok();
        assert_eq!(app.state("1").await, "current 0002");
        let version: i32 = app.ask("SHOW server_version_num").await.parse().unwrap();
        if version >= 150_000 {
            let sql =
                format!("SELECT has_parameter_privilege('{role}', 'deadlock_timeout', 'SET')");
            assert_eq!(app.ask(&sql).await, "t");
        }
    }
    assert_eq!(other.ask(INSTALLED).await, app.ask(INSTALLED).await);
    let owned = "DROP OWNED BY";
    other
        .sql
        .batch_execute(&format!("{owned} {role} CASCADE"))
        .await
        .unwrap();
    app.sql
        .batch_execute(&format!("{owned} {role} CASCADE; DROP ROLE {role}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn twenty_installs_at_once_all_succeed_and_record_each_version_once() {
    let app = App::bare("twenty installs").await;
    let all: Vec<_> = (0..20).map(|_| app.spawn(&["install"])).collect();
    for child in all {
        finish(child).await.ok();
    }
    let sql = "SELECT count(*) || ' ' || count(DISTINCT version) || ' ' || max(version) FROM tenantd.control";
    let counted = app.ask(sql).await;
    let counted: Vec<_> = counted.split(' ').collect();
    let newest = tenantd::fleet::control::VERSION.to_string();
    assert_eq!((counted[0], counted[2]), (counted[1], newest.as_str()));
    assert_eq!(app.ask(TRIGGERS).await, "tenantd_inserted,tenantd_login");
}

#[tokio::test]
async fn uninstall_removes_the_triggers_and_keeps_the_ledger_unless_purged() {
    let app = App::new("uninstall").await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    let before = app.ask(INSTALLED).await;
    let dry = app
        .tenantd(&["uninstall", "--purge", "--dry-run"])
        .ok()
        .stdout;
    assert_eq!(
        app.ask(INSTALLED).await,
        before,
        "a dry run changed something"
    );
    assert_eq!(dry.matches("DROP TRIGGER").count(), 2, "{dry}");
    assert!(dry.contains("DROP SCHEMA"), "{dry}");

    let ran = app.tenantd(&["uninstall"]).ok();
    assert!(ran.stdout.contains("the ledger stays"), "{ran:?}");
    assert_eq!(app.ask(TRIGGERS).await, "-");
    assert_eq!(app.state("1").await, "current 0002");
    app.tenant(2).await;
    app.login(1).await;

    app.tenantd(&["install"]).ok();
    assert_eq!(app.ask(INSTALLED).await, before);
    app.tenantd(&["uninstall", "--purge"]).ok();
    assert_eq!(app.ask(TRIGGERS).await, "-");
    assert_eq!(app.ask("SELECT to_regnamespace('tenantd')").await, "-");
    assert_eq!(app.ask("SELECT count(*) FROM tenant_1.items").await, "0");
    app.tenant(3).await;
    app.login(3).await;
    app.tenantd(&["uninstall", "--purge"]).ok();
}

#[tokio::test]
async fn uninstall_by_a_stranger_names_the_statement_for_the_owner() {
    let app = App::new("uninstall stranger").await;
    let role = format!("{}_stranger", app.db.name);
    app.sql
        .batch_execute(&format!("CREATE ROLE {role} LOGIN"))
        .await
        .unwrap();
    let url = app
        .db
        .conninfo
        .replace("user=postgres", &format!("user={role}"));
    let ran = app.tenantd(&["uninstall", "--purge", "-d", &url]).ok();
    for table in ["tenants", "logins"] {
        let drop = ran.stdout.lines().find_map(|line| {
            line.split_once("the table's owner runs: ")
                .filter(|(_, drop)| drop.contains(table))
        });
        let (_, drop) = drop.unwrap_or_else(|| panic!("no DROP for {table}: {ran:?}"));
        app.tenant(if table == "tenants" { 1 } else { 2 }).await;
        app.login(1).await;
        app.sql.batch_execute(drop).await.unwrap();
    }
    assert!(ran.stdout.contains("the schema tenantd stays"), "{ran:?}");
    assert_eq!(app.ask(TRIGGERS).await, "-");
    app.tenantd(&["status"]).ok();
    app.sql
        .batch_execute(&format!("DROP ROLE {role}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn install_gives_up_on_a_busy_table_and_never_stalls_the_application() {
    let app = App::bare("busy table").await;
    let busy = app.db.connect().await;
    busy.batch_execute("BEGIN; INSERT INTO public.tenants (id) VALUES (1000000)")
        .await
        .unwrap();
    let mut child = app.spawn(&["install"]);
    let (mut worst, mut inserts) = (Duration::ZERO, 0);
    while child.try_wait().unwrap().is_none() {
        let start = Instant::now();
        app.sql
            .execute(
                "INSERT INTO public.tenants (name) VALUES ('x') ON CONFLICT DO NOTHING",
                &[],
            )
            .await
            .ok();
        worst = worst.max(start.elapsed());
        inserts += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ran = finish(child).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("install trigger tenantd_inserted on public.tenants"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("55P03"), "{ran:?}");
    assert!(inserts > 20, "{inserts}");
    // The longest step of the ladder is 1 s; the rest is for a busy machine.
    assert!(worst < Duration::from_millis(2500), "{worst:?}");
    busy.batch_execute("COMMIT").await.unwrap();
    app.tenantd(&["install"]).ok();
    assert_eq!(app.ask(TRIGGERS).await, "tenantd_inserted,tenantd_login");
}

#[tokio::test]
async fn install_goes_on_as_soon_as_the_busy_transaction_ends() {
    let app = App::bare("busy for a while").await;
    let busy = app.db.connect().await;
    busy.batch_execute("BEGIN; INSERT INTO public.logins (tenant_id) VALUES (1)")
        .await
        .unwrap();
    let child = app.spawn(&["install"]);
    until("install to wait for the lock", async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.logins'::regclass";
        let waiting = app.ask(sql).await;
        (waiting == "1", waiting)
    })
    .await;
    busy.batch_execute("COMMIT").await.unwrap();
    finish(child).await.ok();
    assert_eq!(app.ask(TRIGGERS).await, "tenantd_inserted,tenantd_login");
}

/// What was announced on `dashboard_login` since, ended by a word of our own.
async fn heard(db: &TestDb, statements: &[&str]) -> Vec<String> {
    let (client, mut payloads) = listen(&db.conninfo, "dashboard_login").await;
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
    client
        .batch_execute("NOTIFY dashboard_login, 'end'")
        .await
        .unwrap();
    let mut all = Vec::new();
    loop {
        match payloads.recv().await.unwrap() {
            end if end == "end" => return all,
            payload => all.push(payload),
        }
    }
}

#[tokio::test]
async fn a_login_is_an_insert_or_an_update_of_the_configured_columns_only() {
    let app = App::bare("update columns").await;
    app.sql
        .batch_execute("ALTER TABLE public.logins ADD COLUMN seen int, ADD COLUMN page text")
        .await
        .unwrap();
    app.tenantd(&["install", "--set", "logins.update_columns=seen,at"])
        .ok();
    app.run(&lag(&["41", "42", "43"])).await;
    let payloads = heard(
        &app.db,
        &[
            "INSERT INTO public.logins (id, tenant_id) VALUES (1, 41)",
            "UPDATE public.logins SET page = '/'",
            "UPDATE public.logins SET seen = 2, tenant_id = 42",
            "UPDATE public.logins SET tenant_id = 43",
            "UPDATE public.logins SET at = now()",
            "DELETE FROM public.logins",
        ],
    )
    .await;
    assert_eq!(payloads, ["41", "42", "43"]);
    app.tenantd(&["install"]).ok();
    let payloads = heard(
        &app.db,
        &[
            "INSERT INTO public.logins (id, tenant_id) VALUES (1, 41)",
            "UPDATE public.logins SET seen = 2, at = now(), tenant_id = 42",
        ],
    )
    .await;
    assert_eq!(
        payloads,
        ["41"],
        "the columns were taken out of the configuration"
    );
}

#[tokio::test]
async fn a_login_of_nobody_or_of_a_current_tenant_is_silent() {
    let app = App::new("silent logins").await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    let payloads = heard(
        &app.db,
        &[
            "INSERT INTO public.logins (tenant_id) VALUES (NULL)",
            "INSERT INTO public.logins (tenant_id) VALUES (1)",
            // Whom the ledger does not know, the insert trigger and the sweep tell of.
            "INSERT INTO public.logins (tenant_id) VALUES (NULL), (99)",
            &lag(&["98"]),
            "INSERT INTO public.logins (tenant_id) VALUES (97), (98)",
        ],
    )
    .await;
    assert_eq!(payloads, ["98"]);
    assert_eq!(app.ask("SELECT count(*) FROM public.logins").await, "6");
}

#[tokio::test]
async fn the_application_works_on_when_the_control_schema_was_dropped_by_hand() {
    let app = App::new("dropped by hand").await;
    app.sql
        .batch_execute("DROP SCHEMA tenantd CASCADE")
        .await
        .unwrap();
    app.tenant(1).await;
    app.login(1).await;
    assert_eq!(app.ask(TRIGGERS).await, "-");
    let ran = app.tenantd(&["status"]);
    assert!(ran.stderr.contains("run `tenantd install`"), "{ran:?}");
    app.tenantd(&["install"]).ok();
    app.tenantd(&["migrate", "1"]).ok();
}

#[tokio::test]
async fn the_application_logs_in_where_it_may_not_read_who_is_behind() {
    let app = App::new("restored without privileges").await;
    let role = format!("web_{}", app.db.name);
    app.run(&format!(
        "CREATE ROLE {role}; GRANT INSERT ON public.logins TO {role}"
    ))
    .await;
    let taken = [
        "SELECT ON SEQUENCE tenantd.any_behind",
        "SELECT ON tenantd.behind",
        "USAGE ON SCHEMA tenantd",
    ];
    app.run(&lag(&["1"])).await;
    for right in taken {
        app.run(&format!("REVOKE {right} FROM PUBLIC")).await;
        let web = app.db.connect().await;
        web.batch_execute(&format!(
            "BEGIN; SET LOCAL ROLE {role}; INSERT INTO public.logins (tenant_id) VALUES (1); COMMIT"
        ))
        .await
        .unwrap();
    }
    assert_eq!(app.ask("SELECT count(*) FROM public.logins").await, "3");
    app.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn the_application_works_on_when_a_column_of_the_trigger_is_renamed() {
    let app = App::new("renamed column").await;
    app.sql
        .batch_execute("ALTER TABLE public.logins RENAME COLUMN tenant_id TO customer")
        .await
        .unwrap();
    let login = "INSERT INTO public.logins (customer) VALUES (5)";
    app.run(login).await;
    // The column is looked at only while somebody lags.
    app.run(&lag(&["5"])).await;
    app.run(login).await;
    assert_eq!(app.ask("SELECT count(*) FROM public.logins").await, "2");
}

#[tokio::test]
async fn a_table_without_a_schema_is_found_where_the_role_would_find_it() {
    let app = App::bare("located").await;
    app.run("CREATE SCHEMA \"My \"\"App\"; ALTER TABLE public.tenants SET SCHEMA \"My \"\"App\"")
        .await;
    app.configure_in("registry", "table = \"tenants\"");
    let ran = app.tenantd(&["install"]);
    assert!(ran.stderr.contains("there is no table tenants"), "{ran:?}");
    let path = "search_path = other, \"$user\", \"My \"\"App\", public";
    app.run(&format!("ALTER DATABASE {} SET {path}", app.db.name))
        .await;
    app.tenantd(&["install"]).ok();
    let insert = "INSERT INTO \"My \"\"App\".tenants (id) VALUES";
    app.run(&format!("{insert} (1)")).await;
    let daemon = app.daemon().await;
    app.all_ready(&daemon, [1]).await;
    app.run(&format!("{insert} (2)")).await;
    app.all_ready(&daemon, [2]).await;
    // What the filter calls is looked up in the catalog only.
    app.run("CREATE FUNCTION public.fits(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT $1 < 2'")
        .await;
    app.configure_in("registry", "filter = \"fits(id)\"");
    let ran = app.tenantd(&["status"]);
    assert!(
        ran.stderr
            .contains("function fits(bigint) does not exist (SQLSTATE 42883)"),
        "{ran:?}"
    );
    let config = std::fs::read_to_string(app.config()).unwrap();
    std::fs::write(app.config(), config.replace("fits(id)", "public.fits(id)")).unwrap();
    let counts = app.tenantd(&["status", "--output", "json"]).ok().json();
    assert_eq!(counts["counts"]["tenants"], 1);
}
