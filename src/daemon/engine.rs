//! What the daemon and the commands share: connections, the loaded set and the reconciler, set up from
//! the configuration.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::{
    config::{Config, Secret},
    error::{During, Result},
    fleet::{Registry, Release, control, ledger},
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

/// A pool for `role`, as the configuration says: one connection a worker and one beside them, for the
/// sweep, the watch and `/status`.
///
/// # Errors
/// When the parameters cannot be understood.
pub fn pool(config: &Config, role: &str) -> Result<Pool> {
    Pool::new(
        &target(config)?,
        role,
        &config.database.session_settings,
        usize::from(config.database.workers) + 1,
    )
}

impl Engine {
    /// Checks the database and the set, and publishes the set where `publish` says so.
    ///
    /// # Errors
    /// When anything is not as it must be; the error says how to mend it.
    pub async fn open(
        config: Config,
        set: MigrationSet,
        pool: Pool,
        publish: bool,
    ) -> Result<Self> {
        let instance = uuid::Uuid::new_v4().to_string();
        let release = Release::all(set);
        let mut client = pool.get().await?;
        control::require(&client).await?;
        let registry = Registry::open(&client, &config.registry).await?;
        let settings = Settings {
            owner: config.schema.owner.clone(),
            usage: config.schema.usage.clone(),
            role: config.migrations.role.clone(),
            search_path: config.migrations.search_path.clone(),
            statement_timeout: config.locks.statement_timeout,
            yields_deadlocks: may_set_deadlock_timeout(&client).await?,
            instance: instance.clone(),
        };
        if publish {
            ledger::publish(&mut client, &release, &instance).await?;
        }
        drop(client);
        let limits = Limits {
            retry: config.retry.clone(),
            lock_timeout: config.locks.lock_timeout,
            max_hold: config.locks.max_hold,
            lost: config.heal.lost,
        };
        let loaded = Loaded::new(registry, release);
        let direct = match &config.database.listen_url {
            Some(_) => Some(Pool::new(
                &listen_target(&config)?,
                "work",
                &config.database.session_settings,
                usize::from(config.database.workers),
            )?),
            None => None,
        };
        let reconciler = Arc::new(Reconciler::new(
            pool,
            direct,
            Arc::new(SqlFiles { settings }),
            loaded,
            limits,
        ));
        Ok(Self {
            config,
            instance,
            reconciler,
        })
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
        let release = Release::all(set);
        let mut client = self.reconciler.pool().get().await?;
        ledger::publish(&mut client, &release, &self.instance).await?;
        let registry = self.reconciler.loaded().census.registry().clone();
        self.reconciler.load(Loaded::new(registry, release));
        Ok(())
    }
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
