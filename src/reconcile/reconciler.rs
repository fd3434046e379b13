//! The one reconcile path: look at the ledger, plan, apply, record. Events, sweeps, retries and
//! commands all end here; what to do is always read from the database, never carried by the wakeup.

mod bring;

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio_postgres::types::Type;
use tracing::{debug, warn};

use super::{
    brake::BrakeReason, breaker::Tally, causes::Causes, queue::Reason, runner::Runner,
    running::Running,
};
use crate::{
    config::{LostPolicy, Retry},
    error::{During, Result},
    failpoint,
    fleet::{Census, Group, Registry, Release, State, Tenant, ledger, lost},
    metrics::ReconcileOutcome,
    migrations::Plan,
    pg::{Connection, Pool},
};

/// What is loaded: a release and the questions that fit it. Replaced as a whole on reload.
#[derive(Debug)]
pub struct Loaded {
    /// The set and its released head.
    pub release: Release,
    /// The census against it.
    pub census: Census,
    /// What succeeded since it was loaded.
    pub tally: Tally,
}

impl Loaded {
    /// A release with the census that compares with it.
    pub fn new(registry: Registry, release: Release) -> Arc<Self> {
        Arc::new(Self {
            census: Census::new(registry, &release),
            tally: Tally::new(release.set.files().len()),
            release,
        })
    }
}

/// Limits of one apply.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Attempts and backoff.
    pub retry: Retry,
    /// Longest wait for a table lock.
    pub lock_timeout: Duration,
    /// Longest a file may keep a strong lock on an existing table, unless its marker says otherwise.
    pub max_hold: Duration,
    /// What to do with lost schemas.
    pub lost: LostPolicy,
}

/// On whose behalf a tenant is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// An event, a sweep, a command about all tenants.
    Fleet,
    /// A person who named this tenant.
    Person,
}

/// What one run did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In one word.
    pub kind: ReconcileOutcome,
    /// The tenant as it was seen; `None` when the registry has no such row.
    pub tenant: Option<Tenant>,
    /// Files applied and committed.
    pub applied: usize,
    /// The version the schema is at afterwards.
    pub version: Option<String>,
    /// What went wrong or is in the way, with the next command.
    pub message: Option<String>,
    /// When to look again.
    pub retry_in: Option<Duration>,
    /// It failed because the server is in trouble; the ledger was not told.
    pub trouble: Option<BrakeReason>,
    /// Its failure stopped a version for the whole fleet.
    pub tripped: bool,
    /// How long it took.
    pub took: Duration,
}

/// Brings single tenants to head.
pub struct Reconciler {
    pool: Pool,
    runner: Arc<dyn Runner>,
    loaded: RwLock<Arc<Loaded>>,
    limits: Limits,
    running: Running,
    causes: Causes,
}

impl Reconciler {
    /// A reconciler over these connections.
    pub fn new(pool: Pool, runner: Arc<dyn Runner>, loaded: Arc<Loaded>, limits: Limits) -> Self {
        Self {
            pool,
            runner,
            loaded: RwLock::new(loaded),
            limits,
            running: Running::default(),
            causes: Causes::default(),
        }
    }

