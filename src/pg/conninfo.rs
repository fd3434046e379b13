//! libpq's connection parameters: what `psql` would connect to, tenantd connects to.
//!
//! ```text
//! URI or key=value ──parse──> ordered parameters ─┐
//! service file, PG* environment ──────────────────┼─> servers, tokio_postgres::Config, Tls, warnings
//! libpq's defaults, password file ────────────────┘
//! ```
//!
//! A parameter comes from the connection string, else from the service, else from its PG* variable, else
//! from the default. The driver has a parser of its own; this one exists because the driver knows no
//! environment, no files and few of the TLS parameters, and so that an unknown parameter gets a
//! suggestion. Differences to libpq, on purpose: connections time out after 5 s and dead ones are
//! noticed within about 30 s, a raw `@` in the wrong place is refused rather than guessed at, a handshake
//! that failed is never followed by an attempt without TLS, and what we cannot do is refused where
//! ignoring it would be less safe.
//!
//! Nothing that is printed from here, errors included, contains a password or the connection string:
//! an error names the parameter and never quotes a value, because what looks like a port can be the
//! middle of a password that was not escaped.

use std::fmt;

use crate::config::Secret;

mod build;
mod endpoints;
mod files;
mod params;
mod parse;
mod passfile;
mod service;
mod system;
mod tls;
mod uri;

pub(super) use endpoints::Server;
use system::{Env, System};

use super::tls::Tls;

/// A database to connect to, and what the operator should know about how it was found.
#[derive(Clone)]
pub struct Target {
    /// For the driver, without servers; `application_name` is set only if the operator set it.
    pub config: tokio_postgres::Config,
    /// The servers to try, in order.
    pub(super) servers: Vec<Server>,
    pub(super) tls: Tls,
    /// A sentence for the log, if a server elsewhere is connected to without being sure of it.
    pub unverified: Option<String>,
    /// What was ignored and why: one sentence each, for the log.
    pub warnings: Vec<String>,
    url: Option<Secret>,
}

impl Target {
    /// `config` with the password that the environment and the password file give now. What they gave at first
    /// stays where they give none.
    #[must_use]
    pub fn with_password(&self, config: &tokio_postgres::Config) -> tokio_postgres::Config {
        let mut config = config.clone();
        let url = self.url.as_ref().map(Secret::expose);
        let now = resolve(url, &|name| std::env::var(name).ok());
        if let Some(password) = now.ok().as_ref().and_then(|now| now.config.get_password()) {
            config.password(password);
        }
        config
    }
}

/// Finds out where to connect: `url` is a URI, a key=value string, or nothing; `env` looks up a
/// variable of the environment.
///
/// ```
/// use tenantd::pg::conninfo::resolve;
///
/// let env = |name: &str| (name == "PGUSER").then(|| "app".to_owned());
/// let target = resolve(Some("postgres://db.example.org/shop"), &env)?;
/// assert_eq!(target.to_string(), "host=db.example.org port=5432 dbname=shop user=app");
/// # Ok::<(), tenantd::pg::conninfo::ConninfoError>(())
/// ```
///
/// # Errors
/// When the string is malformed, a parameter is unknown or its value is wrong, or this version cannot
/// do what is asked for.
pub fn resolve(
    url: Option<&str>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, ConninfoError> {
    resolve_on(url, env, &System::here())
}

/// As [`resolve`], with what it looks up in the operating system handed in.
fn resolve_on(
    url: Option<&str>,
    env: Env<'_>,
    system: &System<'_>,
) -> Result<Target, ConninfoError> {
    let text = url.unwrap_or_default().trim();
    let explicit = parse::connection_string(text)?;
    let mut warnings = Vec::new();
    let params = params::Params::new(explicit, env, system, &mut warnings)?;
    let servers = endpoints::servers(&params, system)?;
    let mut config = build::config(&params, env, system, &servers, &mut warnings)?;
    let tls = tls::tls(&params, env, system, &servers, &mut config, &mut warnings)?;
    let unverified = tls::unverified(&config, &servers, &tls);
    Ok(Target {
        config,
        servers,
        tls,
        unverified,
        warnings,
        url: url.and_then(|url| url.parse().ok()),
    })
}

/// Whether a connection string has a password in it.
pub fn holds_password(text: &str) -> bool {
    let pairs = parse::connection_string(text.trim()).unwrap_or_default();
    let secret = |pair: &parse::Pair| pair.key.contains("password") && !pair.value.is_empty();
    pairs.iter().any(secret)
}

impl Target {
    /// How many hosts are tried, at least one.
    pub fn hosts(&self) -> usize {
        self.servers.len()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        let list = |text: &dyn Fn(&Server) -> String| {
            let texts: Vec<String> = self.servers.iter().map(text).collect();
            texts.join(",")
        };
        let mut ports = list(&|server| server.port.to_string());
        if self
            .servers
            .windows(2)
            .all(|pair| pair[0].port == pair[1].port)
        {
            ports.truncate(ports.find(',').unwrap_or(ports.len()));
        }
        let pair = |key: &str, value: &str| format!("{key}={}", parse::quote(value));
        let mut pairs = vec![
            pair("host", &list(&|server| server.name.clone())),
            pair("port", &ports),
        ];
        pairs.extend(config.get_dbname().map(|name| pair("dbname", name)));
        pairs.extend(config.get_user().map(|user| pair("user", user)));
        f.write_str(&pairs.join(" "))
    }
}

/// As Display: the driver's own Debug hides the password too, but says much more than anybody asks.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Why there is nothing to connect to. Never contains a value from the connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    /// The string is neither a URI nor key=value pairs, or breaks their rules.
    #[error("connection string: {0}")]
    Syntax(&'static str),
    /// No such parameter.
    #[error("connection string: {}{}", unknown(name.as_deref()), crate::config::suggest::hint(*suggestion))]
    Unknown {
        /// The parameter; `None` where it could be part of a password.
        name: Option<String>,
        /// The parameter that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A parameter has a value that it cannot have.
    #[error("connection parameter {parameter}: {reason}")]
    Invalid {
        /// The parameter, or the variable it came from.
        parameter: String,
        /// What it must be.
        reason: String,
    },
    /// libpq could do this, this version of tenantd cannot.
    #[error("connection parameter {parameter}: {reason}")]
    Unsupported {
        /// The parameter, or the variable it came from.
        parameter: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A line of a service file, or the file.
    #[error("service file {place}: {reason}")]
    ServiceFile {
        /// The file, with the number of the line.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What TLS needs is not there or not in order.
    #[error("TLS: {0}")]
    Tls(String),
}

fn unknown(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("unknown parameter `{name}`"),
        None => {
            "unknown parameter after the password; a value with spaces needs single quotes, and \
                 in a URI `&` is written %26"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
