//! The daemons that run, by their heartbeats: so that a command can say that nobody will answer it, and so
//! that one of several leads.

use std::time::Duration;

use tokio_postgres::{Client, types::Type};

use super::rollout::Orders;
use crate::{
    error::{During, Result},
    failpoint,
};

/// How long a heartbeat counts.
pub const HEARTBEAT_COUNTS: Duration = Duration::from_secs(15);
/// How long a daemon leads without renewing it.
pub const LEASE: Duration = Duration::from_secs(10);
/// Above this the queue gets no notification of ours: when it is full, nobody can commit any more.
const QUEUE_LIMIT: f64 = 0.5;

const BEAT: &str = include_str!("beat.sql");
const EXPIRED: &str = " OR l.expires_at < pg_catalog.clock_timestamp()";

/// A daemon, as its heartbeats describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The host it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
    /// Digest of the head it has loaded; empty where only its name matters.
    pub head: String,
}

/// What a heartbeat brought back.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// Version of the control schema.
    pub control: i32,
    /// Whether the lease is ours.
    pub leads: bool,
    /// When the present lease ends if nobody renews it.
    pub lease_ends_in: Duration,
    /// How full the notification queue of the server is, from 0 to 1.
    pub queue_usage: f64,
    /// Whether we were notified of it.
    pub notified: bool,
    /// The versions that are stopped, by their digests, of whatever set.
    pub stopped: Vec<String>,
    /// Digest of the released head, and how the rollout is to go.
    pub orders: Orders,
    /// Whether another daemon that runs has loaded that.
    pub elsewhere: bool,
    /// Whether it goes on from ours.
    pub newer: bool,
}

/// Tells that this daemon runs, and takes the lead if it is free. `echo` is notified to ourselves.
///
/// # Errors
/// When the database does not answer.
pub async fn beat(client: &Client, own: &Instance, timeline: i32, echo: &str) -> Result<Beat> {
    let mut sql = BEAT.to_owned();
    if failpoint::off("lead.expiry") {
        sql = sql.replace(EXPIRED, "");
    }
    let rows = client
        .query_typed(
            &sql,
            &[
                (&own.id, Type::TEXT),
                (&own.host, Type::TEXT),
                (&own.pid, Type::INT4),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&own.head, Type::TEXT),
                (&timeline, Type::INT4),
                (&HEARTBEAT_COUNTS.as_secs_f64(), Type::FLOAT8),
                (&LEASE.as_secs_f64(), Type::FLOAT8),
                (&echo, Type::TEXT),
            ],
        )
        .await
        .during("write the heartbeat")?;
    let row = &rows[0];
    let queue_usage = row.get(3);
    Ok(Beat {
        control: row.get::<_, Option<i32>>(0).unwrap_or(0),
        leads: row.get(1),
        lease_ends_in: Duration::try_from_secs_f64(row.get(2)).unwrap_or_default(),
        queue_usage,
        notified: queue_usage < QUEUE_LIMIT,
        stopped: row.get(5),
        orders: Orders {
            head: row.get(6),
            max_rate: row.get::<_, Option<i32>>(9).map(i32::unsigned_abs),
            paused: row.get(10),
        },
        elsewhere: row.get(7),
        newer: row.get(8),
    })
}

/// Says which head this daemon is about to release, before it does.
///
/// # Errors
/// When the database does not answer.
pub async fn announce(client: &Client, own: &Instance) -> Result<()> {
    client
        .execute_typed(
            "INSERT INTO tenantd.instance (id, host, pid, version, head) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET heartbeat_at = pg_catalog.now(), head = excluded.head",
            &[
                (&own.id, Type::TEXT),
                (&own.host, Type::TEXT),
                (&own.pid, Type::INT4),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&own.head, Type::TEXT),
            ],
        )
        .await
        .during("announce this daemon")?;
    Ok(())
}

/// Tells that this daemon stops, and hands the lead over.
///
/// # Errors
/// When the database does not answer.
pub async fn sign_off(client: &Client, instance: &str) -> Result<()> {
    client
        .execute_typed(
            "WITH led AS (DELETE FROM tenantd.lead WHERE instance = $1)
             DELETE FROM tenantd.instance WHERE id = $1",
            &[(&instance, Type::TEXT)],
        )
        .await
        .during("sign off")?;
    Ok(())
}

/// The daemons whose heartbeat counts.
///
/// # Errors
/// When the database does not answer.
pub async fn running(client: &Client) -> Result<Vec<Instance>> {
    let rows = client
        .query_typed(
            "SELECT id, host, pid, coalesce(head, '') FROM tenantd.instance
             WHERE heartbeat_at > pg_catalog.now() - $1 * interval '1 second' ORDER BY started_at",
            &[(&HEARTBEAT_COUNTS.as_secs_f64(), Type::FLOAT8)],
        )
        .await
        .during("look for running daemons")?;
    Ok(rows
        .iter()
        .map(|r| Instance {
            id: r.get(0),
            host: r.get(1),
            pid: r.get(2),
            head: r.get(3),
        })
        .collect())
}
