//! Connection strings end to end: precedence, defaults, the password file, and what is never printed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::system::OsUser;
use super::*;

#[path = "tests/tls.rs"]
mod tls_parameters;

/// Resolves on a machine with a socket in /var/run/postgresql and the user `os`.
fn target(url: &str, env: &[(&str, &str)]) -> Result<Target, ConninfoError> {
    let exists = |path: &Path| path.starts_with("/var/run/postgresql");
    let user = OsUser {
        name: "os".to_owned(),
        home: "/nonexistent".to_owned(),
    };
    let system = System {
        user: Some(user),
        exists: &exists,
    };
    let env = |name: &str| {
        let found = env.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    resolve_on(Some(url), &env, &system)
}

fn password(url: &str, env: &[(&str, &str)]) -> Option<String> {
    let target = target(url, env).unwrap();
    let bytes = target.config.get_password()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn a_target_is_what_psql_would_connect_to() {
    let pg = [
        ("PGHOST", "envhost"),
        ("PGPORT", "6000"),
        ("PGDATABASE", "envdb"),
        ("PGUSER", "me"),
    ];
    let socket = "host=/var/run/postgresql port=5432";
    for (url, env, expected) in [
        ("", &[][..], format!("{socket} dbname=os user=os")),
        ("user=app", &[], format!("{socket} dbname=app user=app")),
        ("postgres://", &[], format!("{socket} dbname=os user=os")),
        (
            "",
            &pg,
            "host=envhost port=6000 dbname=envdb user=me".to_owned(),
        ),
        (
            "postgres://u:p@h:1/d",
            &pg,
            "host=h port=1 dbname=d user=u".to_owned(),
        ),
        (
            "postgresql://h/d",
            &pg,
            "host=h port=6000 dbname=d user=me".to_owned(),
        ),
        (
            "host='' user=x",
            &pg,
            "host=/var/run/postgresql port=6000 dbname=envdb user=x".to_owned(),
        ),
        (
            "postgres://a:1,b:2,c/d",
            &[],
            "host=a,b,c port=1,2,5432 dbname=d user=os".to_owned(),
        ),
        (
            "host=a,b port=7",
            &[],
            "host=a,b port=7 dbname=os user=os".to_owned(),
        ),
        (
            "hostaddr=10.0.0.1",
            &[],
            "host=10.0.0.1 port=5432 dbname=os user=os".to_owned(),
        ),
        (
            "postgres://[::1]:5/d",
            &[],
            "host=::1 port=5 dbname=d user=os".to_owned(),
        ),
        (
            "postgres://%2Frun%2Fpg/d",
            &[],
            "host=/run/pg port=5432 dbname=d user=os".to_owned(),
        ),
        (
            "host=h dbname='my db' user=o\\'x",
            &[],
            r"host=h port=5432 dbname='my db' user='o\'x'".to_owned(),
        ),
        (
            "host=h host=last",
            &[],
            "host=last port=5432 dbname=os user=os".to_owned(),
        ),
    ] {
        let target = target(url, env).unwrap();
        assert_eq!(target.to_string(), expected, "{url}");
        assert!(target.warnings.is_empty(), "{url}: {:?}", target.warnings);
    }
}

#[test]
fn a_daemon_notices_a_server_that_is_gone() {
    let config = target("host=h", &[]).unwrap().config;
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(15))
    );
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(15));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(5))
    );
    assert_eq!(config.get_keepalives_retries(), Some(3));

    let url = "host=h connect_timeout=0 tcp_user_timeout=250 keepalives=0 keepalives_retries=9";
    let config = target(url, &[]).unwrap().config;
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(250))
    );
    assert!(!config.get_keepalives());
    assert_eq!(config.get_keepalives_retries(), Some(9));
}

#[test]
fn the_remaining_parameters_reach_the_driver() {
    let env = [
        ("PGAPPNAME", "app"),
        ("PGOPTIONS", "-c jit=off"),
        ("PGCONNECT_TIMEOUT", "9"),
    ];
    let config = target("host=h target_session_attrs=primary", &env)
        .unwrap()
        .config;
    assert_eq!(config.get_application_name(), Some("app"));
    assert_eq!(config.get_options(), Some("-c jit=off"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(9)));
    let attrs = config.get_target_session_attrs();
    assert_eq!(attrs, tokio_postgres::config::TargetSessionAttrs::ReadWrite);
}

#[test]
fn what_is_ignored_is_said() {
    let warnings = |url, env: &[_]| target(url, env).unwrap().warnings.join("\n");
    assert!(warnings("host=h sslmode=allow", &[]).contains("allow is treated as prefer"));
    assert!(warnings("host=h sslcompression=1", &[]).contains("sslcompression is ignored"));
    assert!(
        warnings("host=h sslcert=/nonexistent/c", &[]).contains("without a client certificate")
    );
    assert!(warnings("host=h passfile=/nonexistent/f", &[]).contains("/nonexistent/f is ignored"));
    assert_eq!(
        warnings("host=h sslmode=prefer gssencmode=disable", &[]),
        ""
    );
}