    /// What is loaded now. A run keeps what it started with.
    pub fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(
            &self
                .loaded
                .read()
                .expect("no code panics while it holds this lock"),
        )
    }

    /// Replaces what is loaded.
    pub fn load(&self, loaded: Arc<Loaded>) {
        *self
            .loaded
            .write()
            .expect("no code panics while it holds this lock") = loaded;
    }

    /// The connections it works on.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Asks the server to cancel every apply that runs, because the daemon stops; how many there were.
    pub async fn cancel(&self) -> usize {
        self.running.cancel().await
    }

    /// How many applies run.
    pub fn applying(&self) -> usize {
        self.running.count()
    }

    /// Whether lost schemas are built again without a person's word.
    pub fn rebuilds_lost(&self) -> bool {
        self.limits.lost == LostPolicy::Rebuild
    }

    /// What would be done to a tenant.
    pub fn plan(&self, loaded: &Loaded, tenant: &Tenant) -> Plan {
        self.runner.plan(&loaded.release, tenant)
    }

    /// Brings one tenant to head, if it is for us to do.
    ///
    /// # Errors
    /// When the database cannot be asked; a migration that fails is an outcome, not an error.
    pub async fn reconcile(&self, id: &str, reason: Reason) -> Result<Outcome> {
        self.look(id, reason, Asker::Fleet).await
    }

    /// As [`Self::reconcile`], because a person named this very tenant: a stopped version is tried on it,
    /// and what becomes of that says nothing about the fleet.
    ///
    /// # Errors
    /// As there.
    pub async fn by_hand(&self, id: &str) -> Result<Outcome> {
        self.look(id, Reason::Manual, Asker::Person).await
    }

    #[tracing::instrument(level = "debug", name = "reconcile", skip_all, fields(tenant.id = id, %reason))]
    async fn look(&self, id: &str, reason: Reason, asker: Asker) -> Result<Outcome> {
        let start = Instant::now();
        let loaded = self.loaded();
        let connection = self.pool.get().await?;
        let Some(tenant) = loaded.census.tenant(&connection, id).await? else {
            debug!("no such tenant in the registry");
            return Ok(Outcome::without_tenant(start));
        };
        failpoint::pass("reconcile.looked").await?;
        let done = |kind, message: Option<String>| Outcome {
            kind,
            applied: 0,
            version: tenant.version.clone(),
            message,
            retry_in: None,
            trouble: None,
            tripped: false,
            took: start.elapsed(),
            tenant: Some(tenant.clone()),
        };
        match tenant.state {
            State::Current => {
                self.settle(&connection, &tenant, reason).await?;
                return Ok(done(ReconcileOutcome::Current, None));
            }
            State::Ahead => {
                ledger::note(&connection, std::slice::from_ref(&tenant)).await?;
                return Ok(done(ReconcileOutcome::Current, None));
            }
            State::Lost if self.limits.lost == LostPolicy::Rebuild => {
                drop(connection);
                return Box::pin(self.rebuild(&tenant, reason)).await;
            }
            state if state.group() == Group::NeedsPerson => {
                ledger::note(&connection, std::slice::from_ref(&tenant)).await?;
                return Ok(done(ReconcileOutcome::LeftAlone, Some(tenant.advice())));
            }
            _ if asker == Asker::Fleet && tenant.stopped.is_some() => {
                return Ok(done(ReconcileOutcome::Waiting, tenant.waits_for_release()));
            }
            state if state.waits() && !due(&tenant, reason) => {
                let mut outcome = done(ReconcileOutcome::Waiting, tenant.error.clone());
                outcome.retry_in = tenant.next_in;
                return Ok(outcome);
            }
            _ => {}
        }
        self.bring(connection, &loaded, tenant, (reason, asker), start)
            .await
    }

    /// Sets the remains of a lost schema aside and builds the tenant anew.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn rebuild(&self, tenant: &Tenant, reason: Reason) -> Result<Outcome> {
        let mut connection = self.pool.get().await?;
        let remains = lost::set_aside(&mut connection, tenant).await?;
        drop(connection);
        warn!(
            tenant.schema = tenant.schema,
            remains,
            "schema {} was lost and is built again; what was left of it is kept",
            tenant.schema
        );
        self.reconcile(&tenant.id, reason).await
    }

    /// A tenant that is current: notes it where the ledger says otherwise, and tells who waits.
    async fn settle(&self, connection: &Connection, tenant: &Tenant, reason: Reason) -> Result<()> {
        if tenant.known_state.as_deref() != Some(State::Current.as_str()) {
            ledger::note(connection, std::slice::from_ref(tenant)).await?;
        }
        if reason.is_event() {
            connection
                .execute_typed(
                    "WITH caught_up AS (
                         DELETE FROM tenantd.behind b USING tenantd.tenant t, tenantd.head h
                         WHERE b.tenant_id = $1 AND t.tenant_id = b.tenant_id AND t.digest = h.digest
                     )
                     SELECT pg_catalog.pg_notify('tenant_ready', $1)
                                WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
                    &[(&tenant.id, Type::TEXT)],
                )
                .await
                .during(format!("tell that tenant {} is ready", tenant.id))?;
        }
        Ok(())
    }
}

/// Whether a tenant that failed before may be tried now. A login spends no attempt.
fn due(tenant: &Tenant, reason: Reason) -> bool {
    match reason {
        Reason::Manual => true,
        Reason::Login => false,
        Reason::Insert | Reason::Retry | Reason::Sweep => tenant
            .next_in
            .is_none_or(|delay| delay < Duration::from_millis(50)),
    }
}

impl Outcome {
    fn without_tenant(start: Instant) -> Self {
        Self {
            kind: ReconcileOutcome::Gone,
            tenant: None,
            applied: 0,
            version: None,
            message: None,
            retry_in: None,
            trouble: None,
            tripped: false,
            took: start.elapsed(),
        }
    }
}
