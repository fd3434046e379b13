//! Restored data, shared objects, durability (faults 61 to 70).

use std::{path::PathBuf, process::Command, time::Instant};

use super::recovered;
use crate::support::{
    App, oracles, oracles_but,
    postgres::{Options, Server, with_clients},
    until,
};

const SLEEPS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
/// What stands where no migration may put it.
const STRAY: &str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.relname = 'late' AND (n.nspname = 'public' OR n.nspname LIKE 'pg\\_temp%')";

#[tokio::test]
async fn what_a_file_makes_after_its_schema_went_away_lands_nowhere() {
    let app = App::new("went_away").await;
    let role = format!("files_{}", app.db.name);
    app.run(&format!(
        "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}"
    ))
    .await;
    app.configure_in("migrations", &format!("role = \"{role}\""));
    for id in 1..=4 {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.migration(
        "0003_late.sql",
        "DO $$ BEGIN PERFORM pg_sleep(1.5); END $$;\nCREATE TABLE late (id bigint);",
    );
    let daemon = app.start_with(&["--set", "database.workers=5"]);
    app.answers(SLEEPS, "4").await;
    app.run(&format!(
        "DROP SCHEMA tenant_1 CASCADE; ALTER SCHEMA tenant_2 RENAME TO moved;
         REVOKE ALL ON SCHEMA tenant_3 FROM {role}"
    ))
    .await;
    let start = Instant::now();
    app.becomes(&daemon, "1", "lost 0002").await;
    app.becomes(&daemon, "2", "lost 0002").await;
    // `status` looks itself. Until the daemon has, the ledger knows of a file that failed, and a person would be needed.
    let known = "SELECT string_agg(error_sqlstate || ' ' || state, ', ') FROM tenantd.tenant WHERE tenant_id IN ('1', '2')";
    app.answers(known, "TD003 lost, TD003 lost").await;
    app.becomes(&daemon, "3", "quarantined 0002").await;
    app.all_ready(&daemon, [4]).await;
    let error = app.error("3");
    assert!(error.contains("(SQLSTATE TD003)"), "{error}");
    assert_eq!(app.ask(STRAY).await, "0");
    assert_eq!(app.ask("SELECT to_regclass('moved.late')::text").await, "-");
    app.run(&format!(
        "ALTER SCHEMA moved RENAME TO tenant_2; GRANT ALL ON SCHEMA tenant_3 TO {role}"
    ))
    .await;
    app.tenantd(&["fix", "1", "--rebuild"]).ok();
    app.tenantd(&["fix", "3"]).ok();
    oracles(&app, &daemon).await;
    recovered(start);
    drop(daemon);
    app.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn of_sessions_that_race_for_the_guard_one_wins_each_round() {
    const ROUNDS: usize = 100;
    let app = App::current("raced", 1).await;
    app.run("CREATE TABLE public.wins (round int)").await;
    let namespace = app.ask("SELECT 'tenant_1'::regnamespace::oid").await;
    let mut digest = app.ask("SELECT digest FROM tenantd.tenant").await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(app.db.connect().await);
    }
    let (mut busy, mut stale) = (0, 0);
    for round in 0..ROUNDS {
        let next = format!("{round:032x}");
        let message = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
             SELECT set_config('search_path', 'tenant_1, public, pg_temp', true);
             SELECT tenantd.guard('1', 'tenant_1', '{digest}', {namespace}, current_schema());
             INSERT INTO public.wins VALUES ({round});
             SELECT tenantd.record('1', 'tenant_1', 'n1', {namespace}, ARRAY['r{round}'], ARRAY['{next}'], ARRAY[{}], '{next}',
                 current_schema(), current_setting('search_path'), CURRENT_USER, 'tenant_1, public, pg_temp', SESSION_USER,
                 false, true, false, 'race');
             COMMIT",
            round + 3
        );
        let race = sessions
            .iter()
            .map(|session| session.batch_execute(&message));
        let ended = futures::future::join_all(race).await;
        for error in ended.iter().filter_map(|it| it.as_ref().err()) {
            match error.as_db_error().unwrap().code().code() {
                "TD001" => busy += 1,
                "TD002" => stale += 1,
                _ => panic!("{error:?}"),
            }
        }
        assert_eq!(ended.iter().filter(|it| it.is_ok()).count(), 1, "{round}");
        for session in &sessions {
            session.batch_execute("ROLLBACK").await.unwrap();
        }
        digest = next;
    }
    let wins = "SELECT concat_ws(' ', count(*), count(DISTINCT round)) FROM public.wins";
    assert_eq!(app.ask(wins).await, format!("{ROUNDS} {ROUNDS}"));
    assert!(busy > 0 && stale > 0, "{busy} busy, {stale} stale");
}