#[test]
fn refusals_say_what_to_do() {
    for (url, env, expected) in [
        (
            "hots=h",
            &[][..],
            "unknown parameter `hots`; did you mean `host`?",
        ),
        ("postgres://h/d?sslmod=x", &[], "did you mean `sslmode`?"),
        (
            "postgres://h:99999/d",
            &[],
            "port: a port is a number from 1 to 65535",
        ),
        (
            "",
            &[("PGPORT", "x")],
            "connection parameter PGPORT: a port is",
        ),
        ("host=a,b,c port=1,2", &[], "port: a list of 2 for 3 hosts"),
        (
            "host=a,b hostaddr=10.0.0.1",
            &[],
            "hostaddr: a list of 1 for 2 hosts",
        ),
        ("hostaddr=localhost", &[], "expected an IP address"),
        (
            "connect_timeout=5s",
            &[],
            "connect_timeout: expected a number of seconds",
        ),
        (
            "tcp_user_timeout=-1",
            &[],
            "expected a number of milliseconds",
        ),
        ("sslmode=verify_full", &[], "did you mean `verify-full`?"),
        (
            "target_session_attrs=standby",
            &[],
            "needs a primary server",
        ),
        ("gssencmode=require", &[], "no GSSAPI; use TLS"),
        ("replication=database", &[], "this version does not have it"),
        (
            "",
            &[("PGREQUIREAUTH", "scram-sha-256")],
            "PGREQUIREAUTH: this version does not have it; channel_binding=require",
        ),
        (
            "mydb",
            &[],
            "expected a postgres:// URI, or key=value pairs",
        ),
    ] {
        let message = target(url, env).unwrap_err().to_string();
        assert!(message.contains(expected), "{url}: {message}");
    }
}

#[test]
fn no_error_shows_the_password_or_the_string() {
    for url in [
        "postgres://user:hunter2/x@host/db",
        "postgres://user:12/hunter2@host/db",
        "postgres://user:x@hunter2@host/db",
        "postgres://user:hunter2",
        "postgres://user:x/y?hunter2=z@host/db",
        "postgres://user:hunter2%@host/db",
        "postgres://h/d?password=x&hunter2=y",
        "postgres://h/d?password=x&hunter2",
        "mysql://user:hunter2@host/db",
        "password=x hunter2",
        "password=x hunter2=y",
        "password=x hunter2='y",
        "password='hunter2",
        "host=h password=hunter2 port=hunter2",
        "host=h password=hunter2 sslmode=hunter2",
        "host=h password=hunter2 hostaddr=hunter2",
        "host=h password=hunter2 connect_timeout=hunter2",
    ] {
        let error = target(url, &[]).unwrap_err();
        let message = format!("{error} {error:?}");
        assert!(!message.contains("hunter2"), "{url}: {message}");
    }
}

#[test]
fn a_printed_target_shows_no_password() {
    for url in ["postgres://u:hunter2@h/d", "host=h password=hunter2"] {
        let target = target(url, &[("PGPASSWORD", "hunter2")]).unwrap();
        let printed = format!(
            "{target} {target:?} {:?} {:?}",
            target.config, target.warnings
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

/// A password file with the given mode, gone when dropped.
struct Passfile(PathBuf);

impl Passfile {
    fn new(name: &str, mode: u32, text: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("tenantd-pgpass-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(".pgpass");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn dir(&self) -> &str {
        self.0.parent().and_then(Path::to_str).unwrap()
    }
}

impl Drop for Passfile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.dir());
    }
}

#[test]
fn a_password_comes_from_the_string_then_the_variable_then_the_file() {
    let named = Passfile::new("named", 0o600, "h:*:*:*:from passfile\n");
    let env_file = Passfile::new("env", 0o600, "h:*:*:*:from PGPASSFILE\n");
    let home = Passfile::new("home", 0o400, "h:*:*:*:from home\nlocalhost:*:*:*:local\n");
    let passfile = format!("host=h passfile={}", named.path());
    let variables = [("PGPASSFILE", env_file.path()), ("HOME", home.dir())];
    let found = |url: &str, env: &[(&str, &str)]| password(url, env).unwrap_or_default();

    assert_eq!(
        found("host=h password=given", &[("PGPASSWORD", "env")]),
        "given"
    );
    assert_eq!(found(&passfile, &[("PGPASSWORD", "env")]), "env");
    assert_eq!(found(&passfile, &variables), "from passfile");
    assert_eq!(found("host=h", &variables), "from PGPASSFILE");
    assert_eq!(found("host=h password=''", &variables[1..]), "from home");
    assert_eq!(found("", &variables[1..]), "local");
    assert_eq!(found("host=elsewhere", &variables[1..]), "");
}

#[test]
fn a_password_file_that_others_may_read_is_ignored_with_a_warning() {
    let file = Passfile::new("open", 0o640, "*:*:*:*:hunter2\n");
    let passfile = ("PGPASSFILE", file.path());
    let ignored = target("host=h", &[passfile]).unwrap();
    assert_eq!(ignored.config.get_password(), None);
    assert!(ignored.warnings[0].contains("group or world has access (mode 0640)"));

    let credential = [passfile, ("CREDENTIALS_DIRECTORY", file.dir())];
    assert_eq!(password("host=h", &credential).as_deref(), Some("hunter2"));
}

#[test]
fn one_password_serves_several_hosts_or_the_operator_hears_of_it() {
    let file = Passfile::new("hosts", 0o600, "a:*:*:*:one\nb:*:*:*:two\n");
    let found = target("host=a,b", &[("PGPASSFILE", file.path())]).unwrap();
    assert_eq!(found.config.get_password(), Some(&b"one"[..]));
    assert!(found.warnings[0].contains("differs between these hosts"));
}
