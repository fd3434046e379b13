//! One database: wires its loops together, starts them, reloads them, and stops them in order.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use prometheus::Registry;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    engine::{self, Engine},
    health::Health,
    heartbeat,
    http::{self, Endpoints},
    listener::Ears,
    sweeper::{Nudge, Sweeper},
    systemd,
    work::{self, SharedQueue},
};
use crate::{
    config::Config,
    error::{Error, Result},
    failpoint,
    fleet::{
        instances,
        report::{Listed, Report},
        trust,
    },
    metrics::{Metrics, ProcessMetrics, SweepKind, encode},
    migrations::MigrationSet,
    reconcile::pace::Pace,
};

/// How long what is in flight may take to finish when the daemon stops.
const GRACE: Duration = Duration::from_secs(25);
const SIGN_OFF: Duration = Duration::from_secs(2);
/// How long a `/status` answer is used again.
const STATUS_FRESH: Duration = Duration::from_secs(1);

/// What the process was told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Load the migration set again.
    Reload,
    /// Sweep now.
    Sweep,
    /// Drain and stop.
    Stop,
}

/// Runs the daemon for one database until told to stop.
///
/// The migration set is read before anything is connected, so that a set that is refused ends the start.
/// A database that cannot be reached does not: it is tried until it can.
///
/// # Errors
/// When the configuration, the set or the database is not as it must be.
pub async fn run(config: Config, mut signals: tokio::sync::mpsc::Receiver<Signal>) -> Result<()> {
    let set = MigrationSet::load(&config.migrations.dir)?;
    for warning in set.warnings() {
        warn!("{warning}");
    }
    let registry = Registry::new();
    let metrics = Arc::new(metrics_of(&config, &registry)?);
    let health = Arc::new(Health::new(
        config.sweep.interval * 3 + Duration::from_secs(30),
    ));
    let engine: Arc<Mutex<Option<Arc<Engine>>>> = Arc::default();
    let http_stop = CancellationToken::new();
    let queue = SharedQueue::default();
    let endpoints = Arc::new(Probe {
        registry,
        metrics: Arc::clone(&metrics),
        queue: queue.clone(),
        health: Arc::clone(&health),
        engine: Arc::clone(&engine),
        last: tokio::sync::Mutex::new(None),
    });
    let http = match config.http.listen {
        Some(address) => {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| Error::Io {
                    operation: format!("listen on http.listen = {address}"),
                    source,
                })?;
            info!(
                "serving http://{}/",
                listener.local_addr().map_or(address, |bound| bound)
            );
            Some(tokio::spawn(http::serve(
                listener,
                endpoints,
                http_stop.clone(),
            )))
        }
        None => None,
    };
    let started = tokio::select! {
        started = connect(&config, set, &health) => Some(started?),
        () = stopped(&mut signals) => None,
    };
    if let Some(started) = started {
        let started = Arc::new(started);
        *engine
            .lock()
            .expect("no code panics while it holds this lock") = Some(Arc::clone(&started));
        serve(started, queue, metrics, health, &mut signals).await?;
    }
    http_stop.cancel();
    if let Some(http) = http {
        let _ = http.await;
    }
    info!("stopped");
    Ok(())
}

fn metrics_of(config: &Config, registry: &Registry) -> Result<Metrics> {
    let refused = |error: prometheus::Error| Error::Refused(format!("register metrics: {error}"));
    ProcessMetrics::new(registry).map_err(refused)?;
    Metrics::new(&config.database.name, registry).map_err(refused)
}

async fn stopped(signals: &mut tokio::sync::mpsc::Receiver<Signal>) {
    while !matches!(signals.recv().await, Some(Signal::Stop) | None) {}
}

/// Tries until the database answers; ends at what trying again cannot mend.
async fn connect(config: &Config, set: MigrationSet, health: &Health) -> Result<Engine> {
    engine::warn_unverified(config)?;
    let pool = engine::pool(config, "work")?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let delay = match pool.get().await {
            Ok(_) => break,
            Err(error) if error.will_pass() => {
                let delay = crate::reconcile::disposition::backoff(&config.retry, attempts)
                    .min(Duration::from_secs(10));
                if attempts == 1 {
                    warn!("waiting for the database: {error}");
                }
                health.starting(Some(error.to_string()));
                delay
            }
            Err(error) => return Err(error),
        };
        sleep(delay).await;
    }
    failpoint::pass("start.connected").await?;
    for warning in trust::warnings(&*pool.get().await?, config).await? {
        warn!("{warning}");
    }
    let engine = Engine::open(config.clone(), set, pool, true).await?;
    failpoint::pass("start.published").await?;
    Ok(engine)
}

