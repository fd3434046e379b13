//! Turns parameters into the driver's configuration, filling in defaults on the way.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::ConninfoError;
use super::endpoints::Endpoints;
use super::params::{Param, Params};
use super::passfile::{self, Wanted};
use super::system::System;
use crate::config::suggest::{closest, hint};

/// libpq waits for ever; a daemon must notice a host that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished is noticed after idle + interval * retries: 30 s, not 2 h.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a peer that vanished while data was under way to it.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Builds the driver's configuration.
pub(super) fn config(
    params: &Params,
    env: Env<'_>,
    system: &System<'_>,
    warnings: &mut Vec<String>,
) -> Result<Config, ConninfoError> {
    let mut config = Config::new();
    let endpoints = Endpoints::new(params, system)?;
    endpoints.apply(&mut config);
    identity(params, env, system, &mut config);
    if let Some(password) = password(params, env, system, &endpoints, &config, warnings) {
        config.password(password);
    }
    session(params, &mut config, warnings)?;
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
    endpoints: &Endpoints,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Option<String> {
    if let Some(password) = params.text("password") {
        return Some(password.to_owned());
    }
    let text = passfile_text(params, env, system, warnings)?;
    let found: Vec<Option<String>> = endpoints
        .names()
        .iter()
        .map(|(host, port)| {
            let wanted = Wanted {
                host,
                port: *port,
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
            let home = env("HOME").filter(|home| !home.is_empty());
            let home = home.or_else(|| system.user.as_ref().map(|user| user.home.clone()))?;
            let path = PathBuf::from(home).join(".pgpass");
            path.exists().then_some(path)?
        }
    };
    let read = passfile::read(&path, env("CREDENTIALS_DIRECTORY").as_deref());
    read.map_err(|warning| warnings.push(warning)).ok()
}

/// Sets what the session is asked to be.
fn session(
    params: &Params,
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<(), ConninfoError> {
    let fallback = || params.text("fallback_application_name");
    if let Some(name) = params.text("application_name").or_else(fallback) {
        config.application_name(name);
    }
    if let Some(options) = params.text("options") {
        config.options(options);
    }
    if let Some(param) = params.get("sslmode") {
        config.ssl_mode(ssl_mode(param, warnings)?);
    }
    if let Some(param) = params.get("target_session_attrs") {
        config.target_session_attrs(target_session_attrs(param)?);
    }
    if let Some(param) = params.get("channel_binding") {
        config.channel_binding(choice(
            param,
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
        )?);
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
    Ok(())
}

/// The place to change when TLS arrives: until then, whoever asks for it must not go without.
fn ssl_mode(param: &Param, warnings: &mut Vec<String>) -> Result<SslMode, ConninfoError> {
    let mode = choice(
        param,
        &[
            ("disable", Some(SslMode::Disable)),
            ("allow", Some(SslMode::Prefer)),
            ("prefer", Some(SslMode::Prefer)),
            ("require", None),
            ("verify-ca", None),
            ("verify-full", None),
        ],
    )?;
    if param.value == "allow" {
        warnings.push(format!("{}: allow is treated as prefer", param.source));
    }
    mode.ok_or_else(|| {
        param.unsupported(
            "this version has no TLS yet; use a Unix socket, or a tunnel and sslmode=disable",
        )
    })
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
fn choice<T: Copy>(param: &Param, words: &[(&'static str, T)]) -> Result<T, ConninfoError> {
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
    match seconds("connect_timeout")? {
        None => config.connect_timeout(CONNECT_TIMEOUT),
        Some(Duration::ZERO) => config, // asked for: no limit
        Some(limit) => config.connect_timeout(limit),
    };
    let keepalives = number::<i64>(params, "keepalives", "0 or 1")?;
    config.keepalives(keepalives != Some(0));
    let given = |value: Option<Duration>| value.filter(|value| !value.is_zero());
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
