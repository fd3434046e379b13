//! TLS: who is believed, who is turned down and why, and that nothing is said in clear to those.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{fs, io::Read as _, time::Duration};

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tenantd::pg::{Pool, conninfo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::support::{
    App,
    pki::{Authority, Pair, TlsServer},
    postgres::{Options, Server},
    until,
};

const CANARY: &str = "Kanarienvogel";
const HOST: &str = "db.example.test";

/// What comes of connecting: `TLSv1.3` or `in clear`, or the error.
async fn outcome(url: &str) -> String {
    match answer(
        url,
        "SELECT coalesce(version, 'in clear') FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    )
    .await
    {
        Ok(text) => text,
        Err(error) => {
            assert!(!error.contains(CANARY), "{error}");
            error
        }
    }
}

/// One value, over a connection as the workers have them.
async fn answer(url: &str, sql: &str) -> Result<String, String> {
    let target = conninfo::resolve(Some(url), &|_| None).map_err(|error| error.to_string())?;
    let pool = Pool::new(&target, "test", [], 1).unwrap();
    let client = pool.get().await.map_err(|error| error.to_string())?;
    let row = client.query_one(sql, &[]).await;
    row.map(|row| row.get(0)).map_err(|error| error.to_string())
}

/// Waits until connecting ends like this: a server takes up new files a moment after it was told to.
async fn ends(url: &str, expected: &str) {
    until(&format!("{url} to end with {expected}"), async || {
        let seen = outcome(url).await;
        (seen.contains(expected), seen)
    })
    .await;
}

/// How to reach the server by a name that no resolver knows.
fn by_name(server: &TlsServer, more: &str) -> String {
    let port = server.0.port();
    format!(
        "host={HOST} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres password={CANARY} {more}"
    )
}

#[tokio::test]
async fn a_server_is_believed_only_as_far_as_its_certificate_goes() {
    let server = TlsServer::start().await;
    let ours = Authority::new("Our Root", &PKCS_ECDSA_P256_SHA256);
    let others = Authority::new("Their Root", &PKCS_ECDSA_P256_SHA256);
    let root = server.write("root.pem", &ours.pem()).display().to_string();
    let url = |more: &str| by_name(&server, &format!("sslrootcert={root} {more}"));
    let full = url("sslmode=verify-full");
    let ca = url("sslmode=verify-ca");
    let unverified = by_name(&server, "sslmode=require");

    for strict in [&full, &ca, &url("sslmode=require"), &unverified] {
        ends(strict, "server does not support TLS").await;
    }
    ends(&by_name(&server, ""), "in clear").await;

    server
        .shows(&ours.issue("server", &[HOST, "127.0.0.1"]))
        .await;
    ends(&full, "TLSv1.3").await;
    ends(
        &url("sslmode=verify-full ssl_max_protocol_version=TLSv1.2"),
        "TLSv1.2",
    )
    .await;
    ends(&url("sslmode=verify-full sslsni=0"), "TLSv1.3").await;
    ends(&full.replace(HOST, "127.0.0.1"), "TLSv1.3").await;
    ends(&by_name(&server, ""), "TLSv1.3").await;
    // The direct way in came with PostgreSQL 17.
    let client = server.0.connect("postgres").await;
    let sql = "SELECT current_setting('server_version_num')::int >= 170000";
    let direct = client.query_one(sql, &[]).await.unwrap().get(0);
    ends(
        &url("sslmode=verify-full sslnegotiation=direct"),
        if direct {
            "TLSv1.3"
        } else {
            "during the handshake"
        },
    )
    .await;

    server
        .shows(&ours.issue("server", &["other.example.test", "*.a.test"]))
        .await;
    ends(
        &full,
        "certificate is for other.example.test, *.a.test, not for db.example.test",
    )
    .await;
    ends(&ca, "TLSv1.3").await;
    ends(&url("sslmode=require"), "TLSv1.3").await;
    ends(&full.replace(HOST, "x.a.test"), "TLSv1.3").await;

    server.shows(&ours.issue(HOST, &[])).await;
    ends(
        &full,
        "for no host at all, not for db.example.test: it has no subjectAltName",
    )
    .await;

    server.shows(&ours.expired(HOST)).await;
    for strict in [&full, &ca, &url("sslmode=require"), &url("sslmode=prefer")] {
        ends(strict, "certificate expired on 2001-02-03").await;
    }
    ends(&unverified, "TLSv1.3").await;

    server.shows(&others.issue("server", &[HOST])).await;
    let unknown =
        format!("from an unknown issuer: nobody in the root certificate file {root} signed it");
    for strict in [&full, &ca, &url("sslmode=require"), &url("sslmode=prefer")] {
        ends(strict, &unknown).await;
    }

    let crl = server
        .write("crl.pem", &ours.revoke(66))
        .display()
        .to_string();
    let checked = url(&format!("sslmode=verify-full sslcrl={crl}"));
    server.shows(&ours.numbered(HOST, 66)).await;
    ends(&full, "TLSv1.3").await;
    ends(&checked, "certificate was revoked").await;
    server.shows(&ours.numbered(HOST, 67)).await;
    ends(&checked, "TLSv1.3").await;
}

#[tokio::test]
async fn a_certificate_may_be_trusted_itself_and_a_root_renewed_while_we_run() {
    let server = TlsServer::start().await;
    let (one, two) = (
        Authority::new("One", &PKCS_ECDSA_P256_SHA256),
        Authority::new("Two", &PKCS_ECDSA_P256_SHA256),
    );
    server.shows(&one.pair()).await;
    let root = server.write("root.pem", &two.pem());
    let url = by_name(
        &server,
        &format!("sslmode=verify-ca sslrootcert={}", root.display()),
    );
    // One pool throughout, as in a daemon.
    let target = conninfo::resolve(Some(&url), &|_| None).unwrap();
    let pool = Pool::new(&target, "test", [], 1).unwrap();
    let connects = async || match pool.get().await {
        Ok(connection) => {
            tenantd::pg::pool::discard(connection);
            "connected".to_owned()
        }
        Err(error) => error.to_string(),
    };
    for (pem, expected) in [
        (two.pem(), "is that of an authority (CA:TRUE)"),
        (one.pem(), "connected"),
        (String::new(), "holds no certificate in PEM form"),
        (format!("{}{}", two.pem(), one.pem()), "connected"),
    ] {
        fs::write(&root, pem).unwrap();
        until(expected, async || {
            let seen = connects().await;
            (seen.contains(expected), seen)
        })
        .await;
    }
    // It is for nobody by name.
    ends(
        &url.replace("verify-ca", "verify-full"),
        "for no host at all",
    )
    .await;
}

#[tokio::test]
async fn a_client_is_known_by_certificate_or_by_a_password_bound_to_the_session() {
    let server = TlsServer::start().await;
    let ours = Authority::new("Our Root", &PKCS_ECDSA_P256_SHA256);
    let root = server.write("root.pem", &ours.pem()).display().to_string();
    server.sql("CREATE ROLE app LOGIN").await;
    server
        .sql(&format!("CREATE ROLE scram LOGIN PASSWORD '{CANARY}'"))
        .await;
    server.set("ssl_ca_file = 'root.pem'").await;
    server.shows(&ours.issue("server", &[HOST])).await;
    server
        .admits("hostssl all app all cert\nhost all scram all scram-sha-256\nhost all postgres all trust")
        .await;
    let url = |user: &str, more: &str| {
        by_name(
            &server,
            &format!("sslmode=verify-full sslrootcert={root} {more}"),
        )
        .replace("user=postgres", &format!("user={user}"))
    };
    let shown = |issuer: &Authority, name: &str| {
        let pair = issuer.issue(name, &[]);
        let certificate = server.write("client.crt", &pair.certificate);
        let key = server.write("client.key", &pair.key);
        format!("sslcert={} sslkey={}", certificate.display(), key.display())
    };
    ends(&url("app", ""), "requires a valid client certificate").await;
    ends(&url("app", &shown(&ours, "app")), "TLSv1.3").await;
    ends(
        &url(
            "app",
            &format!("{} sslcertmode=disable", shown(&ours, "app")),
        ),
        "requires a valid",
    )
    .await;
    ends(
        &url("app", &shown(&ours, "somebody")),
        "certificate authentication failed",
    )
    .await;
    let stranger = Authority::new("Their Root", &PKCS_ECDSA_P256_SHA256);
    ends(&url("app", &shown(&stranger, "app")), "UnknownCA").await;

    ends(&url("scram", "channel_binding=require"), "TLSv1.3").await;
    ends(&url("scram", "channel_binding=disable"), "TLSv1.3").await;
    ends(
        &url("scram", "password=wrong"),
        "password authentication failed",
    )
    .await;
    ends(
        &url("postgres", "channel_binding=require"),
        "channel binding",
    )
    .await;
    let plain = by_name(
        &server,
        "user=scram sslmode=disable channel_binding=require",
    );
    ends(&plain, "channel binding").await;

    let strong = Authority::new("Strong Root", &PKCS_ECDSA_P384_SHA384);
    let root = server
        .write("root384.pem", &strong.pem())
        .display()
        .to_string();
    server.shows(&strong.issue("server", &[HOST])).await;
    let bound =
        format!("user=scram sslmode=verify-full sslrootcert={root} channel_binding=require");
    ends(&by_name(&server, &bound), "TLSv1.3").await;

    // RFC 5929 has no digest for these.
    let edwards = Authority::new("Edwards Root", &PKCS_ED25519);
    fs::write(&root, edwards.pem()).unwrap();
    server.shows(&edwards.issue("server", &[HOST])).await;
    ends(&by_name(&server, &bound), "channel binding").await;
    ends(
        &by_name(&server, &bound.replace("=require", "=prefer")),
        "TLSv1.3",
    )
    .await;
}

#[tokio::test]
async fn a_server_without_tls_hears_nothing_but_the_question() {
    for mode in ["require", "verify-full", "verify-ca"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 8];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(b"N").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (question, rest)
        });
        let dir =
            std::env::temp_dir().join(format!("tenantd-tls-root-{}-{mode}", std::process::id()));
        fs::write(&dir, Authority::new("Root", &PKCS_ECDSA_P256_SHA256).pem()).unwrap();
        let root = dir.display();
        let url = format!(
            "host=127.0.0.1 port={port} user=u password={CANARY} sslmode={mode} sslrootcert={root}"
        );
        let seen = outcome(&url).await;
        fs::remove_file(&dir).unwrap();
        assert!(seen.contains("server does not support TLS"), "{seen}");
        let (question, rest) = heard.await.unwrap();
        assert_eq!(question, [0, 0, 0, 8, 4, 210, 22, 47], "an SSLRequest");
        assert_eq!(rest, Vec::<u8>::new(), "{mode}");
    }
}

