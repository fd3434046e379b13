//! The TLS parameters: what is refused, what is implied, and what is found without being named.

use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};

use super::*;

/// A directory of files, gone when dropped.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tenantd-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(dir.join(".postgresql")).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn env(&self) -> (&str, &str) {
        ("HOME", self.0.to_str().unwrap())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate and its key, as PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["db".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn what_would_be_weaker_than_it_looks_is_refused() {
    for (url, env, expected) in [
        (
            "host=h sslmode=verify-full",
            &[][..],
            "sslmode: there is no root certificate file /nonexistent/.postgresql/root.crt; set sslrootcert",
        ),
        (
            "host=h",
            &[("PGSSLMODE", "verify-ca")],
            "PGSSLMODE: there is no root certificate file",
        ),
        (
            "host=h sslmode=require sslrootcert=/nonexistent/r",
            &[],
            "TLS: the root certificate file /nonexistent/r does not exist",
        ),
        (
            "host=h sslmode=require sslrootcert=system",
            &[],
            "sslmode: too weak for sslrootcert=system",
        ),
        (
            "host=h",
            &[("PGSSLROOTCERT", "system"), ("PGSSLMODE", "disable")],
            "PGSSLMODE: too weak",
        ),
        (
            "host=h sslnegotiation=direct",
            &[],
            "sslnegotiation: direct needs sslmode=require",
        ),
        (
            "hostaddr=192.0.2.1 sslrootcert=system",
            &[],
            "hostaddr: sslmode=verify-full needs the name",
        ),
        (
            "host=h ssl_max_protocol_version=TLSv1.1",
            &[],
            "tenantd has TLS 1.2 and 1.3 only",
        ),
        (
            "host=h ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            &[],
            "ssl_max_protocol_version: it is below ssl_min_protocol_version",
        ),
        (
            "host=h ssl_min_protocol_version=1.3",
            &[],
            "ssl_min_protocol_version: expected TLSv1, TLSv1.1, TLSv1.2, TLSv1.3",
        ),
        (
            "host=h sslpassword=hunter2",
            &[],
            "sslpassword: this version cannot decrypt keys",
        ),
        (
            "host=h",
            &[("PGSSLCRLDIR", "/x")],
            "PGSSLCRLDIR: this version reads no directories",
        ),
        (
            "host=h sslcrl=/x",
            &[],
            "sslcrl: it is of no use without sslrootcert",
        ),
        (
            "host=h sslcertmode=require",
            &[],
            "sslcertmode: tenantd cannot tell",
        ),
        (
            "host=h requirepeer=postgres",
            &[],
            "requirepeer: this version does not have it",
        ),
    ] {
        let message = target(url, env).unwrap_err().to_string();
        assert!(message.contains(expected), "{url}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn the_tls_parameters_reach_the_driver() {
    let config = |url, env: &[_]| target(url, env).unwrap().config;
    assert_eq!(config("host=h", &[]).get_ssl_mode(), SslMode::Prefer);
    let env = [
        ("PGSSLMODE", "require"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGCHANNELBINDING", "require"),
        ("PGSSLSNI", "0"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
    ];
    let found = config("host=h", &env);
    assert_eq!(found.get_ssl_mode(), SslMode::Require);
    assert_eq!(found.get_ssl_negotiation(), SslNegotiation::Direct);
    assert_eq!(found.get_channel_binding(), ChannelBinding::Require);
    let old = config("host=h", &[("PGREQUIRESSL", "1")]);
    assert_eq!(old.get_ssl_mode(), SslMode::Require);
    let system = target("host=h sslrootcert=system", &[]);
    let mode = system.map(|found| found.config.get_ssl_mode());
    // A machine without certificates of its own says so instead.
    assert!(
        mode == Ok(SslMode::Require)
            || mode.is_err_and(|error| error.to_string().contains("system's certificate store"))
    );
}

#[test]
fn sockets_need_no_files() {
    for url in [
        "host=/run/pg sslmode=verify-full",
        "host=h sslmode=disable sslcert=/nonexistent/c sslrootcert=/nonexistent/r",
    ] {
        target(url, &[]).unwrap();
    }
}

#[test]
fn files_at_home_are_found_without_being_named() {
    let home = Home::new("home");
    let (certificate, key) = pair();
    let found = |url| target(url, &[home.env()]);
    assert!(!found("host=h").unwrap().tls.verifies());
    home.write(".postgresql/root.crt", 0o644, &certificate);
    assert!(found("host=h sslmode=require").unwrap().tls.verifies());
    found("host=h sslmode=verify-full").unwrap();

    home.write(".postgresql/postgresql.crt", 0o644, &certificate);
    let missing = found("host=h").unwrap_err().to_string();
    assert!(
        missing.contains("postgresql.key does not exist; set sslkey"),
        "{missing}"
    );
    found("host=h sslcertmode=disable").unwrap();
    home.write(".postgresql/postgresql.key", 0o600, &key);
    found("host=h").unwrap();
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let home = Home::new("key");
    let (certificate, key) = pair();
    let certificate = home.write("c.pem", 0o644, &certificate);
    for (mode, text, expected) in [
        (0o600, key.as_str(), None),
        (0o644, &key, Some("group or world access (mode 0644)")),
        (0o620, &key, Some("group or world access (mode 0620)")),
        (0o600, "nothing", Some("holds no private key in PEM form")),
        (
            0o600,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            Some("is encrypted, and tenantd cannot decrypt it"),
        ),
        (
            0o600,
            &pair().1,
            Some("does not belong to the client certificate"),
        ),
        (
            0o600,
            "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n",
            Some("what is between BEGIN and END is not base64"),
        ),
    ] {
        let path = home.write("k.pem", mode, text);
        let found = target(&format!("host=h sslcert={certificate} sslkey={path}"), &[]);
        match expected {
            None => drop(found.unwrap()),
            Some(expected) => {
                let message = found.unwrap_err().to_string();
                assert!(message.contains(expected), "{message}");
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }
}

#[test]
fn an_unverified_server_elsewhere_is_worth_a_word() {
    let home = Home::new("unverified");
    let root = home.write("r.pem", 0o644, &pair().0);
    let verified = format!("host=db sslmode=verify-full sslrootcert={root}");
    for (url, expected) in [
        ("host=/run/pg", None),
        ("host=localhost", None),
        ("host=127.0.0.1,::1", None),
        (
            "host=db",
            Some("the connection to db is encrypted only if the server offers it"),
        ),
        (
            "host=localhost,db sslmode=disable",
            Some("the connection to db is not encrypted"),
        ),
        (
            "host=db sslmode=require",
            Some("is encrypted, but the server is not verified"),
        ),
        ("host=db channel_binding=require", None),
        (&verified, None),
    ] {
        let found = target(url, &[]).unwrap().unverified;
        match expected {
            None => assert_eq!(found, None, "{url}"),
            Some(text) => {
                let found = found.unwrap();
                assert!(
                    found.contains(text) && found.contains("set sslmode=verify-full"),
                    "{found}"
                );
            }
        }
    }
}

#[test]
fn a_service_fills_in_what_the_string_leaves_open() {
    let home = Home::new("service");
    let file = home.write(
        "services",
        0o600,
        "# comment\n[other]\nhots=x\n\n[shop]\nhost=db1\nhost=second\n port=6000\ndbname=my db\nsslmode=disable\n[shop]\nuser=late\n",
    );
    let env = [
        ("PGSERVICEFILE", file.as_str()),
        ("PGPORT", "1"),
        ("PGUSER", "me"),
    ];
    let expected = "host=db1 port=6000 dbname='my db' user=me";
    assert_eq!(target("service=shop", &env).unwrap().to_string(), expected);
    let chosen = [&env[..], &[("PGSERVICE", "shop")]].concat();
    assert_eq!(target("", &chosen).unwrap().to_string(), expected);
    let own = target("postgres://h:2/", &chosen).unwrap().to_string();
    assert_eq!(own, "host=h port=2 dbname='my db' user=me");
    let explicit = format!("service=shop servicefile={file} user=u");
    assert_eq!(
        target(&explicit, &[("PGSERVICEFILE", "/nonexistent")])
            .unwrap()
            .to_string(),
        "host=db1 port=6000 dbname='my db' user=u"
    );

    home.write(".pg_service.conf", 0o600, "[mine]\nhost=own\n");
    home.write("pg_service.conf", 0o600, "[shared]\nhost=everybodys\n");
    let dirs = [home.env(), ("PGSYSCONFDIR", home.env().1)];
    for (service, host) in [("mine", "own"), ("shared", "everybodys")] {
        let found = target(&format!("service={service}"), &dirs)
            .unwrap()
            .to_string();
        assert!(found.starts_with(&format!("host={host} ")), "{found}");
    }
}

#[test]
fn a_wrong_service_file_is_named_with_the_line() {
    let home = Home::new("wrong-service");
    let file = home.write(
        "s",
        0o600,
        "[a]\nhost=h\nhots=hunter2\n[b]\nhunter2\n[c]\nservice=a\n[d]\nrequire_auth=none\n[e]\nport=hunter2\n",
    );
    for (service, expected) in [
        (
            "a",
            format!("service file {file}:3: unknown parameter `hots`; did you mean `host`?"),
        ),
        ("b", format!("service file {file}:5: expected key=value")),
        (
            "c",
            format!("service file {file}:7: a service cannot refer to another one"),
        ),
        (
            "d",
            format!("service file {file}:9: require_auth: this version does not have it"),
        ),
        (
            "e",
            format!("connection parameter port ({file}:11): a port is"),
        ),
        (
            "z",
            format!("connection parameter service: no such service: it is not in {file}"),
        ),
    ] {
        let env = [
            ("PGSERVICEFILE", file.as_str()),
            ("PGSYSCONFDIR", "/nonexistent"),
        ];
        let message = target(&format!("service={service}"), &env)
            .unwrap_err()
            .to_string();
        assert!(message.contains(&expected), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let message = target(
        "",
        &[("PGSERVICE", "a"), ("PGSERVICEFILE", "/nonexistent/s")],
    );
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("service file /nonexistent/s: "),
        "{message}"
    );
}
