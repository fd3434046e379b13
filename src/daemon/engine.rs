//! What the daemon and the commands share: connections, the loaded set and the reconciler, set up from
//! the configuration.

use std::{future::ready, sync::Arc};

use tokio::sync::Mutex;
use tokio_postgres::Client;
use tracing::info;

use crate::{
    config::{Config, Durability, RolloutMode, Secret},
    error::{During, Error, Result},
    failpoint,
    fleet::{
        Registry, Release, control, head,
        instances::{self, Beat, Instance},
        server,
    },
    migrations::MigrationSet,
    pg::{Pool, Target, conninfo},
    reconcile::{Limits, Loaded, Reconciler, Settings, SqlFiles},
};

/// Everything that works on one database.
pub struct Engine {
    /// The configuration it was made from.
    pub config: Config,
    /// Id of this process in the ledger.
    pub instance: String,
    /// The reconcile path.
    pub reconciler: Arc<Reconciler>,
    /// Whether another daemon has released a head that goes on from ours. Held while a head is released, so that
    /// a heartbeat and a reload do not do so side by side.
    outdone: Mutex<bool>,
    /// Digest of the released head that ours was last worked out from, where a person releases.
    followed: Mutex<Option<String>>,
}

/// What an engine is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To look: nothing is published.
    Look,
    /// To tell the fleet what to do: what is loaded counts, whatever is released.
    Order,
    /// To bring tenants to head once: the set is published.
    Apply,
    /// To run as a daemon: the set is published, and others see that we have it.
    Serve,
}

/// The connection parameters of the workers.
///
/// # Errors
/// When they cannot be understood.
pub fn target(config: &Config) -> Result<Target> {
    resolve(config.database.url.as_ref().map(Secret::expose))
}

/// The connection parameters of the listener.
///
/// # Errors
/// When they cannot be understood.
pub fn listen_target(config: &Config) -> Result<Target> {
    let url = config
        .database
        .listen_url
        .as_ref()
        .or(config.database.url.as_ref());
    resolve(url.map(Secret::expose))
}

/// Warns, once for each, of connections to elsewhere whose server could be anybody.
///
/// # Errors
/// When the parameters cannot be understood.
pub fn warn_unverified(config: &Config) -> Result<()> {
    let database = &config.database;
    let urls = [database.url.as_ref(), database.listen_url.as_ref()];
    let mut said = None;
    for url in urls.into_iter().take(1 + usize::from(urls[1].is_some())) {
        let target = conninfo::resolve(url.map(Secret::expose), &|name| std::env::var(name).ok())?;
        if let Some(sentence) = target.unverified.filter(|new| said.as_ref() != Some(new)) {
            tracing::warn!("{sentence}");
            said = Some(sentence);
        }
    }
    Ok(())
}

fn resolve(url: Option<&str>) -> Result<Target> {
    let target = conninfo::resolve(url, &|name| std::env::var(name).ok())?;
    for warning in &target.warnings {
        tracing::warn!("{warning}");
    }
    Ok(target)
}

/// A pool for `role`, as the configuration says: one connection a worker, one beside them for the watch, and one for
/// the sweep, the rollout's tick and `/status`. Past a transaction pooler it leads where `listen_url` does.
///
/// # Errors
/// When the parameters cannot be understood.
pub fn pool(config: &Config, role: &str) -> Result<Pool> {
    let (work, settings) = (target(config)?, &config.database.session_settings);
    let workers = usize::from(config.database.workers);
    // One more where somebody builds spares beside them.
    let beside = 2 + usize::from(config.spares.keep > 0);
    let pool = Pool::new(&work, role, settings, workers + beside)?;
    if config.database.listen_url.is_none() {
        return Ok(pool);
    }
    let listen = listen_target(config)?;
    // A role that may only listen cannot migrate.
    if listen.config.get_user() != work.config.get_user() {
        return Ok(pool);
    }
    pool.with_direct(&listen, role, settings, workers)
}

