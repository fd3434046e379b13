//! Notifications as a client receives them, each with the moment it came.

use std::{
    future::poll_fn,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::Outcome;

const LIMIT: Duration = Duration::from_secs(60);

/// A connection that listens.
pub(crate) struct Heard {
    /// The connection itself: it may be worked on too.
    pub(crate) client: Client,
    receiver: mpsc::UnboundedReceiver<(Instant, String)>,
}

impl Heard {
    /// Listens on this channel.
    pub(crate) async fn new(conninfo: &str, channel: &str) -> Outcome<Self> {
        let (client, mut connection) = tokio_postgres::connect(conninfo, NoTls).await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = sender.send((Instant::now(), notification.payload().to_owned()));
                }
            }
        });
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok(Self { client, receiver })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Outcome<(Instant, String)> {
        let heard = tokio::time::timeout(LIMIT, self.receiver.recv()).await;
        let heard = heard.map_err(|_| format!("nothing was notified within {LIMIT:?}"))?;
        heard.ok_or_else(|| "the listening connection was lost".into())
    }

    /// When this payload came.
    pub(crate) async fn payload(&mut self, wanted: &str) -> Outcome<Instant> {
        loop {
            let (at, payload) = self.next().await?;
            if payload == wanted {
                return Ok(at);
            }
        }
    }

    /// How many came until now: notifications come in order of their commits, so one of our own marks the end.
    pub(crate) async fn so_far(&mut self, channel: &str) -> Outcome<usize> {
        self.client
            .batch_execute(&format!("NOTIFY {channel}, 'the end'"))
            .await?;
        let mut count = 0;
        while self.next().await?.1 != "the end" {
            count += 1;
        }
        Ok(count)
    }
}
