//! One LISTEN connection: always drained, never in a transaction, and proven alive.
//!
//! A dead listener looks like a quiet one. So the connection sends itself a notification and waits for
//! it: the only check that a lost route, a frozen server, a session that stopped listening and a
//! transaction pooler all fail.

use std::{convert::Infallible, future::poll_fn, pin::pin, time::Duration};

use tokio::time::{Instant, interval_at, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};

use super::{
    conninfo::Target,
    ident::{Ident, Literal},
    tls::TlsStream,
};
use crate::{
    error::{During, Error, Result},
    failpoint,
};

/// How often the connection proves itself, and how long the proof may take.
pub const PULSE: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_secs(5);
const PULSE_CHANNEL: &str = "tenantd_pulse";

/// A session that listens.
pub struct Listener {
    client: Client,
    connection: Connection<Socket, TlsStream>,
    pulse: String,
}

impl Listener {
    /// Connects and listens on `channels`. What was sent before this returns may have been missed.
    ///
    /// # Errors
    /// When the server cannot be reached, is a standby, or refuses.
    pub async fn open(target: &Target, channels: &[&str], pulse: &str) -> Result<Self> {
        let mut config = target.config.clone();
        let name = config
            .get_application_name()
            .unwrap_or("tenantd")
            .to_owned();
        config.application_name(format!("{name}/listen"));
        let operation = || format!("listen on {target}");
        let limit = target.patience();
        let (client, connection) = timeout(limit, target.connect(&config))
            .await
            .map_err(|_| Error::Timeout {
                operation: operation(),
                limit,
            })?
            .during(operation())?;
        failpoint::pass("listener.connected").await?;
        let mut listener = Self {
            client,
            connection,
            pulse: pulse.to_owned(),
        };
        let sql: String = std::iter::once(&PULSE_CHANNEL)
            .chain(channels)
            .map(|channel| format!("LISTEN {};", Ident(channel)))
            .collect();
        timeout(START, listener.run(&sql, false, |_, _| {}))
            .await
            .map_err(|_| Error::Timeout {
                operation: operation(),
                limit: START,
            })?
            .during(operation())?;
        Ok(listener)
    }

    /// Hands every notification to `receive` until the connection fails or misses its own pulse.
    /// `alive` is called after each pulse that came back.
    ///
    /// # Errors
    /// Always, in the end: why the connection can no longer be trusted.
    pub async fn drain(
        mut self,
        mut receive: impl FnMut(&str, &str),
        mut alive: impl FnMut(),
    ) -> Result<Infallible> {
        const LOST: &str = "wait for notifications";
        let mut pulses = interval_at(Instant::now() + PULSE, PULSE);
        let notify = format!(
            "SELECT pg_catalog.pg_notify('{PULSE_CHANNEL}', {})",
            Literal(&self.pulse)
        );
        loop {
            tokio::select! {
                message = poll_fn(|cx| self.connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(n))) => receive(n.channel(), n.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(source)) => {
                        return Err(Error::Postgres { operation: LOST.into(), source });
                    }
                    None => return Err(Error::Refused(format!("{LOST}: the server closed the connection"))),
                },
                _ = pulses.tick(), if !failpoint::off("listener.pulse") => {
                    timeout(PULSE, self.run(&notify, true, &mut receive))
                        .await
                        .map_err(|_| Error::Refused(format!(
                            "{LOST}: our own notification did not come back within {PULSE:?}; if a \
                             transaction pooler is in between, set database.listen_url past it"
                        )))?
                        .during(LOST)?;
                    alive();
                }
            }
        }
    }

    /// Runs a statement while the connection's messages are drained; with `pulse`, until our own
    /// notification has come back too.
    async fn run(
        &mut self,
        sql: &str,
        mut pulse: bool,
        mut receive: impl FnMut(&str, &str),
    ) -> Result<(), tokio_postgres::Error> {
        let mut answered = false;
        let mut statement = pin!(self.client.simple_query(sql));
        while !answered || pulse {
            tokio::select! {
                result = &mut statement, if !answered => {
                    result?;
                    answered = true;
                }
                message = poll_fn(|cx| self.connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(n))) if n.channel() == PULSE_CHANNEL => {
                        pulse &= n.payload() != self.pulse;
                    }
                    Some(Ok(AsyncMessage::Notification(n))) => receive(n.channel(), n.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None if answered => return Ok(()),
                    None => return statement.await.map(drop),
                },
            }
        }
        Ok(())
    }
}
