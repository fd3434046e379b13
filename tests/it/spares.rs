//! Spares: schemas filled ahead of need, and given to new tenants by a rename.

use tokio_postgres::Client;

use crate::support::{App, Daemon, until};

const SPARES: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenantd\\_spare\\_%'";

/// Waits until `status` tells so many spares to be ready.
async fn ready(app: &App, daemon: &Daemon, expected: i64) {
    until(&format!("{expected} spares to be ready"), async || {
        let report = app.tenantd(&["status", "--output", "json"]).ok().json();
        let spares = &report["spares"];
        (
            spares["ready"] == expected && spares["existing"] == expected,
            format!("{spares}\n{}", daemon.log()),
        )
    })
    .await;
}

async fn claimed(daemon: &Daemon) -> f64 {
    daemon.metric("tenantd_spares_claimed_total").await
}

async fn until_claimed(daemon: &Daemon, expected: f64) {
    until(&format!("{expected} to be claimed"), async || {
        let seen = claimed(daemon).await;
        (seen == expected, format!("{seen}\n{}", daemon.log()))
    })
    .await;
}

/// Everything about a schema that neither its name, nor an oid, nor a time makes.
async fn all_about(app: &App, schema: &str) -> String {
    let sql = format!(
        "SELECT string_agg(replace(line, '{schema}', 'S'), E'\\n' ORDER BY line) FROM (
             SELECT concat_ws(' ', 'schema', nspowner::regrole, nspacl::text, obj_description(oid)) AS line
             FROM pg_namespace WHERE nspname = '{schema}'
             UNION ALL SELECT concat_ws(' ', relkind, relname, relowner::regrole, relacl::text, obj_description(oid))
             FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'S', 'i', 'v')
             UNION ALL SELECT concat_ws(' ', 'function', proname, proowner::regrole, proacl::text, prosrc)
             FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace
             UNION ALL SELECT concat_ws(' ', 'default', defaclrole::regrole, defaclobjtype, defaclacl::text)
             FROM pg_default_acl WHERE defaclnamespace = '{schema}'::regnamespace
             UNION ALL SELECT concat_ws(' ', 'sequence', sequencename, sequenceowner, start_value, last_value)
             FROM pg_sequences WHERE schemaname = '{schema}'
             UNION ALL SELECT concat_ws(' ', 'applied', a.version, checksum, ordinal, how, role)
             FROM tenantd.applied a JOIN tenantd.tenant t ON t.id = a.tenant WHERE t.schema = '{schema}'
             UNION ALL SELECT concat_ws(' ', 'ledger', version, digest, state, attempts, name IS NULL, namespace = '{schema}'::regnamespace)
             FROM tenantd.tenant WHERE schema = '{schema}'
         ) x"
    );
    app.ask(&sql).await
}

/// A set with one of each.
fn files(app: &App) {
    app.migration(
        "0003_serial.sql",
        "CREATE TABLE tags (id bigserial PRIMARY KEY, label text NOT NULL, at timestamptz DEFAULT now());
         COMMENT ON TABLE tags IS 'what is said';
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER touches BEFORE UPDATE ON tags FOR EACH ROW EXECUTE FUNCTION touch();
         CREATE VIEW labels AS SELECT label FROM tags;
         INSERT INTO tags (label) VALUES ('a'), ('b');
         CREATE TYPE mood AS ENUM ('ok');
         CREATE TABLE moods (mood mood);",
    );
    app.migration(
        "0004_policy.sql",
        "ALTER TABLE tags ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON tags USING (label <> 'hidden');
         CREATE INDEX CONCURRENTLY tags_label ON tags (label);",
    );
    // Takes several commits.
    app.migration(
        "0005_mood.sql",
        "ALTER TYPE mood ADD VALUE 'sad'; INSERT INTO moods VALUES ('sad'); CREATE INDEX moods_mood ON moods (mood);",
    );
}

