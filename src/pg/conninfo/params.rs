//! Which parameters exist, and where each value comes from: the string, else the service, else a PG* variable.

use std::collections::BTreeMap;

use super::parse::Pair;
use super::system::{Env, System};
use super::{ConninfoError, service};
use crate::config::suggest::closest;

/// The parameters that are honoured, and the variable that stands in for each.
const SUPPORTED: [(&str, Option<&str>); 32] = [
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("dbname", Some("PGDATABASE")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("application_name", Some("PGAPPNAME")),
    ("fallback_application_name", None),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("options", Some("PGOPTIONS")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcrl", Some("PGSSLCRL")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("sslcertmode", Some("PGSSLCERTMODE")),
    ("sslsni", Some("PGSSLSNI")),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
];

/// Parameters of libpq that change nothing here: ignored, and said so.
const IGNORED: [&str; 5] = [
    "client_encoding",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcompression",
];

/// Parameters of libpq that would mean another server or less safety if they were ignored; with their
/// variables, and what to do instead.
const REFUSED: [(&str, Option<&str>, &str); 11] = [
    (
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
        NOT_HERE,
    ),
    (
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        NOT_HERE,
    ),
    ("replication", None, NOT_HERE),
    (
        "require_auth",
        Some("PGREQUIREAUTH"),
        "this version does not have it; channel_binding=require insists on SCRAM",
    ),
    (
        "requirepeer",
        Some("PGREQUIREPEER"),
        "this version does not have it; the directory of the socket should belong to the server",
    ),
    ("scram_client_key", None, NOT_HERE),
    ("scram_server_key", None, NOT_HERE),
    (
        "sslcrldir",
        Some("PGSSLCRLDIR"),
        "this version reads no directories; use sslcrl with one file",
    ),
    ("sslengine", None, NOT_HERE),
    ("sslkeylogfile", None, NOT_HERE),
    (
        "sslpassword",
        None,
        "this version cannot decrypt keys; use a key without a passphrase that only its owner may read",
    ),
];

const NOT_HERE: &str = "this version does not have it";

/// The driver's name for a parameter that libpq calls otherwise.
const ALIASES: [(&str, &str); 1] = [("keepalives_retries", "keepalives_count")];

/// A value and the name to blame for it.
#[derive(Clone)]
pub(super) struct Param {
    pub(super) value: String,
    pub(super) source: String,
}

impl Param {
    /// An error about this value, which it does not show.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> ConninfoError {
        ConninfoError::Invalid {
            parameter: self.source.clone(),
            reason: reason.into(),
        }
    }

    /// An error about a value that libpq would take.
    pub(super) fn unsupported(&self, reason: &'static str) -> ConninfoError {
        ConninfoError::Unsupported {
            parameter: self.source.clone(),
            reason,
        }
    }
}

/// The parameters that have a value, by libpq's name.
pub(super) struct Params(BTreeMap<&'static str, Param>);

impl Params {
    /// Puts together what the string, the service, the environment say, in this order.
    pub(super) fn new(
        explicit: Vec<Pair>,
        env: Env<'_>,
        system: &System<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConninfoError> {
        let mut params = Self(BTreeMap::new());
        let mut after_password = false;
        for pair in explicit {
            if let Some(name) = recognise(&pair, after_password, warnings)? {
                after_password |= name == "password";
                let source = name.to_owned();
                let value = pair.value;
                params.0.insert(name, Param { value, source }); // the last one wins, as in libpq
            }
        }
        service::fill(&mut params, env, system, warnings)?;
        params.fill_from(env)?;
        Ok(params)
    }

    /// Gives a parameter a value unless it has one.
    pub(super) fn fill(&mut self, name: &'static str, value: String, source: String) {
        self.0.entry(name).or_insert(Param { value, source });
    }

    fn fill_from(&mut self, env: Env<'_>) -> Result<(), ConninfoError> {
        for (name, variable) in SUPPORTED {
            if let Some((variable, value)) = variable.and_then(|v| Some((v, env(v)?))) {
                self.fill(name, value, variable.to_owned());
            }
        }
        if env("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
            self.fill("sslmode", "require".to_owned(), "PGREQUIRESSL".to_owned()); // before PGSSLMODE was
        }
        for (_, variable, reason) in REFUSED {
            let set = |variable: &&str| env(variable).is_some_and(|value| !value.is_empty());
            if let Some(variable) = variable.filter(set) {
                return Err(ConninfoError::Unsupported {
                    parameter: variable.to_owned(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// The value of a parameter; an empty one counts as absent, as in libpq.
    pub(super) fn get(&self, name: &str) -> Option<&Param> {
        self.0.get(name).filter(|param| !param.value.is_empty())
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|param| param.value.as_str())
    }
}

/// The canonical name of a supported parameter, or `None` for one that is ignored.
pub(super) fn recognise(
    pair: &Pair,
    after_password: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<&'static str>, ConninfoError> {
    let key = pair.key.as_str();
    let alias = ALIASES.iter().find(|(other, _)| *other == key);
    let key = alias.map_or(key, |(_, name)| *name);
    if let Some((name, _)) = SUPPORTED.iter().find(|(name, _)| *name == key) {
        return Ok(Some(name));
    }
    if let Some(name) = IGNORED.iter().find(|name| **name == key) {
        warnings.push(format!(
            "connection parameter {name} is ignored by this version"
        ));
        return Ok(None);
    }
    if let Some((name, _, reason)) = REFUSED.iter().find(|(name, ..)| *name == key) {
        let parameter = (*name).to_owned();
        return if pair.value.is_empty() {
            Ok(None)
        } else {
            Err(ConninfoError::Unsupported { parameter, reason })
        };
    }
    // After an unquoted password with a space in it, a "key" is a piece of the password.
    Err(ConninfoError::Unknown {
        name: (!after_password).then(|| key.to_owned()),
        suggestion: closest(key, SUPPORTED.iter().map(|(name, _)| *name)),
    })
}
