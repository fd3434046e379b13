//! Which parameters exist, and where each value comes from: the string, else a PG* variable.

use std::collections::BTreeMap;

use super::ConninfoError;
use super::parse::Pair;
use crate::config::suggest::closest;

/// The parameters that are honoured, and the variable that stands in for each.
const SUPPORTED: [(&str, Option<&str>); 20] = [
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
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
];

/// Parameters of libpq that change nothing while there is no TLS and no GSSAPI: ignored, and said so.
const IGNORED: [&str; 16] = [
    "client_encoding",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
];

/// Parameters of libpq that would mean another server or less safety if they were ignored.
const REFUSED: [&str; 6] = [
    "gssencmode",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
];

/// The driver's name for a parameter that libpq calls otherwise.
const ALIASES: [(&str, &str); 1] = [("keepalives_retries", "keepalives_count")];

/// A value and the name to blame for it.
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
    pub(super) fn new(
        explicit: Vec<Pair>,
        env: &dyn Fn(&str) -> Option<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConninfoError> {
        refuse_service(&explicit, env, warnings)?;
        let mut params = BTreeMap::new();
        let mut after_password = false;
        for pair in explicit {
            if let Some(name) = recognise(&pair, after_password, warnings)? {
                after_password |= name == "password";
                let source = name.to_owned();
                let value = pair.value;
                params.insert(name, Param { value, source }); // the last one wins, as in libpq
            }
        }
        for (name, variable) in SUPPORTED {
            let Some(variable) = variable.filter(|_| !params.contains_key(name)) else {
                continue;
            };
            if let Some(value) = env(variable) {
                let source = variable.to_owned();
                params.insert(name, Param { value, source });
            }
        }
        Ok(Self(params))
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
fn recognise(
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
    if key == "gssencmode" && matches!(pair.value.as_str(), "disable" | "prefer" | "") {
        return Ok(None); // what happens anyway
    }
    if REFUSED.contains(&key) {
        return Err(ConninfoError::Unsupported {
            parameter: key.to_owned(),
            reason: "this version does not have it",
        });
    }
    // After an unquoted password with a space in it, a "key" is a piece of the password.
    Err(ConninfoError::Unknown {
        name: (!after_password).then(|| key.to_owned()),
        suggestion: closest(key, SUPPORTED.iter().map(|(name, _)| *name)),
    })
}

/// A service chosen through the environment would decide where we connect, unless the string does.
fn refuse_service(
    explicit: &[Pair],
    env: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<(), ConninfoError> {
    if env("PGSERVICE").is_none_or(|service| service.is_empty()) {
        return Ok(());
    }
    if explicit.is_empty() {
        return Err(ConninfoError::Unsupported {
            parameter: "PGSERVICE".to_owned(),
            reason: "this version does not read service files; give a connection string",
        });
    }
    warnings.push("PGSERVICE is ignored: this version does not read service files".to_owned());
    Ok(())
}