#[tokio::test]
async fn two_daemons_apply_each_file_once_whatever_isolation_the_database_prefers() {
    for isolation in ["repeatable read", "serializable"] {
        let app = App::current("isolation", 12).await;
        let name = &app.db.name;
        app.run(&format!(
            "ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
        ))
        .await;
        app.counted("0003").await;
        app.counted("0004").await;
        let (one, two) = (app.start(), app.start());
        let start = Instant::now();
        app.answers(
            "SELECT count(*) FROM tenantd.tenant WHERE version = '0004'",
            "12",
        )
        .await;
        recovered(start);
        drop(two);
        oracles(&app, &one).await;
    }
}

/// Dumps a schema, or restores from a dump; the program's output.
fn run(program: &str, arguments: &[&str]) -> String {
    let program = with_clients().join(program);
    let output = Command::new(&program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two current tenants with a row each, a dump of each schema as of 0002, then 0003.
async fn dumped(hint: &str) -> (Server, App, [PathBuf; 2]) {
    let options = Options {
        bin_dir: Some(with_clients()),
        ..Options::default()
    };
    let server = Server::start(options).await.unwrap();
    let app = App::on_server(&server, hint).await;
    app.tenantd(&["install"]).ok();
    for id in [1, 2] {
        app.tenant(id).await;
    }
    app.tenantd(&["migrate", "--all"]).ok();
    app.run("INSERT INTO tenant_1.items VALUES (1, 'saved'); INSERT INTO tenant_2.items VALUES (1, 'saved')")
        .await;
    let dumps = [1, 2].map(|id| {
        let file = app.config().with_file_name(format!("tenant_{id}.dump"));
        let (schema, file_name) = (format!("tenant_{id}"), file.display().to_string());
        let arguments = [
            "--inserts",
            "-Fc",
            "-n",
            &schema,
            "-f",
            &file_name,
            &app.db.conninfo,
        ];
        run("pg_dump", &arguments);
        file
    });
    app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
    app.tenantd(&["migrate", "--all"]).ok();
    (server, app, dumps)
}

#[tokio::test]
async fn a_tenant_and_a_table_restored_by_pg_restore_are_told_of_and_brought_forward_by_a_person() {
    let (_server, app, [one, two]) = dumped("pg_restore").await;
    let daemon = app.daemon().await;
    app.run("DROP SCHEMA tenant_1 CASCADE; DROP TABLE tenant_2.items")
        .await;
    let (one, two) = (one.display().to_string(), two.display().to_string());
    run("pg_restore", &["-d", &app.db.conninfo, &one]);
    let table = [
        "-d",
        &app.db.conninfo,
        "-n",
        "tenant_2",
        "-t",
        "items",
        &two,
    ];
    run("pg_restore", &table);
    let start = Instant::now();
    app.becomes(&daemon, "1", "restored 0003").await;
    app.login(1).await;
    app.run("NOTIFY tenantd_wake, '1'").await;
    until("it to be left alone", async || {
        let left = daemon.reconciles("manual", "left_alone").await;
        (left == 1.0, daemon.log())
    })
    .await;
    let notes = "SELECT count(*) FROM pg_attribute WHERE attname = 'note'";
    assert_eq!(app.ask(notes).await, "0", "nothing applied blindly");
    // Neither stamp nor ledger tells of a single table: the catalog does.
    assert_eq!(app.state("2").await, "current 0003");
    let verify = app.tenantd(&["verify", "2"]);
    assert_eq!(verify.code, 3, "{verify:?}");
    assert!(
        verify.stdout.contains("- column items.note text"),
        "{}",
        verify.stdout
    );
    app.tenantd(&["adopt", "1"]).ok();
    app.run("ALTER TABLE tenant_2.items ADD COLUMN note text, ADD PRIMARY KEY (id)")
        .await;
    oracles(&app, &daemon).await;
    recovered(start);
    let saved = "SELECT string_agg(label, ' ') FROM (TABLE tenant_1.items UNION ALL TABLE tenant_2.items) s";
    assert_eq!(app.ask(saved).await, "saved saved");
}

#[tokio::test]
async fn a_login_in_the_middle_of_pg_restore_clean_fills_nothing() {
    let (_server, app, [one, _]) = dumped("clean").await;
    let daemon = app.daemon().await;
    let script = [
        "--clean",
        "--if-exists",
        "-f",
        "-",
        &one.display().to_string(),
    ];
    let script = run("pg_restore", &script);
    // What psql alone understands.
    let script: String = script
        .lines()
        .filter(|line| !line.starts_with('\\'))
        .map(|line| format!("{line}\n"))
        .collect();
    let (drops, creates) = script.split_at(script.find("CREATE SCHEMA").unwrap());
    let (schema, rest) = creates.split_at(creates.find("CREATE TABLE").unwrap());
    let psql = app.db.connect().await;
    for (part, left_alone) in [(drops, 1.0), (schema, 2.0)] {
        psql.batch_execute(part).await.unwrap();
        app.becomes(&daemon, "1", "lost 0003").await;
        app.login(1).await;
        app.run("NOTIFY dashboard_login, '1'").await;
        until("the login to be left alone", async || {
            let left = daemon.reconciles("login", "left_alone").await;
            (left >= left_alone, daemon.log())
        })
        .await;
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'tenant_1'";
        assert_eq!(app.ask(tables).await, "0");
    }
    psql.batch_execute(rest).await.unwrap();
    let start = Instant::now();
    app.becomes(&daemon, "1", "restored 0003").await;
    app.tenantd(&["adopt", "1"]).ok();
    oracles(&app, &daemon).await;
    recovered(start);
    assert_eq!(app.ask("SELECT label FROM tenant_1.items").await, "saved");
}

/// What is at head after a server with its own durability settings was stopped at once behind a command that migrated
/// these tenants.
async fn after_power_loss(session_settings: &str, tenants: &[&str]) -> (i64, i64) {
    let settings = [
        ("wal_writer_delay", "10s"),
        ("wal_writer_flush_after", "1GB"),
        ("autovacuum", "off"),
    ];
    let server = Server::start(Options {
        durable: true,
        settings: settings.map(|(k, v)| (k.into(), v.into())).to_vec(),
        ..Options::default()
    })
    .await
    .unwrap();
    let mut app = App::on_server(&server, "power").await;
    app.configure_in("database", session_settings);
    app.tenantd(&["install"]).ok();
    app.run(
        "INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series(1, 20) n",
    )
    .await;
    app.tenantd(&["migrate", "--all"]).ok();
    app.run("CHECKPOINT").await;
    app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
    let told = app.tenantd(&[&["migrate"], tenants].concat()).ok();
    server.stop_immediate().await.unwrap();
    server.start_again().await.unwrap();
    app.sql = server.connect(&app.db.name).await;
    let count = async |sql: &str| app.ask(sql).await.parse::<i64>().unwrap();
    let recorded = count("SELECT count(*) FROM tenantd.tenant WHERE version = '0003'").await;
    let there = count("SELECT count(*) FROM pg_attribute WHERE attname = 'note'").await;
    assert!(told.stdout.contains("20"), "{told:?}");
    let start = Instant::now();
    let daemon = app.daemon().await;
    oracles(&app, &daemon).await;
    recovered(start);
    (recorded, there)
}

#[tokio::test]
async fn what_was_reported_as_done_is_there_after_a_power_loss() {
    assert_eq!(after_power_loss("", &["--all"]).await, (20, 20));
}

mod slow {
    use super::*;

    #[tokio::test]
    async fn eight_workers_that_grant_on_one_shared_table_are_tried_again_and_nobody_is_quarantined()
     {
        let app = App::new("shared_grant").await;
        app.configure("[retry]\nattempts = 2");
        app.run("CREATE TABLE public.shared (id bigint)").await;
        app.run(
            "INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series(1, 16) n",
        )
        .await;
        app.tenantd(&["migrate", "--all"]).ok();
        app.counted("0003").await;
        app.migration(
            "0004_grant.sql",
            "DO $$ BEGIN GRANT SELECT ON public.shared TO PUBLIC; PERFORM pg_sleep(0.02); END $$;\nCREATE TABLE granted (id bigint);",
        );
        let start = Instant::now();
        let daemon = app.start_with(&["--set", "database.workers=8"]);
        app.answers(
            "SELECT count(*) FROM tenantd.tenant WHERE version = '0004'",
            "16",
        )
        .await;
        recovered(start);
        assert!(
            daemon.reconciles("sweep", "failed").await > 0.0,
            "nobody got in another's way: {}",
            daemon.log()
        );
        assert!(daemon.log().contains("tuple concurrently updated"));
        until("the daemon to be ready", async || {
            (daemon.get("/readyz").await.0 == 200, daemon.log())
        })
        .await;
        oracles_but(&app, &daemon, &[]).await;
    }

    #[tokio::test]
    async fn asynchronous_commits_would_be_lost_and_done_again_as_a_whole() {
        let asynchronous = "session_settings = { synchronous_commit = \"off\" }";
        // A rollout waits for the disk at its end, whatever its sessions are told; tenants by name are theirs.
        assert_eq!(after_power_loss(asynchronous, &["--all"]).await, (20, 20));
        let ids: Vec<_> = (1..=20).map(|id| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let (recorded, there) = after_power_loss(asynchronous, &ids).await;
        assert_eq!(recorded, there, "ledger and schema are lost together");
        assert!(
            there < 20,
            "nothing was lost: the other test proves nothing"
        );
    }
}