#[tokio::test]
async fn the_direct_way_in_begins_with_tls_and_names_the_protocol() {
    let ours = Authority::new("Our Root", &PKCS_ECDSA_P256_SHA256);
    let root = std::env::temp_dir().join(format!("tenantd-tls-direct-{}", std::process::id()));
    fs::write(&root, ours.pem()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = server_config(&ours.issue("server", &["localhost"]));
    let heard = tokio::task::spawn_blocking(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(config.into()).unwrap();
        let mut start = [0; 8];
        rustls::Stream::new(&mut tls, &mut tcp)
            .read_exact(&mut start)
            .unwrap();
        (
            start,
            tls.alpn_protocol().map(<[u8]>::to_vec),
            tls.server_name().map(str::to_owned),
        )
    });
    let (more, root) = ("sslmode=verify-full sslnegotiation=direct", root.display());
    outcome(&format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=u {more} sslrootcert={root}"
    ))
    .await;
    let (start, protocol, name) = heard.await.unwrap();
    fs::remove_file(root.to_string()).unwrap();
    assert_eq!(start[4..], [0, 3, 0, 0], "a StartupMessage");
    assert_eq!(protocol.as_deref(), Some(&b"postgresql"[..]));
    assert_eq!(name.as_deref(), Some("localhost"));
}