impl Engine {
    /// Checks the database and the set, and publishes the set unless it is only for looking.
    ///
    /// # Errors
    /// When anything is not as it must be; the error says how to mend it.
    pub async fn open(
        config: Config,
        set: MigrationSet,
        pool: Pool,
        purpose: Purpose,
    ) -> Result<Self> {
        let instance = uuid::Uuid::new_v4().to_string();
        let mut release = Release::all(set);
        let mut client = pool.get().await?;
        control::require(&client).await?;
        if matches!(purpose, Purpose::Apply | Purpose::Serve) {
            server::admit(&client, pool.server()).await?;
        }
        let registry = Registry::open(&client, &config.registry).await?;
        let settings = Settings {
            owner: config.schema.owner.clone(),
            usage: config.schema.usage.clone(),
            role: config.migrations.role.clone(),
            search_path: config.migrations.search_path.clone(),
            statement_timeout: config.locks.statement_timeout,
            yields_deadlocks: may_set_deadlock_timeout(&client).await?
                && !failpoint::off("apply.deadlock-timeout"),
            instance: instance.clone(),
        };
        let manual = config.rollout.mode == RolloutMode::Manual;
        if manual && purpose != Purpose::Order {
            let publishes = purpose != Purpose::Look;
            release = towards(&mut client, release, publishes, &instance).await?;
        }
        if purpose == Purpose::Serve {
            // Said before it is done, so that an older daemon that starts meanwhile sees it.
            instances::announce(&client, &own(&instance, &release)).await?;
        }
        let publishes = !manual && matches!(purpose, Purpose::Apply | Purpose::Serve);
        let loaded = Loaded::new(registry, release);
        // Who serves does not listen yet: what was seen now would be too old when it does.
        let ahead = async || {
            if purpose == Purpose::Apply {
                loaded.look_ahead(&pool).await;
            }
        };
        let outdone =
            publishes && publish(&mut client, &loaded.release, &instance, ahead()).await?;
        drop(client);
        let limits = Limits {
            retry: config.retry.clone(),
            lock_timeout: config.locks.lock_timeout,
            max_hold: config.locks.max_hold,
            lost: config.heal.lost,
            asynchronous: config.rollout.durability == Durability::Fast,
            workers: config.database.workers.into(),
        };
        let reconciler = Arc::new(Reconciler::new(
            pool,
            Arc::new(SqlFiles { settings }),
            loaded,
            limits,
        ));
        Ok(Self {
            config,
            instance,
            reconciler,
            outdone: Mutex::new(outdone),
            followed: Mutex::default(),
        })
    }

    /// This daemon, as its heartbeats describe it.
    pub fn own(&self) -> Instance {
        own(&self.instance, &self.reconciler.loaded().release)
    }

