//! Hostile input, curious neighbours, and roles that may do no more than they need.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tenantd::{
    config,
    fleet::Registry,
    pg::{conninfo, ident::Ident},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{App, Ran, more::address, until};

const CANARY: &str = "Kanarienvogel";
const NAMES: usize = 10_000;

/// How many inputs a parser gets: a few in the suite, a million from `make security`.
fn inputs() -> usize {
    std::env::var("FUZZ_INPUTS").map_or(20_000, |text| text.parse().unwrap())
}

/// Texts of up to `longest` of these pieces and of characters from everywhere, the same in each run.
fn hostile(pieces: &'static [&str], longest: u64) -> impl Iterator<Item = String> {
    let mut state = 42_u64;
    // splitmix64: fast without optimisation, and good enough.
    let mut below = move |limit: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)) % limit
    };
    std::iter::repeat_with(move || {
        let mut text = String::new();
        for _ in 0..below(longest) {
            match below(4) {
                0 => text.extend(char::from_u32(below(0x11_0000) as u32)),
                _ => text.push_str(pieces[below(pieces.len() as u64) as usize]),
            }
        }
        text
    })
}

#[tokio::test]
async fn ten_thousand_hostile_names_come_back_from_the_catalog_as_they_were() {
    let app = App::bare("hostile names").await;
    let pieces = &[
        "\"", "'", "\\", ";", "$", "$$", "%", "{schema}", ".", "/*", "--", " ", "\n", "\t", "a",
        "A", "é", "DROP", "pg_",
    ];
    // A name is 1 to 63 bytes without a zero, and pg_ is the server's.
    let mut names: Vec<_> = hostile(pieces, 16)
        .filter(|name| {
            (1..=63).contains(&name.len()) && !name.starts_with("pg_") && !name.contains('\0')
        })
        .take(2 * NAMES)
        .collect();
    names.sort();
    names.dedup();
    names.truncate(NAMES);
    assert_eq!(names.len(), NAMES);
    let mut sql = "BEGIN; CREATE TABLE public.before AS SELECT oid FROM pg_namespace;".to_owned();
    for name in &names {
        sql.push_str(&format!("CREATE SCHEMA {};\n", Ident(name)));
    }
    app.sql.batch_execute(&sql).await.unwrap();
    let sql =
        "SELECT nspname::text FROM pg_namespace WHERE oid NOT IN (SELECT oid FROM public.before)
               ORDER BY nspname COLLATE \"C\"";
    let rows = app.sql.query(sql, &[]).await.unwrap();
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(kept, names);
    app.run("ROLLBACK").await;
}

#[tokio::test]
async fn whatever_a_notification_carries_is_an_id_or_is_rejected() {
    let app = App::bare("payloads").await;
    app.run("CREATE TABLE public.u (id uuid); CREATE TABLE public.t (id text)")
        .await;
    for (table, anything) in [("tenants", false), ("u", false), ("t", true)] {
        let registry = config::Registry {
            table: format!("public.{table}").parse().unwrap(),
            ..config::Config::default().registry
        };
        let registry = Registry::open(&app.sql, &registry).await.unwrap();
        let pieces = &[
            "0",
            "1",
            "9",
            "-",
            "a",
            "f",
            "18446744073709551616",
            "\0",
            "\n",
            " ",
            "'",
            "{",
            "{\"a\":",
            "123e4567-e89b-12d3-a456-426614174000",
        ];
        for payload in hostile(pieces, 40).take(inputs() / 3 + 1) {
            let Some(id) = registry.parse_id(&payload) else {
                continue;
            };
            let plain = id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            assert!(
                plain || anything && id == payload,
                "{payload:?} became {id:?}"
            );
        }
        assert_eq!(
            registry.parse_id(&"1".repeat(257)),
            None,
            "longer than 256 bytes"
        );
        assert_eq!(registry.parse_id(&"x".repeat(256)).is_some(), anything);
        assert_eq!(registry.parse_id(""), None);
    }
}

#[test]
fn no_connection_string_makes_the_parser_panic_or_quote_a_password() {
    let pieces = &[
        "postgres://",
        "app",
        ":Kanarienvogel@",
        "password=Kanarienvogel",
        "host=",
        "port=",
        "user",
        "sslmode=",
        "require",
        ":",
        "@",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%41",
        "'",
        "\\",
        " ",
        "[::1]",
        "5432",
        ",",
        "db",
    ];
    for text in hostile(pieces, 12).take(inputs()) {
        // A target shows user, database and host, wherever they were written; an error shows no value.
        if let Err(error) = conninfo::resolve(Some(&text), &|_| None) {
            let said = format!("{error} {error:?}");
            assert!(!said.contains(CANARY), "{text:?} is told as {said:?}");
        }
    }
}

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
        "nothing"
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
async fn what_customers_wrote_is_in_no_log_and_not_in_the_ledger() {
    let app = App::new("customer data").await;
    app.tenant(1).await;
    app.tenantd(&["migrate", "1"]).ok();
    app.run(&format!(
        "INSERT INTO tenant_1.items VALUES (1, '{CANARY}'), (2, '{CANARY}')"
    ))
    .await;
    app.migration("0003_unique.sql", "CREATE UNIQUE INDEX ON items (label);");
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let (log, error) = (daemon.log(), app.error("1"));
    let (_, status) = daemon.get("/status").await;
    assert!(error.contains("could not create unique index"), "{error}");
    let ledger = app
        .ask("SELECT string_agg(t::text, ' ') FROM tenantd.tenant t")
        .await;
    for text in [log, error, status, ledger] {
        assert!(!text.contains(CANARY), "{text}");
    }
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
async fn metrics_name_no_tenant_and_do_not_grow_with_the_fleet() {
    let app = App::new("series").await;
    app.configure_in("registry", "schema_column = \"schema\"");
    let insert = |from: i64, to: i64| {
        format!(
            "INSERT INTO public.tenants (id, name, schema) SELECT i, '{CANARY}', '{CANARY}' || i FROM generate_series({from}, {to}) i"
        )
    };
    app.run(&insert(1, 10)).await;
    let daemon = app.daemon().await;
    app.all_ready(&daemon, 1..=10).await;
    let series = async || {
        let (_, text) = daemon.get("/metrics").await;
        assert!(!text.contains(CANARY), "{text}");
        text.lines()
            .filter(|line| line.starts_with("tenantd_"))
            .count()
    };
    let few = series().await;
    app.run(&insert(11, 210)).await;
    app.all_ready(&daemon, 1..=210).await;
    assert_eq!(series().await, few);
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

/// Seconds from a request to its whole answer.
async fn scrape(address: &str) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    start.elapsed()
}

/// Reads until the server closes; how long that took.
async fn closed(mut stream: TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest))
        .await
        .expect("the server closes it");
    since.elapsed()
}