#[tokio::test]
async fn a_new_tenant_is_given_a_spare_that_nothing_tells_from_a_schema_of_its_own() {
    let app = App::new("spares").await;
    let names = ["owner", "user", "files"].map(|hint| format!("{hint}_{}", app.db.name));
    for name in &names {
        app.run(&format!("CREATE ROLE {name} LOGIN")).await;
    }
    let [owner, user, role] = &names;
    files(&app);
    app.configure(&format!(
        "[schema]\nowner = \"{owner}\"\nusage = [\"{user}\"]\n[spares]\nkeep = 2"
    ));
    app.configure_in("migrations", &format!("role = \"{role}\""));
    let mut heard = app.listen("tenant_ready").await;
    let daemon = app.quiet_daemon().await;
    ready(&app, &daemon, 2).await;
    app.tenant(1).await;
    assert_eq!(heard.next().await, "1");
    until_claimed(&daemon, 1.0).await;
    assert_eq!(daemon.reconciles("insert", "applied").await, 1.0);
    // One that was built: by a command, which claims nothing.
    app.silent_tenant(2).await;
    app.tenantd(&["migrate", "2"]).ok();
    let (given, built) = (
        all_about(&app, "tenant_1").await,
        all_about(&app, "tenant_2").await,
    );
    assert_eq!(given, built);
    assert!(
        given.contains(user.as_str()) && given.contains("sequence tags_id_seq"),
        "{given}"
    );
    let verified = app.tenantd(&["verify", "--all"]).ok();
    assert!(!verified.stdout.contains("differ"), "{}", verified.stdout);
    assert_eq!(app.state("1").await, "current 0005");
    assert_eq!(
        app.ask("SELECT tenantd.ready('1') AND tenantd.ready('1', '0003')")
            .await,
        "t"
    );
    // It is one tenant as any other, and spares are none.
    ready(&app, &daemon, 2).await;
    let report = app.tenantd(&["status", "--output", "json"]).ok().json();
    let numbers = &report["counts"];
    assert_eq!(
        (&numbers["tenants"], &numbers["schemas_existing"]),
        (&2.into(), &2.into())
    );
    assert_eq!(app.ask("SELECT count(*) FROM tenantd.status").await, "2");
    let table = app.tenantd(&["status"]).ok().stdout;
    assert!(
        table.contains("spares               2   ready of 2 to keep"),
        "{table}"
    );
    until("the gauge to tell", async || {
        let seen = daemon.metric("tenantd_spares{").await;
        (seen == 2.0, seen.to_string())
    })
    .await;
    app.migration_at_once("0006_more.sql", "ALTER TABLE tags ADD COLUMN more text;");
    daemon.signal("HUP");
    app.all_ready(&daemon, 1..=2).await;
    ready(&app, &daemon, 2).await;
    app.tenant(3).await;
    until_claimed(&daemon, 2.0).await;
    assert_eq!(app.state("3").await, "current 0006");
    let (given, built) = (
        all_about(&app, "tenant_3").await,
        all_about(&app, "tenant_2").await,
    );
    assert_eq!(given, built);
    drop(daemon);
    app.tenantd(&["uninstall"]).ok();
    app.run(
        "DROP SCHEMA tenant_1 CASCADE; DROP SCHEMA tenant_2 CASCADE; DROP SCHEMA tenant_3 CASCADE",
    )
    .await;
    for name in &names {
        app.run(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
            .await;
    }
}

#[tokio::test]
async fn a_spare_is_migrated_by_one_transaction_and_left_where_it_is_when_that_fails() {
    let app = App::new("spares_fail").await;
    app.configure("[spares]\nkeep = 1");
    let daemon = app.daemon().await;
    ready(&app, &daemon, 1).await;
    let spare = app.ask("SELECT schema FROM tenantd.tenant").await;
    app.migration("0003_fine.sql", "ALTER TABLE items ADD COLUMN fine int;");
    app.migration("0004_broken.sql", "ALTER TABLE nowhere ADD COLUMN x int;");
    daemon.signal("HUP");
    until("it to be said", async || {
        (daemon.log().contains("spares wait"), daemon.log())
    })
    .await;
    assert!(
        daemon.log().contains("0004_broken.sql line 1"),
        "{}",
        daemon.log()
    );
    assert_eq!(
        app.ask("SELECT concat_ws(' ', schema, version, coalesce(tenant_id, 'nobody')) FROM tenantd.tenant").await,
        format!("{spare} 0002 nobody")
    );
    // A tenant that comes now fares as it would without spares.
    app.tenant(1).await;
    app.becomes(&daemon, "1", "quarantined -").await;
    assert_eq!(claimed(&daemon).await, 0.0);
}

#[tokio::test]
async fn spares_are_given_away_in_sessions_that_files_with_code_have_cleaned() {
    let app = App::new("cleaned").await;
    app.migration(
        "0003_block.sql",
        "DO $$ BEGIN CREATE TABLE made (); END $$;",
    );
    app.configure("[spares]\nkeep = 2");
    let daemon = app.daemon().await;
    for id in 1..=4 {
        ready(&app, &daemon, 2).await;
        app.tenant(id).await;
        until_claimed(&daemon, f64::from(u32::try_from(id).unwrap())).await;
    }
    let log = daemon.log();
    for complaint in [
        "was not rehearsed",
        "no spare was claimed",
        "could not be given",
    ] {
        assert!(!log.contains(complaint), "{log}");
    }
}

#[tokio::test]
async fn a_set_that_reads_or_keeps_the_schemas_name_has_no_spares_and_says_why() {
    for (file, expected) in [
        (
            "CREATE TABLE who (name text DEFAULT current_schema());",
            "0003_name.sql:1 reads current_schema",
        ),
        (
            "CREATE TABLE who (name text);
             INSERT INTO who SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'items'::regclass;",
            "rows of table who",
        ),
        (
            "DO $$ BEGIN EXECUTE format('ALTER TABLE items ALTER label SET DEFAULT %L',
                 (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'items'::regclass)); END $$;",
            "column items.label",
        ),
    ] {
        let app = App::new("spares_refused").await;
        app.migration("0003_name.sql", file);
        app.configure("[spares]\nkeep = 1");
        let daemon = app.daemon().await;
        let mut refused = String::new();
        until("the set to be refused", async || {
            let report = app.tenantd(&["status", "--output", "json"]).ok().json();
            refused = report["spares"]["refused"].as_str().unwrap_or_default().to_owned();
            (!refused.is_empty(), format!("{report}\n{}", daemon.log()))
        })
        .await;
        assert!(refused.contains(expected), "{refused}");
        let table = app.tenantd(&["status"]).ok().stdout;
        assert!(table.contains("none for this set"), "{table}");
        app.tenant(1).await;
        app.all_ready(&daemon, [1]).await;
        assert_eq!(claimed(&daemon).await, 0.0);
        until("it to be said", async || {
            (daemon.log().contains("no spares are kept for this set"), daemon.log())
        })
        .await;
        assert_eq!(daemon.log().matches("no spares are kept for this set").count(), 1);
    }
}

