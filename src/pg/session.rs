//! The settings of a working session, and what they tell: whether it is a session of our own.

use tokio_postgres::Client;

use crate::{
    error::{During, Result},
    failpoint,
};

/// What a session of ours looks names up in, unless it says otherwise for a transaction: nothing that a tenant's or
/// the application's role may plant. An operator in `public` for the very types of an expression would win over the
/// built-in one that needs a cast, and run as us. A pooler that takes no options leaves us with the role's own.
pub const LOOKS_IN: &str = "pg_catalog,pg_temp";

/// Settings of every working session, as start-up options: they outlive a `RESET ALL`.
/// `jit` costs a census tens of milliseconds and gains nothing; the other two let the server end
/// what a dead client left behind. A pooler that takes no options does that itself.
const SESSION: &str =
    "-c jit=off -c idle_in_transaction_session_timeout=30s -c client_connection_check_interval=5s";
const UNCHECKED: &str = "-c jit=off -c idle_in_transaction_session_timeout=30s";

/// The start-up options of a session: the operator's, ours, and settings by name.
pub(super) struct Options {
    pub(super) text: String,
    /// The operator asked for some, which are never left out.
    pub(super) needed: bool,
}

impl Options {
    pub(super) fn new<'a>(
        own: Option<&str>,
        settings: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let session = match failpoint::off("pool.client-check") {
            true => UNCHECKED,
            false => SESSION,
        };
        let mut needed = own.is_some();
        let own = own.unwrap_or_default();
        let mut text = format!("-c search_path={LOOKS_IN} {own} {session}");
        for (key, value) in settings {
            needed = true;
            text.push_str(&format!(" -c {key}={}", escape(value)));
        }
        Self { text, needed }
    }
}

/// What is to be known of a session before it is worked in.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// Whatever is sent is done by one process of the server, at once, and it does nothing for others: no pooler is in
    /// between. A pooler connects by itself, so our start-up options do not reach the server: it refuses them, leaves
    /// them out, or sets them later.
    pub own: bool,
    /// pg_stat_statements counts each `SET`, with an entry for each value.
    pub counts_settings: bool,
}

impl Session {
    /// Asks the server.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(client: &Client) -> Result<Self> {
        let rows = client
            .query_typed(
                "SELECT source = 'client', coalesce(pg_catalog.current_setting('pg_stat_statements.track_utility', true), 'off') <> 'off'
                 FROM pg_catalog.pg_settings WHERE name = 'idle_in_transaction_session_timeout'",
                &[],
            )
            .await
            .during("look for a pooler")?;
        let row = rows.first();
        Ok(Self {
            own: row.is_some_and(|row| row.get(0)),
            counts_settings: row.is_some_and(|row| row.get(1)),
        })
    }
}

/// A value in the `options` start-up parameter: blanks and backslashes escaped.
fn escape(value: &str) -> String {
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
        assert_eq!(escape("a b\\c"), "a\\ b\\\\c");
    }
}
