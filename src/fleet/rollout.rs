//! What people tell all daemons about a rollout, and how far it is. Kept in the ledger, so every daemon and
//! every command obeys it, also after a restart.

use serde::Serialize;
use tokio_postgres::{Client, Row, types::Type};

use super::census::{Counts, Release};
use crate::{
    config,
    error::{During, Result},
    fleet::Group,
};

/// Since when, by whom and why no schema is migrated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Paused {
    /// When it was paused (UTC).
    pub since: String,
    /// By whom.
    pub by: String,
    /// Why, if that was said.
    pub why: Option<String>,
}

impl Paused {
    fn from_row(row: &Row, first: usize) -> Option<Self> {
        Some(Self {
            since: row.get::<_, Option<String>>(first)?,
            by: row.get::<_, Option<String>>(first + 1).unwrap_or_default(),
            why: row.get(first + 2),
        })
    }

    /// In words.
    pub fn sentence(&self) -> String {
        let why = self.why.as_deref().unwrap_or("no reason given");
        format!("paused by {} at {}: {why}", self.by, self.since)
    }
}

/// What a daemon looks at again and again: what is released, how fast it goes, whether it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Digest of the released head.
    pub head: Option<String>,
    /// Tenants a second; `None`: as configured.
    pub max_rate: Option<u32>,
    /// Whether the fleet is paused.
    pub paused: bool,
}

/// Asks for the orders.
///
/// # Errors
/// When the database does not answer.
pub async fn orders(client: &Client) -> Result<Orders> {
    let rows = client
        .query_typed(
            "SELECT (SELECT h.digest FROM tenantd.head h), (SELECT r.max_rate FROM tenantd.rollout r),
                    EXISTS (SELECT FROM tenantd.rollout r WHERE r.paused_at IS NOT NULL)",
            &[],
        )
        .await
        .during("ask how the rollout is to go")?;
    Ok(Orders {
        head: rows[0].get(0),
        max_rate: rows[0].get::<_, Option<i32>>(1).map(i32::unsigned_abs),
        paused: rows[0].get(2),
    })
}

/// Pauses the fleet. The pause that holds already, if there is one: it stays.
///
/// # Errors
/// When the database does not answer.
pub async fn pause(client: &Client, by: &str, why: Option<&str>) -> Result<Option<Paused>> {
    let what = "pause the fleet";
    let changed = client
        .execute_typed(
            "INSERT INTO tenantd.rollout AS r (paused_at, paused_by, paused_why)
             VALUES (pg_catalog.clock_timestamp(), $1, $2)
             ON CONFLICT (one) DO UPDATE SET paused_at = excluded.paused_at, paused_by = excluded.paused_by,
                                             paused_why = excluded.paused_why
             WHERE r.paused_at IS NULL",
            &[(&by, Type::TEXT), (&why, Type::TEXT)],
        )
        .await
        .during(what)?;
    if changed > 0 {
        return Ok(None);
    }
    let rows = client
        .query_typed(
            "SELECT pg_catalog.to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), paused_by, paused_why
             FROM tenantd.rollout",
            &[],
        )
        .await
        .during(what)?;
    Ok(rows.first().and_then(|row| Paused::from_row(row, 0)))
}

/// Ends the pause; whether there was one.
///
/// # Errors
/// When the database does not answer.
pub async fn resume(client: &Client) -> Result<bool> {
    let changed = client
        .execute_typed(
            "UPDATE tenantd.rollout SET paused_at = NULL, paused_by = NULL, paused_why = NULL
             WHERE paused_at IS NOT NULL",
            &[],
        )
        .await
        .during("resume the fleet")?;
    Ok(changed > 0)
}

/// Sets the rate of the fleet; `None`: as each daemon is configured.
///
/// # Errors
/// When the database does not answer.
pub async fn set_max_rate(client: &Client, max_rate: Option<u32>) -> Result<()> {
    let max_rate = max_rate.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX));
    client
        .execute_typed(
            "INSERT INTO tenantd.rollout (max_rate) VALUES ($1)
             ON CONFLICT (one) DO UPDATE SET max_rate = excluded.max_rate",
            &[(&max_rate, Type::INT4)],
        )
        .await
        .during("set the rate of the fleet")?;
    Ok(())
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The last version of the loaded set.
    pub loaded: String,
    /// The version that is released to the fleet; none before the first set was.
    pub released: Option<String>,
    /// Whether a loaded set is released at once or by a person.
    pub mode: config::RolloutMode,
    /// The pause, if there is one.
    pub paused: Option<Paused>,
    /// Tenants that are still to be brought to head.
    pub pending: i64,
    /// Tenants brought forward a second, by all daemons, over the last ten seconds.
    pub rate: f64,
    /// Seconds that the rest takes at this rate; none where nothing moves.
    pub eta_seconds: Option<f64>,
    /// Tenants a second that a rollout may touch; 0: no limit.
    pub max_rate: u32,
    /// Why a rollout stands back, by the limits of this configuration.
    pub brake: Option<String>,
}

impl Progress {
    /// Asks the ledger. Where the census has just counted, its numbers are the better ones.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ask(
        client: &Client,
        release: &Release,
        configured: &config::Rollout,
        counts: Option<&Counts>,
    ) -> Result<Self> {
        let rows = client
            .query_typed(include_str!("progress.sql"), &[])
            .await
            .during("ask how far the rollout is")?;
        let row = &rows[0];
        let healing = |counts: &Counts| -> i64 {
            let healing = counts.by_state.iter();
            healing
                .filter(|(state, _)| state.group() == Group::Healing)
                .map(|(_, count)| count)
                .sum()
        };
        let pending = counts.map_or_else(|| row.get(0), healing);
        let rate: f64 = row.get(1);
        #[expect(clippy::cast_precision_loss, reason = "seconds to go, for people")]
        let eta = (rate > 0.0).then(|| pending as f64 / rate);
        let max_rate: Option<i32> = row.get(3);
        Ok(Self {
            loaded: release.set.head().version.clone(),
            released: row.get(2),
            mode: configured.mode,
            paused: Paused::from_row(row, 4),
            pending,
            rate,
            eta_seconds: if pending == 0 { Some(0.0) } else { eta },
            max_rate: max_rate.map_or(configured.max_rate, i32::unsigned_abs),
            brake: None,
        })
    }
}
