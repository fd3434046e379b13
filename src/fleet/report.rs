//! One report of the fleet, for `status`, for `/status` and for people.

use serde::Serialize;
use tokio_postgres::Client;

use super::{
    breaker::{self, Stopped},
    census::{Census, Counts, Release, Which},
    gaps, instances,
    load::Load,
    rollout::Progress,
    spare,
    state::{Group, State},
    tenant::Tenant,
    verify,
};
use crate::{config, error::Result};

/// Version of the JSON form. Fields are added without a new one; a change of meaning raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// Tenants that need a person and are listed without being asked for.
const ATTENTION: usize = 100;

/// The fleet, or part of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The database's name in the configuration.
    pub database: String,
    /// The released head.
    pub head: String,
    /// The numbers.
    pub counts: Counts,
    /// Tenants whose catalog differed from a fresh schema's when they were last verified.
    pub drifted: i64,
    /// Tenants with fewer rows in `tenantd.applied` than files.
    pub unrecorded: i64,
    /// Tenants that need a person, the first hundred.
    pub attention: Vec<TenantReport>,
    /// Whether there are more of them.
    pub attention_truncated: bool,
    /// The tenants that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<TenantReport>>,
    /// How a rollout goes.
    pub rollout: Progress,
    /// Versions that are stopped because they failed on too many tenants.
    pub stopped: Vec<Stopped>,
    /// Schemas migrated ahead of need; they belong to no tenant and are in none of the numbers.
    pub spares: spare::Numbers,
    /// Daemons that run.
    pub daemons: Vec<String>,
}

/// One tenant, as people and scripts see it.
#[derive(Debug, Clone, Serialize)]
pub struct TenantReport {
    /// The registry's id.
    pub id: String,
    /// The registry's name.
    pub name: Option<String>,
    /// The schema it should have.
    pub schema: String,
    /// Its state.
    pub state: State,
    /// The last version the ledger knows.
    pub version: Option<String>,
    /// Files that are pending, where that can be said.
    pub pending: Option<usize>,
    /// The last error.
    pub error: Option<String>,
    /// Its SQLSTATE.
    pub sqlstate: Option<String>,
    /// When it happened (UTC).
    pub error_at: Option<String>,
    /// Attempts since the last success.
    pub attempts: u32,
    /// Seconds to the next attempt by itself.
    pub next_attempt_in_seconds: Option<f64>,
    /// When the schema was last migrated (UTC).
    pub migrated_at: Option<String>,
    /// What to do next.
    pub next: String,
}

/// Which tenants a report lists.
#[derive(Debug, Clone, Copy)]
pub enum Listed<'a> {
    /// Only those that need a person.
    Attention,
    /// Every tenant.
    All,
    /// These, by id or schema.
    Named(&'a [&'a str]),
}

impl TenantReport {
    /// Reports one tenant.
    pub fn new(tenant: &Tenant, release: &Release) -> Self {
        Self {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            schema: tenant.schema.clone(),
            state: tenant.state,
            version: tenant.version.clone(),
            pending: tenant.pending(release),
            error: tenant.error.clone(),
            sqlstate: tenant.sqlstate.clone(),
            error_at: tenant.error_at.clone(),
            attempts: tenant.attempts,
            next_attempt_in_seconds: tenant
                .next_in
                .filter(|_| tenant.state.waits())
                .map(|d| d.as_secs_f64()),
            migrated_at: tenant.migrated_at.clone(),
            next: tenant.advice(),
        }
    }
}

impl Report {
    /// Asks the database; `keep`: how many spares are to be kept.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn gather(
        client: &Client,
        census: &Census,
        release: &Release,
        database: &str,
        rollout: &config::Rollout,
        listed: Listed<'_>,
        keep: u32,
    ) -> Result<Self> {
        let needy: Vec<State> = State::ALL
            .iter()
            .copied()
            .filter(|state| state.group() == Group::NeedsPerson)
            .collect();
        let which = match listed {
            Listed::All => Which::All,
            _ => Which::In(&needy),
        };
        let report = |tenant: &Tenant| TenantReport::new(tenant, release);
        let (mut counts, mut attention, mut tenants) = (Counts::new(), Vec::new(), None);
        let mut after = None;
        loop {
            let window = census.window(client, which, after.as_deref()).await?;
            counts += window.counts;
            let is_needy = |tenant: &&Tenant| tenant.state.group() == Group::NeedsPerson;
            // One more than is shown tells that there are more.
            let room = ATTENTION + 1 - attention.len();
            attention.extend(
                window
                    .tenants
                    .iter()
                    .filter(is_needy)
                    .take(room)
                    .map(report),
            );
            if let Listed::All = listed {
                tenants
                    .get_or_insert_with(Vec::new)
                    .extend(window.tenants.iter().map(report));
            }
            after = window.next;
            if after.is_none() {
                break;
            }
        }
        if let Listed::Named(names) = listed {
            tenants = Some(
                census
                    .find(client, names)
                    .await?
                    .iter()
                    .map(report)
                    .collect(),
            );
        }
        let attention_truncated = attention.len() > ATTENTION;
        attention.truncate(ATTENTION);
        let stopped = breaker::stopped(client, release).await?;
        let load = Load::measure(client, rollout).await?;
        let brake = load.too_much(rollout, false).map(|too_much| too_much.text);
        let daemons = instances::running(client).await?;
        let mut rollout = Progress::ask(client, release, rollout, Some(&counts)).await?;
        rollout.brake = brake;
        let drifted = verify::drifted(client).await?;
        let unrecorded = gaps::unrecorded(client, release).await?.tenants;
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            database: database.to_owned(),
            head: release.head().version.clone(),
            counts,
            drifted,
            unrecorded,
            attention,
            attention_truncated,
            tenants,
            rollout,
            stopped,
            spares: spare::numbers(client, release, keep).await?,
            daemons: daemons
                .iter()
                .map(|d| format!("{} (process {})", d.host, d.pid))
                .collect(),
        })
    }
}