/// A TLS server that is not PostgreSQL.
fn server_config(pair: &Pair) -> rustls::ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config
}

#[tokio::test]
async fn of_several_servers_the_one_that_takes_writes_is_found_behind_a_frozen_one() {
    let options = || Options {
        tcp: true,
        ..Options::default()
    };
    let (standby, primary) = tokio::join!(Server::start(options()), Server::start(options()));
    let (standby, primary) = (standby.unwrap(), primary.unwrap());
    let read_only = "ALTER SYSTEM SET default_transaction_read_only = on";
    let client = standby.connect("postgres").await;
    client.batch_execute(read_only).await.unwrap();
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    // It accepts, and says nothing.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = [
        frozen.local_addr().unwrap().port(),
        standby.port(),
        primary.port(),
    ];
    let ports = ports.map(|port| port.to_string()).join(",");
    for attrs in ["read-write", "primary"] {
        let url = format!(
            "host=127.0.0.1,127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres connect_timeout=2 target_session_attrs={attrs}"
        );
        until("the primary", async || {
            let port = timeout(Duration::from_secs(20), answer(&url, "SHOW port")).await;
            let seen = format!("{port:?}");
            (port == Ok(Ok(primary.port().to_string())), seen)
        })
        .await;
    }
    let dir = standby.socket_dir().display();
    let url = format!(
        "host={dir},{} port={},{} user=postgres dbname=postgres sslmode=require target_session_attrs=primary",
        primary.socket_dir().display(),
        standby.port(),
        primary.port()
    );
    assert_eq!(
        answer(&url, "SHOW port").await,
        Ok(primary.port().to_string()),
        "sockets need no TLS"
    );
}

