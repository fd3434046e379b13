//! Errors by failed operation. Each says what failed, on what, and the next thing to do.

use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use crate::{config::ConfigError, migrations::SetError, pg::conninfo::ConninfoError};

/// Why an operation of tenantd failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL, or the way to it.
    #[error("{operation}: {}", explain(source))]
    Postgres {
        /// What was being done, with its operands.
        operation: String,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
    /// No connection could be had from the pool.
    #[error("{operation}: {message}")]
    Pool {
        /// What was being done.
        operation: String,
        /// Why, in words.
        message: String,
    },
    /// All connections are in use, and the server gives us no more.
    #[error("{operation}: all of our connections were busy for too long")]
    Busy {
        /// What was being done.
        operation: String,
    },
    /// The server refused our password a moment ago, and is not asked again yet.
    #[error("{operation}: {text}; asked again in {} s, with the password file read anew", wait.as_secs())]
    Password {
        /// What was being done.
        operation: String,
        /// What the server said, and what to do.
        text: String,
        /// Until then it is not asked again.
        wait: Duration,
    },
    /// A wait reached its bound.
    #[error("{operation}: no answer within {}", humantime::format_duration(*limit))]
    Timeout {
        /// What was waited for.
        operation: String,
        /// The bound.
        limit: Duration,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The connection parameters.
    #[error("database connection: {0}")]
    Conninfo(#[from] ConninfoError),
    /// The migration set.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A state of things that tenantd will not work in; the text says how to leave it.
    #[error("{0}")]
    Refused(String),
    /// A server that must not be worked on: a standby, another system, an older timeline.
    #[error("{0}")]
    WrongServer(String),
    /// The control schema is newer than this program, which therefore does not act.
    #[error(
        "the schema tenantd is at version {installed}, this program knows {known}: upgrade tenantd"
    )]
    Newer {
        /// The version in the database.
        installed: i32,
        /// The newest version that this program knows.
        known: i32,
    },
    /// The operating system.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, with its operands.
        operation: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the operation that a database error ended.
pub trait During<T> {
    /// # Errors
    /// The same failure, with the operation named.
    fn during(self, operation: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for Result<T, tokio_postgres::Error> {
    fn during(self, operation: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Postgres {
            operation: operation.into(),
            source,
        })
    }
}

impl Error {
    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether waiting may mend it: the server is away, starting, stopping or full, or not the right one.
    pub fn will_pass(&self) -> bool {
        match self {
            Self::Postgres { source, .. } => match source.code() {
                Some(code) => ["08", "53", "57"]
                    .iter()
                    .any(|class| code.code().starts_with(class)),
                None => !asks_for_password(source),
            },
            Self::Pool { .. } | Self::Timeout { .. } | Self::Busy { .. } | Self::WrongServer(_) => {
                true
            }
            _ => false,
        }
    }
}

/// One line for a driver error: the server's message, its SQLSTATE, its hint or ours. The server's
/// DETAIL is left out: it may quote a customer's data.
pub fn explain(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        if asks_for_password(error) {
            text = format!("the server asks for a password ({text}); {GIVE_PASSWORD}");
        }
        return text;
    };
    let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
    if let Some(remedy) = remedy(db) {
        text = format!("{text}; {remedy}");
    } else if let Some(hint) = db.hint() {
        text = format!("{text}; hint: {hint}");
    }
    text
}

/// Whether there is no answer because we have no password to give.
pub(crate) fn asks_for_password(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    let cause = error.source().map(ToString::to_string);
    cause.is_some_and(|cause| cause == "password missing")
}

const GIVE_PASSWORD: &str =
    "give it in database.url, PGPASSWORD or the password file (host:port:database:user:password)";
const INSTALL_ROLE: &str =
    "run: tenantd install --role <tenantd's role>, as the owner of the database";
/// The tables of the control schema.
const LEDGER: [&str; 11] = [
    "control",
    "tenant",
    "applied",
    "migration",
    "head",
    "behind",
    "request",
    "instance",
    "server",
    "lead",
    "breaker",
];

/// What an operator does about a server error, where we know.
fn remedy(error: &DbError) -> Option<String> {
    let message = error.message();
    let object = |kind: &str| {
        let rest = message
            .strip_prefix("permission denied for ")?
            .strip_prefix(kind)?;
        Some(rest.trim().trim_matches('"').to_owned())
    };
    if *error.code() == SqlState::INSUFFICIENT_PRIVILEGE {
        if let Some(name) = object("database ") {
            return Some(format!(
                "run: GRANT CREATE ON DATABASE \"{name}\" TO <tenantd's role>"
            ));
        }
        if let Some(name) = object("schema ") {
            return Some(if name == "tenantd" {
                INSTALL_ROLE.into()
            } else {
                format!("run: GRANT USAGE, CREATE ON SCHEMA \"{name}\" TO <tenantd's role>")
            });
        }
        if let Some(name) = object("table ").or_else(|| object("view ")) {
            return Some(if LEDGER.contains(&name.as_str()) {
                INSTALL_ROLE.into()
            } else {
                format!("run: GRANT SELECT ON {name} TO <tenantd's role>")
            });
        }
        if message.starts_with("must be ") {
            return Some("run: GRANT <the owning role> TO <tenantd's role>".into());
        }
    }
    // A start-up option of ours that came with PostgreSQL 14.
    if message == "unrecognized configuration parameter \"client_connection_check_interval\"" {
        return Some("tenantd needs PostgreSQL 14 or later: upgrade the server".into());
    }
    if *error.code() == SqlState::OUT_OF_MEMORY && message.contains("shared memory") {
        return Some(
            "raise max_locks_per_transaction (with a restart of the server): a schema that is filled locks each \
             of its tables; or lower database.workers"
                .into(),
        );
    }
    if *error.code() == SqlState::DISK_FULL {
        return Some("make room on the server's disk".into());
    }
    if *error.code() == SqlState::TOO_MANY_CONNECTIONS {
        return Some(
            "raise max_connections, or the role's CONNECTION LIMIT, or lower database.workers"
                .into(),
        );
    }
    if *error.code() == SqlState::INVALID_PASSWORD {
        return Some("check the password in database.url, PGPASSWORD or the password file".into());
    }
    None
}
