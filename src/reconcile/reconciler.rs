//! The one reconcile path: look at the ledger, plan, apply, record. Events, sweeps, retries and
//! commands all end here; what to do is always read from the database, never carried by the wakeup.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio_postgres::{error::SqlState, types::Type};
use tracing::{debug, info, warn};

use super::{
    brake::BrakeReason, breaker::Tally, causes::Causes, disposition, failure::Failed,
    message::Envelope, queue::Reason, runner::Runner, running::Running, watch,
};
use crate::{
    config::{LostPolicy, Retry},
    error::{During, Result},
    failpoint,
    fleet::{Census, Group, Registry, Release, State, Tenant, ledger, lost},
    metrics::ReconcileOutcome,
    migrations::{Plan, Step},
    pg::{
        Connection, Pool,
        pool::{self, Held},
    },
};

/// Tenants a working connection serves before it is replaced: each leaves a few hundred kilobytes of
/// catalog cache behind in its server process.
const TENANTS_PER_CONNECTION: usize = 250;
const ROLLBACK: Duration = Duration::from_secs(5);

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
    /// Past a transaction pooler, for files that need a session of their own; where `pool` does not do.
    direct: Option<Pool>,
    runner: Arc<dyn Runner>,
    loaded: RwLock<Arc<Loaded>>,
    limits: Limits,
    running: Running,
    causes: Causes,
}

impl Reconciler {
    /// A reconciler over these connections.
    pub fn new(
        pool: Pool,
        direct: Option<Pool>,
        runner: Arc<dyn Runner>,
        loaded: Arc<Loaded>,
        limits: Limits,
    ) -> Self {
        Self {
            pool,
            direct,
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
        self.running.cancel(&self.pool.tls()).await
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

    async fn bring(
        &self,
        connection: Connection,
        loaded: &Loaded,
        tenant: Tenant,
        (reason, asker): (Reason, Asker),
        start: Instant,
    ) -> Result<Outcome> {
        let release = &loaded.release;
        let plan = self.runner.plan(release, &tenant);
        let mut lock_timeout = disposition::lock_timeout(self.limits.lock_timeout, tenant.attempts);
        if failpoint::off("apply.lock-timeout") {
            lock_timeout = Duration::ZERO;
        }
        let envelope = Envelope {
            lock_timeout,
            notify: reason.is_event(),
        };
        failpoint::pass("reconcile.planned").await?;
        let before = tenant.ordinal.unwrap_or(0);
        let outside = plan.steps.iter().any(Step::is_outside);
        let connection = match &self.direct {
            Some(direct) if outside => {
                drop(connection);
                direct.get().await?
            }
            _ => connection,
        };
        let mut seen = watch::Seen::default();
        let connection = Held::new(connection);
        let running = self
            .running
            .enter(&tenant.schema, connection.cancel_token());
        let result = {
            let applying = self
                .runner
                .apply(&connection, release, &tenant, &plan, envelope);
            let watched = tenant.has_tables || tenant.attempts > 0;
            if watched && !failpoint::off("reconcile.watch") {
                let cancel = connection.cancel_token();
                let max_hold = |first| self.max_hold(release, &plan, first);
                tokio::select! {
                    result = applying => result,
                    () = watch::watch(&self.pool, &tenant.schema, cancel, max_hold, &mut seen) => {
                        unreachable!("it watches until it is dropped")
                    }
                }
            } else {
                // Nobody can hold a lock on, or wait behind one on, what does not exist yet.
                applying.await
            }
        };
        drop(running);
        let mut outcome = Outcome {
            kind: ReconcileOutcome::Applied,
            applied: release.head.saturating_sub(before),
            version: Some(release.head().version.clone()),
            message: None,
            retry_in: None,
            trouble: None,
            tripped: false,
            took: start.elapsed(),
            tenant: None,
        };
        match result {
            Ok(()) => {
                failpoint::pass("reconcile.applied").await?;
                loaded.tally.succeeded(before, release.head);
                give_back(connection.release(), seen.cancelling);
                let ms = outcome.took.as_millis();
                info!(
                    tenant.schema = tenant.schema, migration.version = release.head().version, duration_ms = ms,
                    %reason, files = outcome.applied, "schema {} is at {}", tenant.schema, release.head().version
                );
            }
            Err(error) => {
                let committed = error.committed.unwrap_or(before);
                outcome.applied = committed.saturating_sub(before);
                outcome.version = committed
                    .checked_sub(1)
                    .map(|index| release.set.files()[index].version.clone());
                failpoint::pass("reconcile.failed").await?;
                let read_only = error.source.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
                let used_up = error.place.is_some() || seen.cancelling || read_only || outside;
                recover(connection, used_up || self.running.ended()).await;
                if read_only {
                    // A failover: the others of this pool are connected to the old primary too.
                    self.pool.forget_idle();
                }
                if self.running.ended() {
                    outcome.kind = ReconcileOutcome::Busy;
                    return Ok(outcome);
                }
                loaded.tally.succeeded(before, committed);
                Failed {
                    loaded,
                    causes: &self.causes,
                    counts: asker == Asker::Fleet,
                    tenant: &tenant,
                    error,
                    seen,
                    committed,
                }
                .handle(&self.pool, &self.limits.retry, &mut outcome)
                .await?;
            }
        }
        outcome.tenant = Some(tenant);
        Ok(outcome)
    }

    /// How long the transaction that begins with this file may hold a lock; where it is not known, as long as
    /// any file of the plan.
    fn max_hold(&self, release: &Release, plan: &Plan, first: Option<usize>) -> Duration {
        let of = |step: &&Step| {
            let first_of_it = step.files(release.set.files()).first();
            first.is_none() || first_of_it.map(|file| file.ordinal) == first
        };
        plan.steps
            .iter()
            .filter(of)
            .flat_map(|step| step.files(release.set.files()))
            .filter_map(|file| file.markers.max_hold)
            .max()
            .unwrap_or(self.limits.max_hold)
            .max(self.limits.max_hold)
    }
}

/// A connection that has served many tenants, or that a cancel is on its way to, is replaced.
fn give_back(connection: Connection, cancelled: bool) {
    if cancelled || Connection::metrics(&connection).recycle_count >= TENANTS_PER_CONNECTION {
        pool::discard(connection);
    }
}

/// A failed transaction is rolled back before anybody else gets the connection. A session in which a
/// file failed is not used again: what the file left in it is unknown, a lock of the session's for one.
async fn recover(connection: Held, in_a_file: bool) {
    let rolled_back = tokio::time::timeout(ROLLBACK, connection.batch_execute("ROLLBACK")).await;
    if !in_a_file && matches!(rolled_back, Ok(Ok(()))) {
        drop(connection.release());
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
