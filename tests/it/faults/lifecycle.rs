//! Start, stop, several daemons, scale, hostile input (faults 50 to 60).

use std::{
    fs::File,
    process::Stdio,
    time::{Duration, Instant},
};

use super::recovered;
use crate::support::{App, Daemon, oracles, server::freeze, until};

#[tokio::test]
async fn a_daemon_frozen_while_it_holds_a_tenant_applies_nothing_twice() {
    let app = App::current("frozen", 3).await;
    app.counted("0003").await;
    app.migration(
        "0004_slow.sql",
        "CREATE TABLE slow (id bigint); SELECT pg_sleep(1);",
    );
    let one = app.start();
    let sleeps = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    app.answers(sleeps, "t").await;
    let frozen = freeze(one.pid());
    let two = app.daemon().await;
    app.all_ready(&two, 1..=3).await;
    app.tenant(4).await;
    app.all_ready(&two, [4]).await;
    drop(frozen);
    let start = Instant::now();
    app.tenant(5).await;
    app.all_ready(&one, [5]).await;
    recovered(start);
    drop(two);
    oracles(&app, &one).await;
}

/// A role of this test's, which may log in.
async fn role(app: &App, hint: &str) -> (String, tokio_postgres::Client) {
    let name = format!("{hint}_{}", app.db.name);
    app.run(&format!("CREATE ROLE {name} LOGIN")).await;
    let conninfo = app
        .db
        .conninfo
        .replace("user=postgres", &format!("user={name}"));
    let (client, connection) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    (name, client)
}

#[tokio::test]
async fn a_role_that_spoofs_our_channels_costs_a_look_each_and_hears_only_ids() {
    let app = App::current("spoof", 3).await;
    app.run("UPDATE public.tenants SET name = 'secret ' || id")
        .await;
    let daemon = app.quiet_daemon().await;
    let (name, stranger) = role(&app, "stranger").await;
    let mut ears = Vec::new();
    for channel in [
        "tenant_inserted",
        "dashboard_login",
        "tenantd_wake",
        "tenant_ready",
    ] {
        ears.push(app.listen(channel).await);
    }
    let looks = async || {
        let mut looks = 0.0;
        for reason in ["insert", "login", "manual"] {
            for outcome in [
                "applied",
                "current",
                "gone",
                "left_alone",
                "waiting",
                "busy",
            ] {
                looks += daemon.reconciles(reason, outcome).await;
            }
        }
        looks
    };
    let before = looks().await;
    for channel in ["tenant_inserted", "dashboard_login", "tenantd_wake"] {
        let flood = format!(
            "SELECT pg_notify('{channel}', n::text) FROM generate_series(1, 300) n; NOTIFY {channel}, 'DROP TABLE'"
        );
        stranger.batch_execute(&flood).await.unwrap();
    }
    let start = Instant::now();
    app.silent_tenant(4).await;
    app.run("NOTIFY tenantd_wake, '4'").await;
    app.all_ready(&daemon, [4]).await;
    recovered(start);
    let cost = looks().await - before;
    assert!(
        (1.0..=904.0).contains(&cost),
        "{cost} looks for 904 notifications"
    );
    let ran = "SELECT count(*) FROM tenantd.applied a JOIN tenantd.tenant t ON t.id = a.tenant WHERE t.tenant_id <> '4'";
    assert_eq!(app.ask(ran).await, "6", "and nothing else");
    for ear in &mut ears {
        let odd = ear
            .so_far()
            .await
            .into_iter()
            .find(|payload| payload != "DROP TABLE" && payload.parse::<u32>().is_err());
        assert_eq!(odd, None);
    }
    oracles(&app, &daemon).await;
    app.run(&format!("DROP OWNED BY {name}; DROP ROLE {name}"))
        .await;
}