#[tokio::test]
async fn a_spare_dropped_by_hand_is_forgotten_and_one_with_another_stamp_is_not_given_away() {
    let app = App::new("spares_hand").await;
    app.configure("[spares]\nkeep = 1");
    let daemon = app.daemon().await;
    ready(&app, &daemon, 1).await;
    let spare = app.ask("SELECT schema FROM tenantd.tenant").await;
    app.run(&format!("DROP SCHEMA {spare} CASCADE")).await;
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    assert_eq!(claimed(&daemon).await, 0.0);
    ready(&app, &daemon, 1).await;
    assert!(
        daemon.log().contains(&format!("forgot spare {spare}")),
        "{}",
        daemon.log()
    );
    let spare = app
        .ask("SELECT schema FROM tenantd.tenant WHERE tenant_id IS NULL")
        .await;
    app.run(&format!("COMMENT ON SCHEMA {spare} IS 'mine'"))
        .await;
    app.tenant(2).await;
    app.all_ready(&daemon, [2]).await;
    assert_eq!(claimed(&daemon).await, 0.0);
    app.answers(
        &format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{spare}'"),
        "0",
    )
    .await;
    ready(&app, &daemon, 1).await;
}

#[tokio::test]
async fn nobody_who_might_have_a_schema_or_should_not_have_one_is_given_a_spare() {
    let app = App::new("spares_doubt").await;
    app.configure("[spares]\nkeep = 5");
    app.configure_in(
        "registry",
        "filter = \"r.name <> 'closed'\"\nschema_column = \"schema\"",
    );
    let daemon = app.quiet_daemon().await;
    ready(&app, &daemon, 5).await;
    app.run(
        "CREATE SCHEMA theirs; CREATE TABLE theirs.t (id int);
         INSERT INTO public.tenants (id, name, schema) VALUES
             (1, 'filled', 'theirs'), (2, 'reserved', 'pg_mine'), (3, 'closed', 'closed'), (4, 'fine', 'Fine \"one\"')",
    )
    .await;
    app.becomes(&daemon, "1", "untracked -").await;
    app.becomes(&daemon, "2", "refused -").await;
    app.becomes(&daemon, "4", "current 0002").await;
    until_claimed(&daemon, 1.0).await;
    app.run("INSERT INTO public.tenants (id, name, schema) VALUES (5, 'second', 'Fine \"one\"')")
        .await;
    app.becomes(&daemon, "5", "refused -").await;
    assert_eq!(claimed(&daemon).await, 1.0);
    assert_eq!(
        app.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'closed'")
            .await,
        "0"
    );
}

