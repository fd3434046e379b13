//! The pool of working connections. Every wait on it is bounded.

use std::time::Duration;

use super::{connect::Opener, conninfo::Target, tls::Tls};
use crate::error::{Error, Result};
use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime, Timeouts};

const WAIT: Duration = Duration::from_secs(10);
const RECYCLE: Duration = Duration::from_secs(5);

/// Settings of every working session, as start-up options: they outlive a `RESET ALL`.
/// `jit` costs a census tens of milliseconds and gains nothing; the other two let the server end
/// what a dead client left behind. A pooler that takes no options does that itself.
const SESSION: &str =
    "-c jit=off -c idle_in_transaction_session_timeout=30s -c client_connection_check_interval=5s";

/// A connection on loan; it goes back when dropped.
pub type Connection = Object;

/// Connections to one database.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool_postgres::Pool,
    target: String,
    tls: Tls,
}

impl Pool {
    /// A pool of at most `size` connections that name themselves `<application_name>/<role>`.
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// When the pool cannot be built.
    pub fn new<'a>(
        target: &Target,
        role: &str,
        settings: impl IntoIterator<Item = (&'a String, &'a String)>,
        size: usize,
    ) -> Result<Self> {
        let mut config = target.config.clone();
        let name = config
            .get_application_name()
            .unwrap_or("tenantd")
            .to_owned();
        config.application_name(format!("{name}/{role}"));
        let plain = config.clone();
        let mut options = config
            .get_options()
            .map_or_else(String::new, |own| format!("{own} "));
        options.push_str(SESSION);
        for (key, value) in settings {
            options.push_str(&format!(" -c {key}={}", escape_option(value)));
        }
        // What the operator asked for is never left out.
        let bare = (options == SESSION).then_some(plain);
        config.options(options);
        let manager = Manager::from_connect(
            config,
            Opener {
                target: target.clone(),
                bare,
            },
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let inner = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(WAIT),
                create: Some(target.patience()),
                recycle: Some(RECYCLE),
            })
            .build()
            .map_err(|error| Error::Pool {
                operation: "build the connection pool".into(),
                message: error.to_string(),
            })?;
        Ok(Self {
            inner,
            target: target.to_string(),
            tls: target.tls.clone(),
        })
    }

    /// A connection, new or used before.
    ///
    /// # Errors
    /// When none becomes free or can be made within the bounds.
    pub async fn get(&self) -> Result<Connection> {
        let operation = format!("connect to {}", self.target);
        self.inner.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(source) => Error::Postgres { operation, source },
            deadpool_postgres::PoolError::Timeout(_) => Error::Pool {
                operation,
                message: "no connection within the time allowed".into(),
            },
            other => Error::Pool {
                operation,
                message: other.to_string(),
            },
        })
    }

    /// Where it connects to, without secrets.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How it talks TLS, for requests beside its connections.
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Takes no more connections and closes those at rest.
    pub fn close(&self) {
        self.inner.close();
    }
}

/// Takes a connection out of its pool for good: it is closed, not used again.
pub fn discard(connection: Connection) {
    drop(Object::take(connection));
}

/// A value in the `options` start-up parameter: blanks and backslashes escaped.
fn escape_option(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if character == '\\' || character.is_ascii_whitespace() {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_values_keep_their_blanks() {
        assert_eq!(escape_option("a b\\c"), "a\\ b\\\\c");
    }
}
