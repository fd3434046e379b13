//! Giving a new tenant a spare: one round trip, see `migrations/control/0018_fewer_plans.sql`.

use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};

use super::registry::{Registry, Scope};
use crate::{
    error::{During, Result},
    pg::Connection,
};

/// How claims are made over a connection.
pub struct Claims<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// No pooler is in between: the statement is prepared, which saves a fifth of the time.
    pub prepared: bool,
    /// Where the tenants are.
    pub registry: &'a Registry,
    /// The released head's.
    pub digest: &'a str,
}

impl Claims<'_> {
    /// Gives a tenant a spare, in one round trip; the spare's name. `None`: there is none, or any doubt.
    ///
    /// # Errors
    /// When the server refuses; nothing was changed then.
    pub async fn claim(
        &self,
        id: Option<&str>,
        made: &str,
    ) -> Result<Option<String>, tokio_postgres::Error> {
        let sql = self.registry.render(
            "SELECT tenantd.spare_claim(r.{id}::text, {schema}, {name}, $1, $2) FROM {registry} r WHERE {filter} LIMIT 1",
            Scope::One,
        );
        let client = self.connection;
        let values: [&(dyn ToSql + Sync); 3] = [&self.digest, &made, &id];
        let rows = match self.prepared {
            false => {
                client
                    .query_typed(&sql, &values.map(|it| (it, Type::TEXT)))
                    .await
            }
            true => match ask(client, &sql, &values).await {
                // A message has cleaned the session, see `reconcile/message.rs`.
                Err(error) if error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
                    client.statement_cache.clear();
                    ask(client, &sql, &values).await
                }
                answer => answer,
            },
        };
        Ok(rows?.first().and_then(|row| row.get(0)))
    }

    /// A claim for nobody: whoever builds spares makes all others forget what they knew of the catalog, and the next
    /// claim on this connection shall not be the one that looks it up again.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn rehearse(&self) -> Result<()> {
        let what = "rehearse a claim";
        self.claim(None, "").await.during(what)?;
        // Made in no way that any spare was.
        let sql = "SELECT tenantd.spare_claim('', '', NULL, '', '')";
        self.connection.query_typed(sql, &[]).await.during(what)?;
        Ok(())
    }
}

/// By a statement that the session keeps.
async fn ask(
    client: &Connection,
    sql: &str,
    values: &[&(dyn ToSql + Sync); 3],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let claim = client
        .prepare_typed_cached(sql, &[Type::TEXT, Type::TEXT, Type::TEXT])
        .await?;
    client.query(&claim, values).await
}
