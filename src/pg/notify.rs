//! One LISTEN connection: always drained, never in a transaction, and asked whether it still answers when it is quiet.
//!
//! A dead listener looks like a quiet one. Asking finds a lost route and a frozen server. It does not find a
//! session that answers and is notified of nothing, and neither does a notification that the session sends
//! itself: a transaction pooler hands that one through with the answer and drops all others. So the proof that
//! notifications arrive has to come from another connection (`daemon/heartbeat.rs`).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Connection, Notification, Socket};

use super::{
    conninfo::Target,
    ident::Ident,
    primary::{self, Seen},
    session::LOOKS_IN,
    tls::TlsStream,
};
use crate::{
    error::{During, Error, Result},
    failpoint,
};

/// How long the session may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
const WAIT: &str = "wait for notifications";
const WHO: &str = "SELECT pg_catalog.pg_backend_pid()";

/// A session that listens. Dropping it abandons the socket without a word to the server.
pub struct Listener {
    client: Client,
    connection: Connection<Socket, TlsStream>,
    backend: Option<String>,
}

impl Listener {
    /// Connects and listens on `channels`, within `limit`. What was sent before this returns may have
    /// been missed.
    ///
    /// # Errors
    /// When the server cannot be reached, must not be worked on, or refuses.
    pub async fn open(
        target: &Target,
        channels: &[&str],
        seen: &Seen,
        limit: Duration,
    ) -> Result<Self> {
        timeout(limit, Self::connect(target, channels, seen))
            .await
            .map_err(|_| Error::Timeout {
                operation: format!("listen on {target}"),
                limit,
            })?
    }

    async fn connect(target: &Target, channels: &[&str], seen: &Seen) -> Result<Self> {
        let operation = || format!("listen on {target}");
        let mut config = target.config.clone();
        let name = config
            .get_application_name()
            .unwrap_or("tenantd")
            .to_owned();
        config.application_name(format!("{name}/listen"));
        let bare = config.get_options().is_none().then(|| config.clone());
        let own = config.get_options().unwrap_or_default();
        config.options(format!("-c search_path={LOOKS_IN} {own}"));
        let connected = target.connect_or(&config, bare.as_ref()).await;
        let (client, mut connection) = connected.during(operation())?;
        failpoint::pass("listener.connected").await?;
        let sql: String = channels
            .iter()
            .map(|channel| format!("LISTEN {};", Ident(channel)))
            .collect();
        let listening = async {
            let look = primary::look(&client).await.during(operation())?;
            seen.admit(&target.to_string(), look)?;
            let answer = client.simple_query(WHO).await.during(operation())?;
            client.simple_query(&sql).await.during(operation())?;
            Ok::<_, Error>(primary::text(&answer, 0).map(ToOwned::to_owned))
        };
        let backend = drive(&mut connection, listening, |_| {}).await?;
        Ok(Self {
            client,
            connection,
            backend,
        })
    }

    /// The next notification. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn next(&mut self) -> Result<Notification> {
        loop {
            match poll_fn(|context| self.connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(notification))) => return Ok(notification),
                Some(Ok(_)) => {}
                Some(Err(source)) => {
                    return Err(Error::Postgres {
                        operation: WAIT.into(),
                        source,
                    });
                }
                None => {
                    return Err(Error::Pool {
                        operation: WAIT.into(),
                        message: "the server closed the connection".into(),
                    });
                }
            }
        }
    }

    /// Asks the session whether it is there, and hands on what arrives meanwhile. False when another session
    /// than at first answered: a pooler is in between.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn ping(&mut self, receive: impl FnMut(Notification)) -> Result<bool> {
        let Self {
            client, connection, ..
        } = self;
        let asked = drive(connection, client.simple_query(WHO), receive);
        let answer = timeout(ANSWER, asked)
            .await
            .map_err(|_| Error::Timeout {
                operation: WAIT.into(),
                limit: ANSWER,
            })?
            .during(WAIT)?;
        Ok(primary::text(&answer, 0) == self.backend.as_deref())
    }
}

/// Does something with the client while the connection's messages are drained.
async fn drive<T>(
    connection: &mut Connection<Socket, TlsStream>,
    work: impl Future<Output = T>,
    mut receive: impl FnMut(Notification),
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(notification))) => receive(notification),
                Some(Ok(_)) => {}
                // The client learns of it too.
                Some(Err(_)) | None => return work.await,
            },
        }
    }
}