#[tokio::test]
async fn a_daemon_works_listens_and_cancels_over_verified_tls_from_a_service_file() {
    const SLOW: &str = "ALTER TABLE items ADD COLUMN note text;\nSELECT pg_sleep(60);\n";
    let server = TlsServer::start().await;
    let mut app = App::on_server(&server.0, "tls").await;
    let ours = Authority::new("Our Root", &PKCS_ECDSA_P256_SHA256);
    server.shows(&ours.issue("server", &["localhost"])).await;
    server.admits("hostssl all all all trust").await;
    let root = server.write("root.pem", &ours.pem());
    let text = format!(
        "[shop]\nhost=localhost\nport={}\nuser=postgres\ndbname={}\nsslmode=verify-full\nsslrootcert={}\n",
        server.0.port(),
        app.db.name,
        root.display()
    );
    let services = server.write("services", &text);
    app.db.conninfo = format!("service=shop servicefile={}", services.display());
    app.configure("[locks]\nmax_hold = \"300ms\"");
    until("the server to speak TLS", async || {
        let seen = app.tenantd(&["install"]);
        (seen.code == 0, seen.stderr)
    })
    .await;
    app.tenant(1).await;
    let daemon = app.daemon().await;
    app.becomes(&daemon, "1", "current 0002").await;
    let in_clear = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'tenantd/%' AND NOT ssl";
    assert_eq!(app.ask(in_clear).await, "0");
    let listening = "SELECT ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = 'tenantd/listen'";
    assert_eq!(app.ask(listening).await, "t");
    app.migration("0003_slow.sql", SLOW);
    daemon.signal("HUP");
    app.becomes(&daemon, "1", "quarantined 0002").await;
    let url = format!(
        "host=localhost port={} user=postgres dbname={} sslrootcert=system",
        server.0.port(),
        app.db.name
    );
    for (store, code) in [(root.to_str().unwrap(), 0), ("/dev/null", 1)] {
        let mut command = app.command(&["status", "-d", &url]);
        let ran = command.env("SSL_CERT_FILE", store).output().unwrap();
        assert_eq!(ran.status.code(), Some(code), "{store}: {ran:?}");
    }
    assert!(app.error("1").contains("57014"), "{}", app.error("1"));
    assert!(
        !daemon.log().contains("set sslmode=verify-full"),
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn a_daemon_says_once_that_a_server_elsewhere_could_be_anybody() {
    let mut app = App::bare("unverified").await;
    let hosts = app
        .db
        .conninfo
        .replacen("host=", "host=/nonexistent,db.invalid,", 1);
    app.db.conninfo = hosts.replacen("port=", "port=1,1,", 1);
    app.configure("");
    app.tenantd(&["install"]).ok();
    let daemon = app.daemon().await;
    let log = daemon.log();
    let said =
        log.matches("the connection to db.invalid is encrypted only if the server offers it");
    assert_eq!(said.count(), 1, "{log}");
    assert!(
        log.contains("set sslmode=verify-full, with sslrootcert="),
        "{log}"
    );
}
