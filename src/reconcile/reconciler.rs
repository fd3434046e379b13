//! The one reconcile path: look at the ledger, plan, apply, record. Events, sweeps, retries and
//! commands all end here; what to do is always read from the database, never carried by the wakeup.

pub(super) mod bring;

use std::{
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use tokio_postgres::types::Type;
use tracing::{debug, warn};

use super::{
    ahead::Ahead,
    brake::BrakeReason,
    breaker::Tally,
    causes::Causes,
    places::Places,
    queue::Reason,
    quick::Quick,
    runner::Runner,
    running::{Entry, Running},
    seen::Seen,
    spare::Spares,
    work::Settings,
};
use crate::{
    config::{LostPolicy, Retry},
    error::{During, Result},
    failpoint,
    fleet::{Census, Group, Registry, Release, State, Tenant, ledger, lost},
    metrics::ReconcileOutcome,
    migrations::Plan,
    pg::{Cancel, Connection, Pool},
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
    /// How long its files take.
    pub quick: Quick,
    /// Who was seen to lag behind it.
    pub seen: Seen,
    /// The beginning of the fleet, where it was looked at ahead.
    pub(super) ahead: Ahead,
}

impl Loaded {
    /// A release with the census that compares with it.
    pub fn new(registry: Registry, release: Release) -> Arc<Self> {
        Arc::new(Self {
            census: Census::new(registry, &release),
            tally: Tally::new(release.set.files().len()),
            quick: Quick::new(release.set.files().len()),
            seen: Seen::default(),
            ahead: Ahead::default(),
            release,
        })
    }

    /// Whether tenants mostly wait for the disk on their last step to head, as far as anybody knows.
    pub fn waits(&self) -> bool {
        self.quick.waits(self.release.head)
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
    /// Whether what nobody waits for is committed without waiting for the disk.
    pub asynchronous: bool,
    /// Tenants that are worked on at once.
    pub workers: usize,
}

/// What follows from how a tenant was found.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is current.
    Settle,
    /// There is nothing to do but to write down what was seen.
    Note(ReconcileOutcome, Option<String>),
    /// It is built anew.
    Rebuild,
    /// Its time has not come, for this reason; it does in so long, where that is known.
    Wait(Option<String>, Option<Duration>),
    /// It is brought to head.
    Bring,
}

/// On whose behalf a tenant is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
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
    places: Places,
    causes: Causes,
    spares: Spares,
}