/// The loops of a started daemon, and their end in order.
async fn serve(
    engine: Arc<Engine>,
    queue: SharedQueue,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    signals: &mut tokio::sync::mpsc::Receiver<Signal>,
) -> Result<()> {
    let config = engine.config.clone();
    let nudge = Arc::new(Nudge::default());
    let reconciler = Arc::clone(&engine.reconciler);
    let mut listener = tokio::spawn(
        Ears {
            target: engine::listen_target(&config)?,
            reconciler: Arc::clone(&reconciler),
            queue: queue.clone(),
            nudge: Arc::clone(&nudge),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            instance: engine.instance.clone(),
        }
        .run(),
    );
    let mut sweeper = tokio::spawn(
        Sweeper {
            reconciler: Arc::clone(&reconciler),
            queue: queue.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            intervals: config.sweep.clone(),
            migrations: config.migrations.clone(),
            nudge: Arc::clone(&nudge),
            instance: engine.instance.clone(),
        }
        .run(),
    );
    let beat = tokio::spawn(heartbeat::run(
        reconciler.pool().clone(),
        engine.instance.as_str().into(),
        host(),
    ));
    let drain = CancellationToken::new();
    let pace = Arc::new(Pace::new(config.rollout.max_rate));
    let workers: Vec<JoinHandle<()>> = (0..config.database.workers)
        .map(|_| {
            tokio::spawn(work::run(
                queue.clone(),
                Arc::clone(&reconciler),
                config.retry.clone(),
                Arc::clone(&pace),
                Arc::clone(&metrics),
                drain.clone(),
            ))
        })
        .collect();
    health.starting(None);
    let head = engine.reconciler.loaded().release.head().version.clone();
    info!(
        instance = engine.instance,
        "keeping {} at {head}",
        reconciler.pool().target()
    );
    systemd::ready(&format!("keeping schemas at {head}"));

    // The loops never end by themselves: one that did has panicked, and the supervisor starts us anew.
    let ended = tokio::select! {
        () = attend(&engine, &queue, &metrics, &health, &nudge, signals) => Ok(()),
        Err(panic) = &mut listener => Err(Error::Refused(format!("the listener broke: {panic}"))),
        Err(panic) = &mut sweeper => Err(Error::Refused(format!("the sweeper broke: {panic}"))),
    };

    systemd::stopping();
    info!("stopping");
    listener.abort();
    sweeper.abort();
    beat.abort();
    drain.cancel();
    if timeout(GRACE, futures::future::join_all(workers))
        .await
        .is_err()
    {
        error!("migrations still ran after {GRACE:?}; the server rolls them back");
    }
    failpoint::pass("stop.drained").await?;
    let signed_off = timeout(SIGN_OFF, async {
        instances::sign_off(&*reconciler.pool().get().await?, &engine.instance).await
    });
    if !matches!(signed_off.await, Ok(Ok(()))) {
        warn!("could not sign off in the ledger");
    }
    reconciler.pool().close();
    ended
}

/// Reacts to signals until one of them says stop.
async fn attend(
    engine: &Engine,
    queue: &SharedQueue,
    metrics: &Metrics,
    health: &Health,
    nudge: &Nudge,
    signals: &mut tokio::sync::mpsc::Receiver<Signal>,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => match engine.reload().await {
                    Ok(()) => {
                        info!("loaded the migration set again: head is {}", engine.reconciler.loaded().release.head().version);
                        nudge.sweep(SweepKind::Head);
                    }
                    Err(error) => error!("the loaded set stays: {error}"),
                },
                Some(Signal::Sweep) => nudge.sweep(SweepKind::Full),
                Some(Signal::Stop) | None => return,
            },
            _ = ticks.tick() => {
                if health.live().is_ok() {
                    systemd::alive();
                }
                let waiting = queue.with(|queue| queue.len());
                let heard = if metrics.listener_connected.get() == 1 { "listening" } else { "not listening" };
                systemd::status(&format!("{} tenants, {waiting} in the queue, {heard}", metrics.tenants.get()));
            }
        }
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// What the HTTP server asks.
struct Probe {
    registry: Registry,
    metrics: Arc<Metrics>,
    queue: SharedQueue,
    health: Arc<Health>,
    engine: Arc<Mutex<Option<Arc<Engine>>>>,
    last: tokio::sync::Mutex<Option<(Instant, serde_json::Value)>>,
}

impl Endpoints for Probe {
    fn metrics(&self) -> String {
        let depth = self.queue.with(|queue| queue.depth());
        self.metrics
            .queue_depth
            .set(i64::try_from(depth).unwrap_or(i64::MAX));
        encode(&self.registry)
    }

    fn live(&self) -> Result<(), Vec<String>> {
        self.health.live()
    }

    fn ready(&self) -> Result<(), Vec<String>> {
        self.health.ready()
    }

    fn status(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        async {
            let mut last = self.last.lock().await;
            if let Some((at, value)) = &*last
                && at.elapsed() < STATUS_FRESH
            {
                return Ok(value.clone());
            }
            let engine = self
                .engine
                .lock()
                .expect("no code panics while it holds this lock")
                .clone();
            let engine = engine.ok_or("starting: the database has not answered yet")?;
            let loaded = engine.reconciler.loaded();
            let gathered = async {
                let client = engine.reconciler.pool().get().await?;
                let name = &engine.config.database.name;
                Report::gather(
                    &client,
                    &loaded.census,
                    &loaded.release,
                    name,
                    Listed::Attention,
                )
                .await
            };
            let report = gathered.await.map_err(|error| error.to_string())?;
            let value = serde_json::to_value(report).map_err(|error| error.to_string())?;
            *last = Some((Instant::now(), value.clone()));
            Ok(value)
        }
        .boxed()
    }
}
