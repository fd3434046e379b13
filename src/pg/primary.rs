//! Which server answered: one that may be written, and the one that was seen before.
//!
//! A failover changes the server behind an address. Three of the ways it can go wrong are seen here, on each
//! new connection: a standby, an old primary that nobody told, and another system altogether.

use std::sync::Mutex;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::{
    error::{Error, Result},
    failpoint,
};

/// What tells one server from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Given by initdb; standbys and physical copies share it.
    pub system: i64,
    /// Counted up by each promotion.
    pub timeline: i32,
}

/// What one look at a server found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    standby: bool,
    read_only: bool,
    /// Unknown on a standby, and where the server does not tell (some that are managed by others).
    pub identity: Option<Identity>,
}

/// Looks at the server of a connection.
///
/// # Errors
/// When it does not answer.
pub async fn look(client: &Client) -> Result<Look, tokio_postgres::Error> {
    let role = client
        .simple_query(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')",
        )
        .await?;
    let mut look = Look {
        standby: text(&role, 0) == Some("t"),
        read_only: text(&role, 1) == Some("on"),
        identity: None,
    };
    if look.standby {
        return Ok(look);
    }
    let identity = client
        .simple_query(
            "SELECT system_identifier, ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(
                        pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int
             FROM pg_catalog.pg_control_system()",
        )
        .await;
    look.identity = match identity {
        Ok(rows) => parse(&rows),
        Err(error) if error.as_db_error().is_some() => None,
        Err(error) => return Err(error),
    };
    Ok(look)
}

/// Who may keep the server's notification queue from being emptied, in words.
///
/// # Errors
/// When the server does not answer.
pub async fn blocks_the_queue(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let rows = client
        .simple_query(include_str!("blocks_the_queue.sql"))
        .await?;
    Ok(text(&rows, 0).map(ToOwned::to_owned))
}

fn parse(rows: &[SimpleQueryMessage]) -> Option<Identity> {
    Some(Identity {
        system: text(rows, 0)?.parse().ok()?,
        timeline: text(rows, 1)?.parse().ok()?,
    })
}

/// A column of the first row.
pub(super) fn text(rows: &[SimpleQueryMessage], column: usize) -> Option<&str> {
    let first = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    first.and_then(|row: &SimpleQueryRow| row.get(column))
}

/// The server that the connections to one database have seen so far.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Option<Identity>>);

impl Seen {
    /// The newest identity that was admitted.
    pub fn identity(&self) -> Option<Identity> {
        *self
            .0
            .lock()
            .expect("no code panics while it holds this lock")
    }

    /// Lets a connection to `target` pass, and remembers its server; or says why not.
    ///
    /// # Errors
    /// [`Error::WrongServer`] for a standby, a read-only session, another system, an older timeline.
    pub fn admit(&self, target: &str, look: Look) -> Result<()> {
        let refuse = |why: String| Err(Error::WrongServer(format!("connect to {target}: {why}")));
        if look.standby && !failpoint::off("primary.standby") {
            return refuse(
                "this server is a standby (in recovery); name the primary, or all hosts".into(),
            );
        }
        if look.read_only {
            return refuse("its sessions are read-only (default_transaction_read_only)".into());
        }
        let Some(now) = look.identity else {
            return Ok(());
        };
        let mut seen = self
            .0
            .lock()
            .expect("no code panics while it holds this lock");
        match *seen {
            Some(before) if before.system != now.system => refuse(format!(
                "this is another server: system identifier {}, expected {}; if that is meant, run `tenantd install` \
                 on it and restart tenantd",
                now.system, before.system
            )),
            Some(before)
                if before.timeline > now.timeline && !failpoint::off("primary.timeline") =>
            {
                refuse(format!(
                    "this server is on timeline {}, and timeline {} was seen already: an old primary that a failover \
                 left behind; shut it down",
                    now.timeline, before.timeline
                ))
            }
            _ => {
                *seen = Some(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(system: i64, timeline: i32) -> Look {
        Look {
            standby: false,
            read_only: false,
            identity: Some(Identity { system, timeline }),
        }
    }

    #[test]
    fn only_a_writable_server_of_the_same_system_that_is_not_older_passes() {
        let seen = Seen::default();
        let said = |look| seen.admit("host=x", look).unwrap_err().to_string();
        let standby = Look {
            standby: true,
            ..at(1, 1)
        };
        assert!(said(standby).contains("is a standby"));
        let read_only = Look {
            read_only: true,
            ..at(1, 1)
        };
        assert!(said(read_only).contains("read-only"));
        assert_eq!(seen.identity(), None, "what is refused is not remembered");
        seen.admit("", at(1, 2)).unwrap();
        seen.admit("", at(1, 3)).unwrap();
        assert!(said(at(1, 2)).contains("timeline 2, and timeline 3"));
        assert!(said(at(2, 9)).contains("another server"));
        let silent = Look {
            identity: None,
            ..at(0, 0)
        };
        seen.admit("", silent).unwrap();
        assert_eq!(seen.identity().unwrap().timeline, 3);
    }
}
