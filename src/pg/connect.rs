//! Connecting to the first of several servers that will have us.
//!
//! The driver would walk a list of hosts itself, but it bounds only the TCP handshake: a server that is
//! frozen after it keeps us from the next one. And it has one `sslmode` for all of them, where a Unix socket
//! has none.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    time::Duration,
};

use deadpool_postgres::Connect;
use tokio::{net::lookup_host, task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{LoadBalanceHosts, SslMode, SslNegotiation},
    error::{Error, SqlState},
};
use tracing::{debug, warn};

use super::{
    conninfo::{Server, Target},
    tls::TlsStream,
};
use crate::error::explain;

/// A session and what drives it.
type Opened = (Client, Connection<Socket, TlsStream>);

impl Target {
    /// How long connecting may take when all servers but the last do not answer.
    pub fn patience(&self) -> Duration {
        self.patience_each() * u32::try_from(self.servers.len()).unwrap_or(u32::MAX)
    }

    fn patience_each(&self) -> Duration {
        self.config
            .get_connect_timeout()
            .copied()
            .unwrap_or_default()
    }

    /// Connects with `config`, which is this target's with settings added. The caller bounds the wait, to
    /// [`Target::patience`]: here, only a server that has another behind it is given up.
    ///
    /// # Errors
    /// What the last server that was tried answered. As in libpq, a server that refuses the user or the
    /// database is the last.
    pub(super) async fn connect(&self, config: &Config) -> Result<Opened, Error> {
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            let random = RandomState::new();
            servers.sort_by_cached_key(|server| random.hash_one((&server.name, server.port)));
        }
        let last = servers.pop().expect("there is a default server");
        for server in servers {
            match timeout(self.patience_each(), self.attempt(server, config)).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(error)) if is_final(&error) => return Err(error),
                Ok(Err(error)) => {
                    debug!("{}:{}: {}", server.name, server.port, explain(&error));
                }
                Err(_) => debug!("{}:{}: no answer in time", server.name, server.port),
            }
        }
        self.attempt(last, config).await
    }

    /// As [`Self::connect`]; with `bare` where a pooler takes no settings.
    pub(super) async fn connect_or(
        &self,
        config: &Config,
        bare: Option<&Config>,
    ) -> Result<Opened, Error> {
        match (self.connect(config).await, bare) {
            (Err(error), Some(bare)) if takes_no_options(&error) => self.connect(bare).await,
            (opened, _) => opened,
        }
    }

    /// Connects to one server.
    async fn attempt(&self, server: &Server, config: &Config) -> Result<Opened, Error> {
        let mut config = self.with_password(config);
        config.host(&server.name).port(server.port);
        if let Some(address) = server.address {
            config.hostaddr(address);
        } else if server.is_socket() {
            config.ssl_mode(SslMode::Disable);
            config.ssl_negotiation(SslNegotiation::Postgres);
        } else {
            // A name may have several addresses, of which the first are dead. That it has none is the driver's to say.
            let found = lookup_host((server.name.as_str(), server.port)).await;
            let count = found.map_or(1, |addresses| addresses.count().max(1));
            let share = u32::try_from(count).unwrap_or(u32::MAX);
            config.connect_timeout(self.patience_each() / share);
        }
        config.connect(self.tls.clone()).await
    }
}

/// Whether another server would say the same.
fn is_final(error: &Error) -> bool {
    let code = error.code().map_or("", |code| code.code());
    code.starts_with("28") || code.starts_with("3D")
}

/// Whether it is a pooler that takes no settings at the start of a session (PgBouncer).
fn takes_no_options(error: &Error) -> bool {
    error.as_db_error().is_some_and(|error| {
        *error.code() == SqlState::PROTOCOL_VIOLATION && is_about_options(error.message())
    })
}

/// From 1.20 on PgBouncer looks into the options, and names the first that it does not know.
fn is_about_options(message: &str) -> bool {
    message == "unsupported startup parameter: options"
        || message.starts_with("unsupported startup parameter in options:")
}

/// Makes the connections of a pool.
pub(super) struct Opener {
    pub(super) target: Target,
    /// Without the settings that we would like to have, where there are no others.
    pub(super) bare: Option<Config>,
}

impl Connect for Opener {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let bare = self.bare.as_ref();
            let (client, connection) = self.target.connect_or(&config, bare).await?;
            let task = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    warn!("connection lost: {}", explain(&error));
                }
            });
            Ok((client, task))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_poolers_that_take_no_options_are_known_by_their_words() {
        assert!(is_about_options("unsupported startup parameter: options"));
        assert!(is_about_options(
            "unsupported startup parameter in options: jit"
        ));
        assert!(!is_about_options(
            "unsupported startup parameter: extra_float_digits"
        ));
    }
}