    /// Releases our head where a heartbeat of `own` found another: one that ours goes on from, because an older
    /// daemon took it back while we could not say that we run; or a newer one whose daemons have all stopped.
    /// Whether it is released now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn catch_up(&self, own: &Instance, beat: &Beat) -> Result<bool> {
        let Ok(mut outdone) = self.outdone.try_lock() else {
            return Ok(false);
        };
        let loaded = self.reconciler.loaded();
        let release = &loaded.release;
        let Some(released) = &beat.orders.head else {
            return Ok(false);
        };
        if self.manual() {
            return Ok(false);
        }
        if release.head().digest != own.head || *released == own.head {
            *outdone &= *released != own.head;
            return Ok(false);
        }
        *outdone |= beat.elsewhere && beat.newer;
        let goes_on = release.has_any(std::slice::from_ref(released));
        if !(goes_on || *outdone && !beat.elsewhere) {
            return Ok(false);
        }
        let mut client = self.reconciler.pool().get().await?;
        let kept = head::publish(&mut client, release, &self.instance, ready(())).await?;
        *outdone = kept.is_some();
        Ok(kept.is_none())
    }

    fn manual(&self) -> bool {
        self.config.rollout.mode == RolloutMode::Manual
    }

    /// Works towards this released head from now on, as far as it is loaded, where a person releases. Whether that
    /// is another head than before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn follow(&self, released: Option<&str>) -> Result<bool> {
        let Ok(mut followed) = self.followed.try_lock() else {
            return Ok(false);
        };
        if !self.manual() || released.is_none() || followed.as_deref() == released {
            return Ok(false);
        }
        let loaded = self.reconciler.loaded();
        let release = &loaded.release;
        let client = self.reconciler.pool().get().await?;
        let Some(now) = head::released(&client, &release.set).await? else {
            return Ok(false);
        };
        drop(client);
        *followed = Some(now.digest);
        let Some(head) = now.common else {
            tracing::warn!(
                "the released head {} has nothing in common with the loaded set, so the fleet stays at {} here: load \
                 the files that are released",
                now.version,
                release.head().version
            );
            return Ok(false);
        };
        if head == release.head {
            return Ok(false);
        }
        let release = Release {
            set: Arc::clone(&release.set),
            head,
        };
        info!("follows the released head: {}", release.head().version);
        let registry = loaded.census.registry().clone();
        self.reconciler.load(Loaded::new(registry, release));
        self.say_what_waits();
        Ok(true)
    }

    /// Says which loaded files wait for a person.
    pub fn say_what_waits(&self) {
        let loaded = self.reconciler.loaded();
        let release = &loaded.release;
        let waiting = release.set.files().len() - release.head;
        if waiting > 0 {
            info!(
                "{waiting} loaded files wait behind {}, the released head, for `tenantd release`",
                release.head().version
            );
        }
    }

    /// Loads the directory again; the old set stays when the new one is refused.
    ///
    /// # Errors
    /// When the set is refused or cannot be published.
    pub async fn reload(&self) -> Result<()> {
        let dir = self.config.migrations.dir.clone();
        let set = tokio::task::spawn_blocking(move || MigrationSet::load(&dir))
            .await
            .expect("loading a set does not panic")?;
        let mut release = Release::all(set);
        let mut outdone = self.outdone.lock().await;
        let mut followed = self.followed.lock().await;
        let mut client = self.reconciler.pool().get().await?;
        if self.manual() {
            release = towards(&mut client, release, true, &self.instance).await?;
            // What is released may move before this set is in place.
            *followed = None;
        }
        instances::announce(&client, &own(&self.instance, &release)).await?;
        if !self.manual() {
            *outdone = publish(&mut client, &release, &self.instance, ready(())).await?;
        }
        let registry = self.reconciler.loaded().census.registry().clone();
        self.reconciler.load(Loaded::new(registry, release));
        Ok(())
    }
}

/// Publishes the set; whether a newer one stays in its place. `meanwhile`: see [`head::publish`].
async fn publish(
    client: &mut Client,
    release: &Release,
    by: &str,
    meanwhile: impl Future<Output = ()>,
) -> Result<bool> {
    let kept = head::publish(client, release, by, meanwhile).await?;
    if let Some(why) = &kept {
        tracing::warn!(
            "{why}: tenants that have more are left alone, new ones are built at ours; a rollback is \
             complete when every daemon has the older files"
        );
    }
    Ok(kept.is_some())
}

/// How far of this set is released, where a person releases. The first set ever is released at once, if anything may
/// be: there is nothing to stay at.
async fn towards(
    client: &mut Client,
    mut release: Release,
    publishes: bool,
    by: &str,
) -> Result<Release> {
    let mut now = head::released(client, &release.set).await?;
    if now.is_none() && publishes && !head::first(client, &release, by).await? {
        now = head::released(client, &release.set).await?;
    }
    let Some(now) = now else { return Ok(release) };
    release.head = now.common.ok_or_else(|| {
        Error::Refused(format!(
            "the released head {} has nothing in common with the loaded set, whose first file is {}: load the files \
             that are released, or release these in their place with `tenantd release --force`",
            now.version,
            release.set.files()[0].file
        ))
    })?;
    Ok(release)
}

fn own(instance: &str, release: &Release) -> Instance {
    Instance {
        id: instance.to_owned(),
        host: host(),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
        head: release.head().digest.clone(),
    }
}

/// The name of this host.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// Whether our role may lower `deadlock_timeout`: superusers, and those `install --role` granted it to.
async fn may_set_deadlock_timeout(client: &Client) -> Result<bool> {
    let rows = client
        .query_typed(
            "SELECT CASE WHEN pg_catalog.current_setting('server_version_num')::int < 150000
                         THEN (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER) END",
            &[],
        )
        .await
        .during("ask for our privileges")?;
    if let Some(superuser) = rows[0].get::<_, Option<bool>>(0) {
        return Ok(superuser);
    }
    let rows = client
        .query_typed(
            "SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')",
            &[],
        )
        .await
        .during("ask for our privileges")?;
    Ok(rows[0].get(0))
}
