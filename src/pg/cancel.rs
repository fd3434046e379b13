//! Cancelling what a connection does.

use tokio_postgres::{CancelToken, Error};

use super::tls::Tls;

/// Asks the server to cancel what one connection does, with the TLS settings of that connection: a cancel is
/// a connection of its own.
#[derive(Clone)]
pub struct Cancel {
    token: CancelToken,
    tls: Tls,
}

impl Cancel {
    pub(super) fn new(token: CancelToken, tls: Tls) -> Self {
        Self { token, tls }
    }

    /// Asks once. The caller bounds the wait.
    ///
    /// # Errors
    /// When the server cannot be reached. It never says whether there was anything to cancel.
    pub async fn send(&self) -> Result<(), Error> {
        self.token.cancel_query(self.tls.clone()).await
    }
}