#[tokio::test]
async fn uninstall_removes_spares_but_not_one_that_somebody_put_rows_into() {
    let app = App::new("spares_uninstall").await;
    app.configure("[spares]\nkeep = 3");
    let mut daemon = app.daemon().await;
    ready(&app, &daemon, 3).await;
    daemon.signal("TERM");
    daemon.ended().await;
    app.configure("");
    let table = app.tenantd(&["status"]).ok().stdout;
    assert!(
        table.contains("ready of 0 to keep; new tenants take them"),
        "{table}"
    );
    let used = app.ask("SELECT max(schema) FROM tenantd.tenant").await;
    app.run(&format!("INSERT INTO {used}.items VALUES (1)"))
        .await;
    let dry = app.tenantd(&["uninstall", "--dry-run"]).ok().stdout;
    assert_eq!(
        dry.matches("SELECT tenantd.spare_drop('tenantd_spare_")
            .count(),
        3,
        "{dry}"
    );
    assert_eq!(app.ask(SPARES).await, "3");
    let done = app.tenantd(&["uninstall"]).ok().stdout;
    assert_eq!(done.matches("dropped spare").count(), 2, "{done}");
    assert!(done.contains(&format!("kept schema {used}")), "{done}");
    assert_eq!(
        app.ask(&format!("SELECT count(*) FROM {used}.items")).await,
        "1"
    );
    assert_eq!(
        app.ask("SELECT concat_ws(' ', (SELECT count(*) FROM tenantd.spare), (SELECT string_agg(schema || state, ',') FROM tenantd.tenant))").await,
        format!("0 {used}orphan")
    );
}

#[tokio::test]
async fn spares_that_were_kept_are_given_away_when_none_are_kept_any_more() {
    let app = App::new("spares_lowered").await;
    app.configure("[spares]\nkeep = 2");
    let mut daemon = app.daemon().await;
    ready(&app, &daemon, 2).await;
    daemon.signal("TERM");
    daemon.ended().await;
    app.configure("");
    let daemon = app.daemon().await;
    for id in 1..=2 {
        until("it to know its spares", async || {
            let seen = daemon.metric("tenantd_spares{").await;
            (seen >= 1.0, seen.to_string())
        })
        .await;
        app.tenant(id).await;
        app.all_ready(&daemon, [id]).await;
        until_claimed(&daemon, id as f64).await;
    }
    app.tenant(3).await;
    app.all_ready(&daemon, [3]).await;
    assert_eq!(claimed(&daemon).await, 2.0);
    assert_eq!(app.ask(SPARES).await, "0");
}