/// Functions and operators that fit the calls of ours better than the built-in ones, by name and by type.
const PLANTED: &str = r#"
    CREATE TABLE caught (what text);
    CREATE FUNCTION now() RETURNS timestamptz LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO tenant_1.caught SELECT 'now' WHERE CURRENT_USER = 'postgres'; RETURN clock_timestamp(); END $$;
    CREATE FUNCTION format(text, text, text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO tenant_1.caught SELECT 'format' WHERE CURRENT_USER = 'postgres'; RETURN ''; END $$;
    CREATE FUNCTION set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO tenant_1.caught SELECT 'set_config' WHERE CURRENT_USER = 'postgres'; RETURN $2; END $$;
    CREATE FUNCTION current_schema() RETURNS name LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO tenant_1.caught SELECT 'current_schema' WHERE CURRENT_USER = 'postgres'; RETURN 'tenant_1'; END $$;
"#;
/// Operators for every two of these types: one wins over the built-in ones wherever those need a cast.
const OPERATORS: &str = r#"DO $do$
    DECLARE
        types text[] := ARRAY['text', 'name', '"char"', 'smallint', 'integer', 'bigint', 'numeric', 'double precision', 'oid', 'xid', 'regclass', 'interval'];
        l text; r text; o text; number int := 0;
    BEGIN
        FOREACH l IN ARRAY types LOOP FOREACH r IN ARRAY types LOOP FOREACH o IN ARRAY ARRAY['=', '<>', '<', '>', '~', '||', '*', '-'] LOOP
            number := number + 1;
            EXECUTE format(
                $$ CREATE FUNCTION planted_%1$s(%2$s, %3$s) RETURNS %4$s LANGUAGE plpgsql AS
                    'BEGIN INSERT INTO tenant_1.caught SELECT ''%5$s'' WHERE CURRENT_USER = ''postgres''; RETURN %6$s; END' $$,
                number, l, r, CASE o WHEN '||' THEN 'text' WHEN '*' THEN 'numeric' WHEN '-' THEN 'numeric' ELSE 'boolean' END,
                concat_ws(' ', l, o, r), CASE o WHEN '||' THEN '1' WHEN '*' THEN '1' WHEN '-' THEN '1' ELSE 'true' END);
            EXECUTE format('CREATE OPERATOR %s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = planted_%s)', o, l, r, number);
        END LOOP; END LOOP; END LOOP;
    END $do$;"#;

#[tokio::test]
async fn what_a_tenants_role_plants_in_its_schema_or_in_public_never_runs_as_the_migrator() {
    let app = App::current("planted", 2).await;
    let (name, tenant) = role(&app, "tenant").await;
    app.run(&format!(
        "ALTER SCHEMA tenant_1 OWNER TO {name}; GRANT CREATE ON SCHEMA public TO {name}"
    ))
    .await;
    for schema in ["tenant_1", "public"] {
        let planted = format!("SET search_path = {schema}; {PLANTED} {OPERATORS}");
        tenant.batch_execute(&planted).await.unwrap();
    }
    app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
    app.migration(
        "0004_block.sql",
        "DO $$ BEGIN ALTER TABLE notes ADD COLUMN note text; END $$;",
    );
    let daemon = app.daemon().await;
    app.login(1).await;
    app.all_ready(&daemon, [1, 2]).await;
    app.run("NOTIFY tenantd_wake, '1'").await;
    until("it to be looked at", async || {
        (
            daemon.reconciles("manual", "current").await >= 1.0,
            daemon.log(),
        )
    })
    .await;
    app.tenantd(&["status", "--all"]).ok();
    let planted = app.tenantd(&["verify", "1", "2"]);
    assert!(planted.stdout.contains("FUNCTION now()"), "{planted:?}");
    app.migration(
        "0005_index.sql",
        "CREATE INDEX CONCURRENTLY items_note ON items (note);",
    );
    daemon.signal("HUP");
    app.becomes(&daemon, "1", "current 0005").await;
    let caught = "SELECT string_agg(DISTINCT what, ', ') FROM tenant_1.caught";
    assert_eq!(app.ask(caught).await, "-", "ran as the migrator");
    // The trap works: what is called by its plain name is caught.
    app.run("SET search_path = tenant_1, public; SELECT 1 * 2.0; RESET search_path")
        .await;
    assert_eq!(app.ask(caught).await, "integer * numeric");
    drop(daemon);
    app.run(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"))
        .await;
}

#[tokio::test]
async fn a_panic_in_a_worker_costs_its_tenant_an_attempt_and_the_others_nothing() {
    let app = App::new("panic").await;
    app.configure("[retry]\ninitial = \"50ms\"\nmax = \"200ms\"");
    let daemon = app.start_at("reconcile.planned=panic@2");
    until("the daemon to be ready", async || {
        (daemon.get("/readyz").await.0 == 200, daemon.log())
    })
    .await;
    for id in 1..=4 {
        app.tenant(id).await;
    }
    let start = Instant::now();
    app.all_ready(&daemon, 1..=4).await;
    recovered(start);
    assert!(
        daemon.log().contains("the worker panicked"),
        "{}",
        daemon.log()
    );
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_daemon_whose_listener_panics_ends_for_the_supervisor_to_start_it_anew() {
    let app = App::new("broken_loop").await;
    app.tenant(1).await;
    for point in ["listener.listening=panic", "sweep.begins=panic"] {
        let mut daemon = app.start_at(point);
        assert_eq!(daemon.ended().await, 1, "{point}");
        assert!(daemon.log().contains("broke: "), "{}", daemon.log());
    }
    let start = Instant::now();
    let daemon = app.daemon().await;
    oracles(&app, &daemon).await;
    recovered(start);
}

/// Starts a daemon by a shell, which first does this to it.
fn start_by(app: &App, shell: &str, stderr: Stdio) -> Daemon {
    let log = app.config().with_file_name("daemon-by-shell.log");
    let tenantd = app.command(&["run"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$@\""), "sh"]);
    command.arg(tenantd.get_program()).args(tenantd.get_args());
    for (name, value) in tenantd.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    Daemon::new(command.spawn().unwrap(), log)
}

#[tokio::test]
async fn a_daemon_whose_log_nobody_takes_works_on() {
    let app = App::new("no_log").await;
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    for (number, (shell, stderr)) in [
        ("exec 2>&-", Stdio::null()),
        (":", full()),
        (":", Stdio::from(gone)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut daemon = start_by(&app, shell, stderr);
        let id = i64::try_from(number).unwrap();
        app.tenant(id).await;
        app.all_ready(&daemon, [id]).await;
        daemon.signal("TERM");
        assert_eq!(daemon.ended().await, 0, "{number}");
    }
    let daemon = app.daemon().await;
    oracles(&app, &daemon).await;
}

#[tokio::test]
async fn a_daemon_out_of_file_descriptors_lives_and_answers_when_there_are_some() {
    let app = App::new("descriptors").await;
    let log = app.config().with_file_name("daemon-by-shell.log");
    let daemon = start_by(
        &app,
        "ulimit -n 24",
        Stdio::from(File::create(log).unwrap()),
    );
    until("the daemon to be ready", async || {
        (daemon.get("/readyz").await.0 == 200, daemon.log())
    })
    .await;
    let address = crate::support::more::address(&daemon.log()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    until("the descriptors to be taken", async || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        let open = open.count();
        (open >= 24, open.to_string())
    })
    .await;
    // Those of its connections that are open serve on.
    app.tenant(1).await;
    app.all_ready(&daemon, [1]).await;
    drop(clients);
    let start = Instant::now();
    until("it to answer", async || {
        (daemon.get("/readyz").await.0 == 200, daemon.log())
    })
    .await;
    recovered(start);
    assert!(start.elapsed() < Duration::from_secs(10));
    oracles(&app, &daemon).await;
}

/// Tens of thousands of schemas, and what a rollout over many does to an application.
mod slow {
    use super::*;
    use crate::support::{Probe, postgres::Server};

    /// Anonymous memory of a process at its highest reading, in MiB.
    fn resident(pid: &str, which: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with(which));
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        value.unwrap_or(0.0) / 1024.0
    }

    /// Waits until this many tenants are at the head, for minutes if it must; the largest backend seen, in MiB.
    async fn at_head(app: &App, daemon: &Daemon, tenants: usize) -> f64 {
        let (start, mut largest) = (Instant::now(), 0.0_f64);
        loop {
            let done = "SELECT count(*) FROM tenantd.tenant t JOIN tenantd.head h USING (digest) WHERE state = 'current'";
            let done = app.ask(done).await;
            let backends = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name LIKE 'tenantd/%'";
            for pid in app.ask(backends).await.split(' ') {
                largest = largest.max(resident(pid, "RssAnon"));
            }
            if done == tenants.to_string() {
                return largest;
            }
            assert!(
                start.elapsed() < Duration::from_secs(600),
                "{done}: {}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    #[tokio::test]
    async fn ten_thousand_tenants_cost_the_daemon_and_its_backends_bounded_memory() {
        const TENANTS: usize = 10_000;
        let server = Server::with(&[("max_wal_size", "8GB"), ("autovacuum", "off")]).await;
        let app = App::on_server(&server, "many").await;
        app.tenantd(&["install"]).ok();
        app.run(&format!(
            "SET session_replication_role = replica; INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series(1, {TENANTS}) n;
             RESET session_replication_role"
        ))
        .await;
        let daemon = app.start_with(&["--set", "rollout.max_rate=0"]);
        let start = Instant::now();
        let filled = at_head(&app, &daemon, TENANTS).await;
        let fill = start.elapsed();
        app.migration("0003_note.sql", "ALTER TABLE items ADD COLUMN note text;");
        daemon.signal("HUP");
        let start = Instant::now();
        until("the set to be loaded", async || {
            (daemon.log().contains("head is 0003"), String::new())
        })
        .await;
        let altered = at_head(&app, &daemon, TENANTS).await;
        recovered(start);
        let daemon_peak = resident(&daemon.pid().to_string(), "VmHWM");
        println!(
            "filled in {fill:?}, altered in {:?}; MiB: daemon {daemon_peak:.0}, backends {filled:.0} and {altered:.0}",
            start.elapsed()
        );
        assert!(daemon_peak < 64.0, "{daemon_peak} MiB");
        assert!(
            filled.max(altered) < 16.0,
            "backends: {filled}, then {altered} MiB"
        );
    }

    #[tokio::test]
    async fn an_application_is_served_while_a_storm_of_ddl_goes_over_its_neighbours() {
        const TENANTS: i64 = 1500;
        let server = Server::with(&[]).await;
        let app = App::on_server(&server, "storm").await;
        app.tenantd(&["install"]).ok();
        app.run(&format!(
            "INSERT INTO public.tenants (id, name) SELECT n, 'n' || n FROM generate_series(1, {TENANTS}) n"
        ))
        .await;
        app.tenantd(&["migrate", "--all"]).ok();
        let probe = Probe::start(&app, "tenant_1");
        let daemon = app.start_with(&["--set", "rollout.max_rate=0"]);
        until("the daemon to be ready", async || {
            (daemon.get("/readyz").await.0 == 200, daemon.log())
        })
        .await;
        let start = Instant::now();
        for version in 3..=5 {
            app.migration(
                &format!("000{version}_more.sql"),
                &format!("ALTER TABLE items ADD COLUMN c{version} text; ALTER TABLE notes ADD COLUMN c{version} text;"),
            );
        }
        daemon.signal("HUP");
        until("the set to be loaded", async || {
            (daemon.log().contains("head is 0005"), daemon.log())
        })
        .await;
        at_head(&app, &daemon, usize::try_from(TENANTS).unwrap()).await;
        recovered(start);
        probe.was_served(Duration::from_secs(3));
    }
}
