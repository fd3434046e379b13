//! Sends one apply message and says how far it came.

use futures::{TryStreamExt as _, pin_mut};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::message::Message;

/// An apply that ended early. What was committed stays committed, and recorded.
#[derive(Debug)]
pub struct ApplyError {
    /// The driver's error.
    pub source: tokio_postgres::Error,
    /// Ordinal of the last file whose transaction committed before.
    pub committed: Option<usize>,
    /// The file (ordinal) and the line that failed, where it was a file's.
    pub place: Option<(usize, usize)>,
    /// The statement ran in no transaction, under its own deadline.
    pub alone: bool,
}

impl ApplyError {
    /// An error of a statement of ours.
    pub(super) fn without_place(source: tokio_postgres::Error) -> Self {
        Self {
            source,
            committed: None,
            place: None,
            alone: false,
        }
    }
}

/// Sends the message; success means every transaction in it committed.
///
/// # Errors
/// At the first statement that fails; the session is then in a failed transaction or gone.
pub async fn apply(client: &Client, message: &Message) -> Result<(), ApplyError> {
    let (answered, result) = send(client, &message.sql).await;
    result.map_err(|source| {
        let position = source.as_db_error().and_then(|error| error.position());
        ApplyError {
            committed: message.committed(answered),
            place: message.locate(position, answered),
            alone: false,
            source,
        }
    })
}

/// Sends statements as one simple query: how many were answered, and the error of the one that was not.
pub(super) async fn send(client: &Client, sql: &str) -> (usize, Result<(), tokio_postgres::Error>) {
    let mut answered = 0;
    let sent = async {
        let stream = client.simple_query_raw(sql).await?;
        pin_mut!(stream);
        while let Some(reply) = stream.try_next().await? {
            if let SimpleQueryMessage::CommandComplete(_) = reply {
                answered += 1;
            }
        }
        Ok(())
    };
    let result = sent.await;
    (answered, result)
}