impl Reconciler {
    /// A reconciler over these connections.
    pub fn new(pool: Pool, runner: Arc<dyn Runner>, loaded: Arc<Loaded>, limits: Limits) -> Self {
        Self {
            pool,
            runner,
            loaded: RwLock::new(loaded),
            places: Places::new(limits.workers, limits.asynchronous),
            limits,
            running: Running::default(),
            causes: Causes::default(),
            spares: Spares::default(),
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
        self.spares.changed();
    }

    /// The spares, as far as they are known here.
    pub fn spares(&self) -> &Spares {
        &self.spares
    }

    /// What applies files.
    pub(super) fn runner(&self) -> &dyn Runner {
        &*self.runner
    }

    /// Longest wait for a table lock.
    pub(super) fn lock_timeout(&self) -> Duration {
        self.limits.lock_timeout
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

    /// How the files of a plan are run, where several tenants may take them in one transaction.
    pub(super) fn together(&self, release: &Release, plan: &Plan) -> Option<&Settings> {
        self.runner.together(release, plan)
    }

    /// Whether what nobody waits for is committed without waiting for the disk.
    pub fn asynchronous(&self) -> bool {
        self.limits.asynchronous
    }

    /// Where batches of what a sweep found get their turn.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Notes an apply that can be cancelled, until the entry is dropped.
    pub(super) fn enter(&self, schema: &str, cancel: Cancel) -> Entry {
        self.running.enter(schema, cancel)
    }

    /// Whether everything that runs was cancelled.
    pub(super) fn stopping(&self) -> bool {
        self.running.ended()
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
        if reason == Reason::Insert
            && let Some(outcome) = self.claim(&connection, &loaded, id, start).await?
        {
            return Ok(outcome);
        }
        let newcomer = match reason {
            Reason::Insert => loaded.census.newcomer(&connection, id).await?,
            _ => None,
        };
        let tenant = match newcomer {
            Some(tenant) => Some(tenant),
            None => loaded.census.tenant(&connection, id).await?,
        };
        let Some(tenant) = tenant else {
            debug!("no such tenant in the registry");
            return Ok(Outcome::without_tenant(start));
        };
        failpoint::pass("reconcile.looked").await?;
        let done = |kind, message| Ok(Outcome::of(tenant.clone(), kind, message, start));
        match self.judge(&tenant, reason, asker) {
            Verdict::Settle => {
                self.settle(&connection, std::slice::from_ref(&tenant), reason)
                    .await?;
                done(ReconcileOutcome::Current, None)
            }
            Verdict::Note(kind, message) => {
                ledger::note(&connection, std::slice::from_ref(&tenant)).await?;
                done(kind, message)
            }
            Verdict::Rebuild => {
                drop(connection);
                Box::pin(self.rebuild(&tenant, reason)).await
            }
            Verdict::Wait(message, retry_in) => Ok(Outcome {
                retry_in,
                ..Outcome::of(tenant.clone(), ReconcileOutcome::Waiting, message, start)
            }),
            Verdict::Bring => {
                self.bring(connection, &loaded, tenant, (reason, asker), start)
                    .await
            }
        }
    }

    /// What is to be done: pure.
    pub(super) fn judge(&self, tenant: &Tenant, reason: Reason, asker: Asker) -> Verdict {
        match tenant.state {
            State::Current => Verdict::Settle,
            State::Ahead => Verdict::Note(ReconcileOutcome::Current, None),
            // A person who named the tenant wants it all the same.
            state
                if (state.group() == Group::Healing || state == State::Lost)
                    && reason != Reason::Manual
                    && let Some(why) = tenant.waits_for_resume() =>
            {
                Verdict::Wait(Some(why), None)
            }
            State::Lost if self.limits.lost == LostPolicy::Rebuild => Verdict::Rebuild,
            state if state.group() == Group::NeedsPerson => {
                Verdict::Note(ReconcileOutcome::LeftAlone, Some(tenant.advice()))
            }
            _ if asker == Asker::Fleet && tenant.stopped.is_some() => {
                Verdict::Wait(tenant.waits_for_release(), None)
            }
            state if state.waits() && !due(tenant, reason) => {
                Verdict::Wait(tenant.error.clone(), tenant.next_in)
            }
            _ => Verdict::Bring,
        }
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

    /// Tenants that are current: notes it where the ledger says otherwise, and tells who waits.
    pub(super) async fn settle(
        &self,
        connection: &Connection,
        tenants: &[Tenant],
        reason: Reason,
    ) -> Result<()> {
        let unknown =
            |tenant: &&Tenant| tenant.known_state.as_deref() != Some(State::Current.as_str());
        let noted: Vec<_> = tenants.iter().filter(unknown).cloned().collect();
        ledger::note(connection, &noted).await?;
        if !reason.is_event() || tenants.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = tenants.iter().map(|tenant| tenant.id.as_str()).collect();
        connection
            .execute_typed(
                "WITH caught_up AS (
                     DELETE FROM tenantd.behind b USING tenantd.tenant t, tenantd.head h
                     WHERE b.tenant_id = ANY ($1) AND t.tenant_id = b.tenant_id AND t.digest = h.digest
                 )
                 SELECT pg_catalog.pg_notify('tenant_ready', id) FROM pg_catalog.unnest($1::text[]) id
                 WHERE pg_catalog.pg_notification_queue_usage() < 0.5",
                &[(&ids, Type::TEXT_ARRAY)],
            )
            .await
            .during(match ids[..] {
                [id] => format!("tell that tenant {id} is ready"),
                _ => format!("tell that {} tenants are ready", ids.len()),
            })?;
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
    /// Nothing was applied.
    pub(super) fn of(
        tenant: Tenant,
        kind: ReconcileOutcome,
        message: Option<String>,
        start: Instant,
    ) -> Self {
        Self {
            kind,
            applied: 0,
            version: tenant.version.clone(),
            message,
            retry_in: None,
            trouble: None,
            tripped: false,
            took: start.elapsed(),
            tenant: Some(tenant),
        }
    }

    pub(super) fn without_tenant(start: Instant) -> Self {
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
