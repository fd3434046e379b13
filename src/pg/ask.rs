//! Questions with a bound: a server that is frozen answers nothing, and says nothing of it either.

use std::time::Duration;

use tokio::time::timeout;

use super::pool::{Connection, Held, Pool};
use crate::error::{Error, Result};

impl Pool {
    /// Asks something on a connection, all within `limit`. A connection that gave no answer is closed: the
    /// question may still be under way on it.
    ///
    /// # Errors
    /// [`Error::Timeout`] that names `what`; else as the question.
    pub async fn ask<T>(
        &self,
        what: &str,
        limit: Duration,
        question: impl AsyncFnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let asked = async {
            let mut connection = Held::new(self.get().await?);
            let answer = question(&mut connection).await;
            drop(connection.release());
            answer
        };
        timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(Error::Timeout {
                operation: what.to_owned(),
                limit,
            })
        })
    }
}