#[tokio::test]
async fn five_hundred_slow_clients_a_huge_head_and_idle_ones_cost_a_scrape_nothing() {
    let app = App::new("slow clients").await;
    let daemon = app.daemon().await;
    let address = address(&daemon.log()).unwrap();
    let start = Instant::now();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").await;
        slow.push(stream);
    }
    let mut took = Vec::new();
    for _ in 0..100 {
        took.push(scrape(&address).await);
    }
    took.sort();
    assert!(
        // How long it takes by itself is for the benchmark to say.
        took[98] <= Duration::from_secs(1),
        "99th percentile of a scrape: {:?}",
        took[98]
    );
    let mut huge = TcpStream::connect(&address).await.unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = huge.write_all(head.as_bytes()).await;
    let mut answer = [0; 13];
    // The server answers before it has read everything, and the rest may reset the connection.
    if huge.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431 ");
    }
    slow.push(idle);
    for stream in slow {
        let took = closed(stream, start).await;
        assert!(took <= Duration::from_secs(10), "reaped after {took:?}");
    }
    assert_eq!(daemon.get("/livez").await.0, 200);
}

/// A server that shakes hands as told, then answers every message with these bytes.
async fn impostor(hello: Vec<u8>, answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (hello, answer) = (hello.clone(), answer.clone());
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                let mut say = &hello;
                while matches!(stream.read(&mut heard).await, Ok(1..))
                    && stream.write_all(say).await.is_ok()
                {
                    say = &answer;
                }
            });
        }
    });
    port
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn a_hostile_server_costs_an_error_and_no_memory() {
    let app = App::bare("hostile server").await;
    let welcome = [
        message(b'R', &[0, 0, 0, 0]),
        message(b'K', &[0; 8]),
        message(b'Z', b"I"),
    ]
    .concat();
    let sasl = message(b'R', &[&[0, 0, 0, 10][..], b"SCRAM-SHA-256\0\0"].concat());
    // It cannot know the client's nonce; any prefix will do where the count is looked at first.
    let scram = message(
        b'R',
        &[&[0, 0, 0, 11][..], b"r=x,s=QSXCR+Q6sek8bf92,i=1000000000"].concat(),
    );
    let giant = [&[b'D'][..], &0x4000_0000_u32.to_be_bytes()].concat();
    let columns = [
        &[0, 1][..],
        b"x\0",
        &[0; 6],
        &23_u32.to_be_bytes(),
        &[0, 4, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let short_row = [
        message(b'T', &columns),
        message(b'D', &[0, 9, 0, 0]),
        message(b'Z', b"I"),
    ]
    .concat();
    for (what, hello, answer) in [
        ("a row that is cut short", welcome.clone(), short_row),
        ("a message of 1 GB", giant.clone(), giant),
        ("10^9 iterations of SCRAM", sasl, scram),
        (
            "a negative length",
            message(b'R', &[0, 0, 0, 0]),
            vec![b'D', 0xff, 0xff, 0xff, 0xff],
        ),
        ("noise", vec![0x80; 64], vec![0x80; 64]),
    ] {
        let port = impostor(hello, answer).await;
        let url =
            format!("host=127.0.0.1 port={port} user=a dbname=a password={CANARY} sslmode=disable");
        // An allocation of 1 GB would end it with a signal.
        let mut shell = std::process::Command::new("sh");
        shell.args([
            "-c",
            "ulimit -v 900000; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_tenantd"),
        ]);
        shell
            .arg("--config")
            .arg(app.config())
            .args(["status", "-d", &url]);
        let start = Instant::now();
        let child = shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ran: Ran = crate::support::more::finish(child).await;
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(
            start.elapsed() < Duration::from_secs(7),
            "{what}: {:?}",
            start.elapsed()
        );
        assert!(
            !ran.stderr.contains("panicked") && !ran.stderr.contains(CANARY),
            "{what}: {ran:?}"
        );
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_warned_about_and_the_default_is_not_one() {
    let default = config::Config::default().http.listen.unwrap();
    assert!(default.ip().is_loopback(), "{default}");
    let app = App::new("open address").await;
    for (listen, warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let daemon = app.start_with(&["--set", &format!("http.listen={listen}")]);
        until("the daemon to listen", async || {
            (daemon.log().contains("listening on"), daemon.log())
        })
        .await;
        assert_eq!(
            daemon.log().contains("is open to others"),
            warned,
            "{}",
            daemon.log()
        );
    }
}
