//! The server that the ledger belongs to: a database that was copied elsewhere does not work there unasked.

use tokio_postgres::{Client, types::Type};

use crate::{
    error::{During, Error, Result},
    pg::primary::{self, Identity, Seen},
};

/// Compares the ledger's server with the one that was connected to, and notes a promotion.
///
/// # Errors
/// When the ledger names another server or a newer timeline, or the database does not answer.
pub async fn admit(client: &Client, seen: &Seen) -> Result<()> {
    let Some(now) = seen.identity() else {
        return Ok(());
    };
    let known = note(client, now, false).await?;
    if known.system != now.system {
        return Err(Error::WrongServer(format!(
            "this database was copied from another server: the ledger belongs to system identifier {}, this one is {}; \
             if tenantd is to work here, run `tenantd install`",
            known.system, now.system
        )));
    }
    if known.timeline > now.timeline {
        return Err(Error::WrongServer(format!(
            "the ledger has seen timeline {} of this server, which is on timeline {}; if it was set back on purpose, \
             run `tenantd install`",
            known.timeline, now.timeline
        )));
    }
    Ok(())
}

/// Makes the connected server the ledger's, on a person's word. Whether it was another one before.
///
/// # Errors
/// When the database does not answer.
pub async fn accept(client: &Client) -> Result<bool> {
    let looked = primary::look(client).await.during("look at the server")?;
    let Some(now) = looked.identity else {
        return Ok(false);
    };
    let before = note(client, now, false).await?;
    let other = before.system != now.system || before.timeline > now.timeline;
    if other {
        note(client, now, true).await?;
    }
    Ok(other)
}

/// The ledger's server. It follows `now` to a newer timeline, and with `force` anywhere.
async fn note(client: &Client, now: Identity, force: bool) -> Result<Identity> {
    let what = "note the server in the ledger";
    client
        .execute_typed(
            "INSERT INTO tenantd.server AS s (system_identifier, timeline) VALUES ($1, $2)
             ON CONFLICT (one) DO UPDATE
             SET system_identifier = excluded.system_identifier, timeline = excluded.timeline
             WHERE $3 OR s.system_identifier = excluded.system_identifier AND s.timeline < excluded.timeline",
            &[
                (&now.system, Type::INT8),
                (&now.timeline, Type::INT4),
                (&force, Type::BOOL),
            ],
        )
        .await
        .during(what)?;
    let rows = client
        .query_typed(
            "SELECT system_identifier, timeline FROM tenantd.server",
            &[],
        )
        .await
        .during(what)?;
    let known = rows.first().map(|row| Identity {
        system: row.get(0),
        timeline: row.get(1),
    });
    Ok(known.unwrap_or(now))
}
