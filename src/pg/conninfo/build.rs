//! Turns parameters into the driver's configuration, filling in defaults on the way.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{LoadBalanceHosts, TargetSessionAttrs};

use super::ConninfoError;
use super::endpoints::Server;
use super::files;
use super::params::{Param, Params};
use super::passfile::{self, Wanted};
use super::system::{Env, System};
use crate::config::suggest::{closest, hint};

/// libpq waits for ever, also where 0 is given; a daemon must notice a host that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished is noticed after idle + interval * retries: 30 s, not 2 h.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a peer that vanished while data was under way to it.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

/// Builds the driver's configuration, without servers and without TLS.
pub(super) fn config(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    servers: &[Server],
    warnings: &mut Vec<String>,
) -> Result<Config, ConninfoError> {
    let mut config = Config::new();
    identity(params, env, system, &mut config);
    if let Some(password) = password(params, env, system, servers, &config, warnings) {
        config.password(password);
    }
    session(params, servers, &mut config)?;
    liveness(params, &mut config)?;
    Ok(config)
}

/// Sets user and database.
fn identity(params: &Params, env: Env<'_>, system: &System<'_>, config: &mut Config) {
    let os_user = system.user.as_ref().map(|user| user.name.clone());
    let set = |name: &&str| env(name).filter(|value| !value.is_empty());
    // Without any of these the driver asks the C library, which may know users of a directory service.
    let user = params
        .text("user")
        .map(str::to_owned)
        .or(os_user)
        .or_else(|| ["USER", "LOGNAME"].iter().find_map(set));
    if let Some(user) = &user {
        config.user(user);
    }
    if let Some(dbname) = params.text("dbname").or(user.as_deref()) {
        config.dbname(dbname);
    }
}

/// The password: as given, else from the password file.
fn password(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    servers: &[Server],
    config: &Config,
    warnings: &mut Vec<String>,
) -> Option<String> {
    if let Some(password) = params.text("password") {
        return Some(password.to_owned());
    }
    let text = passfile_text(params, env, system, warnings)?;
    let found: Vec<Option<String>> = servers
        .iter()
        .map(|server| {
            let wanted = Wanted {
                host: &server.name,
                port: server.port,
                dbname: config.get_dbname().unwrap_or_default(),
                user: config.get_user().unwrap_or_default(),
            };
            passfile::find(&text, &wanted)
        })
        .collect();
    if found.windows(2).any(|pair| pair[0] != pair[1]) {
        let note =
            "the password file differs between these hosts; the first password is used for all";
        warnings.push(note.to_owned());
    }
    found.into_iter().flatten().next()
}

/// The text of the password file. That the default one does not exist is normal.
fn passfile_text(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    warnings: &mut Vec<String>,
) -> Option<String> {
    let path = match params.text("passfile") {
        Some(path) => PathBuf::from(path),
        None => {
            let path = files::home(env, system)?.join(".pgpass");
            path.exists().then_some(path)?
        }
    };
    let read = passfile::read(&path, env("CREDENTIALS_DIRECTORY").as_deref());
    read.map_err(|warning| warnings.push(warning)).ok()
}

/// Sets what the session is asked to be.
fn session(params: &Params, servers: &[Server], config: &mut Config) -> Result<(), ConninfoError> {
    let fallback = || params.text("fallback_application_name");
    if let Some(name) = params.text("application_name").or_else(fallback) {
        config.application_name(name);
    }
    if let Some(options) = params.text("options") {
        config.options(options);
    }
    if let Some(param) = params.get("target_session_attrs") {
        config.target_session_attrs(target_session_attrs(param)?);
    } else if servers.len() > 1 {
        // Several hosts are a primary and its standbys: whichever is the primary now is meant.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if let Some(param) = params.get("load_balance_hosts") {
        config.load_balance_hosts(choice(
            param,
            &[
                ("disable", LoadBalanceHosts::Disable),
                ("random", LoadBalanceHosts::Random),
            ],
        )?);
    }
    if let Some(param) = params.get("gssencmode") {
        choice(
            param,
            &[
                ("disable", Some(())),
                ("prefer", Some(())),
                ("require", None),
            ],
        )?
        .ok_or_else(|| param.unsupported("this version has no GSSAPI; use TLS"))?;
    }
    Ok(())
}

fn target_session_attrs(param: &Param) -> Result<TargetSessionAttrs, ConninfoError> {
    choice(
        param,
        &[
            ("any", Some(TargetSessionAttrs::Any)),
            ("read-write", Some(TargetSessionAttrs::ReadWrite)),
            ("primary", Some(TargetSessionAttrs::ReadWrite)),
            ("read-only", Some(TargetSessionAttrs::ReadOnly)),
            ("standby", None),
            ("prefer-standby", None),
        ],
    )?
    .ok_or_else(|| param.unsupported("tenantd writes, so it needs a primary server"))
}

/// Picks the value that a word stands for.
pub(super) fn choice<T: Copy>(
    param: &Param,
    words: &[(&'static str, T)],
) -> Result<T, ConninfoError> {
    let found = words.iter().find(|(word, _)| *word == param.value);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = hint(closest(&param.value, names.iter().copied()));
        param.invalid(format!("expected {}{near}", names.join(", ")))
    })
}

/// Sets the bounds on waiting for a server that does not answer.
fn liveness(params: &Params, config: &mut Config) -> Result<(), ConninfoError> {
    let seconds = |name| -> Result<Option<Duration>, ConninfoError> {
        Ok(number::<i64>(params, name, "a number of seconds")?.map(positive_seconds))
    };
    let given = |value: Option<Duration>| value.filter(|value| !value.is_zero());
    config.connect_timeout(given(seconds("connect_timeout")?).unwrap_or(CONNECT_TIMEOUT));
    let keepalives = number::<i64>(params, "keepalives", "0 or 1")?;
    config.keepalives(keepalives != Some(0));
    config.keepalives_idle(given(seconds("keepalives_idle")?).unwrap_or(KEEPALIVE_IDLE));
    config
        .keepalives_interval(given(seconds("keepalives_interval")?).unwrap_or(KEEPALIVE_INTERVAL));
    let retries = number(params, "keepalives_count", "a number of probes")?;
    config.keepalives_retries(
        retries
            .filter(|count| *count > 0)
            .unwrap_or(KEEPALIVE_RETRIES),
    );
    let user_timeout = number(params, "tcp_user_timeout", "a number of milliseconds")?;
    config.tcp_user_timeout(user_timeout.map_or(TCP_USER_TIMEOUT, Duration::from_millis));
    Ok(())
}

/// libpq takes zero and less as "no limit".
fn positive_seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn number<T>(params: &Params, name: &str, expected: &str) -> Result<Option<T>, ConninfoError>
where
    T: FromStr<Err: Display>,
{
    let Some(param) = params.get(name) else {
        return Ok(None);
    };
    match param.value.trim().parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(param.invalid(format!("expected {expected}"))),
    }
}