/// Whole spares, whole tenants, and nothing else: by the ledger and by the catalog.
async fn whole(app: &App) {
    let odd = "SELECT count(*) FROM pg_namespace n
         WHERE nspname ~ '^tenant(d_spare)?_' AND NOT EXISTS (
             SELECT FROM tenantd.tenant t WHERE t.namespace = n.oid AND t.schema = n.nspname AND t.version = '0002'
                AND (t.tenant_id IS NULL) = EXISTS (SELECT FROM tenantd.spare s WHERE s.tenant = t.id)
                AND (SELECT count(*) FROM tenantd.applied a WHERE a.tenant = t.id) = 2
                AND (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND relkind = 'r') = 2)";
    assert_eq!(app.ask(odd).await, "0");
    let gone = "SELECT (SELECT count(*) FROM tenantd.tenant t WHERE digest IS NOT NULL
             AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.oid = t.namespace AND n.nspname = t.schema))
         + (SELECT count(*) FROM tenantd.applied a WHERE NOT EXISTS (SELECT FROM tenantd.tenant t WHERE t.id = a.tenant))";
    assert_eq!(app.ask(gone).await, "0");
}

#[tokio::test]
async fn a_daemon_killed_around_a_claim_or_a_refill_leaves_whole_spares_or_none() {
    let app = App::new("spares_killed").await;
    app.configure("[spares]\nkeep = 2");
    for (id, point) in (1..).zip([
        "spare.building=abort",
        "spare.built=abort",
        "spare.claiming=abort",
        "spare.claimed=abort",
    ]) {
        if id <= 2 {
            app.tenantd(&["uninstall"]).ok();
            app.tenantd(&["install"]).ok();
        }
        let mut killed = app.start_at(point);
        if id > 2 {
            ready(&app, &killed, 2).await;
            until("it to know its spares", async || {
                let seen = killed.metric("tenantd_spares{").await;
                (seen >= 1.0, seen.to_string())
            })
            .await;
            app.tenant(id).await;
        }
        assert_eq!(killed.ended().await, -1, "{point}: {}", killed.log());
        app.nobody_works().await;
        whole(&app).await;
        let mut daemon = app.daemon().await;
        if id > 2 {
            app.all_ready(&daemon, [id]).await;
        }
        ready(&app, &daemon, 2).await;
        whole(&app).await;
        daemon.signal("TERM");
        assert_eq!(daemon.ended().await, 0);
    }
}

#[tokio::test]
async fn two_daemons_give_each_tenant_one_spare_and_no_spare_twice() {
    let app = App::new("spares_two").await;
    app.configure("[spares]\nkeep = 12");
    let (one, two) = (app.daemon().await, app.daemon().await);
    ready(&app, &one, 12).await;
    for daemon in [&one, &two] {
        until("it to know the spares", async || {
            (daemon.log().contains("spares=12"), daemon.log())
        })
        .await;
    }
    let clients = futures::future::join_all((0..4).map(|_| app.db.connect())).await;
    let insert = async |client: &Client, first: i32| {
        for id in 0..5 {
            let sql = format!(
                "INSERT INTO public.tenants (id, name) VALUES ({}, 'n')",
                first + id
            );
            client.batch_execute(&sql).await.unwrap();
        }
    };
    let inserts = clients
        .iter()
        .zip(0..)
        .map(|(client, n)| insert(client, n * 5 + 1));
    futures::future::join_all(inserts).await;
    app.all_ready(&one, 1..=20).await;
    whole(&app).await;
    assert_eq!(
        app.ask("SELECT count(DISTINCT namespace) FROM tenantd.tenant WHERE tenant_id IS NOT NULL")
            .await,
        "20"
    );
    until("claims to be counted", async || {
        let seen = claimed(&one).await + claimed(&two).await;
        (seen >= 6.0, format!("{seen}\n{}", one.log()))
    })
    .await;
    ready(&app, &one, 12).await;
    whole(&app).await;
}
