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
    engine::{self, Engine, Purpose},
    findings::Findings,
    health::Health,
    heartbeat::{Echo, Heartbeat},
    http::{self, Endpoints},
    lead::Lead,
    listener::Ears,
    peers::Peers,
    retry::{self, Said},
    rollout::Rollout,
    spares::Keeper,
    sweeper::{Nudge, Sweeper},
    systemd,
    work::{self, SharedQueue, Shop},
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
    reconcile::{Reconciler, brake::Brake, pace::Pace},
};

/// How long what is in flight may take to finish when the daemon stops. Then it is cancelled.
const GRACE: Duration = Duration::from_secs(20);
/// How long what was cancelled may take to end.
const CANCELLED: Duration = Duration::from_secs(3);
/// How long a question to the database may take then.
const ASKING: Duration = Duration::from_millis(1500);
const SIGN_OFF: Duration = Duration::from_secs(2);
/// For the requests that are being answered.
const HTTP_END: Duration = Duration::from_secs(2);
/// A reload that waits for the database longer than this has failed.
const RELOAD: Duration = Duration::from_secs(30);
const RELOAD_AGAIN: Duration = Duration::from_secs(2);
/// Who leads is asked before the loops begin; if that takes longer, they begin without.
const FIRST_BEAT: Duration = Duration::from_secs(2);
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
    let ended = match started {
        Some(started) => {
            let started = Arc::new(started);
            *engine
                .lock()
                .expect("no code panics while it holds this lock") = Some(Arc::clone(&started));
            serve(started, queue, metrics, health, &mut signals).await
        }
        None => Ok(()),
    };
    http_stop.cancel();
    if let Some(http) = http {
        let _ = timeout(HTTP_END, http).await;
    }
    info!("stopped");
    ended
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
    let mut said = Said::default();
    for attempt in 0.. {
        let error = match start(config, set.clone()).await {
            Err(error) if error.will_pass() => error,
            opened => return opened,
        };
        if said.is_new(&error.to_string()) {
            warn!("waiting for the database: {error}");
        }
        health.starting(Some(error.to_string()));
        sleep(retry::delay(&error, attempt)).await;
    }
    unreachable!("it is tried for ever")
}

async fn start(config: &Config, set: MigrationSet) -> Result<Engine> {
    let pool = engine::pool(config, "work")?;
    drop(pool.get().await?);
    failpoint::pass("start.connected").await?;
    let engine = Engine::open(config.clone(), set, pool, Purpose::Serve).await?;
    // Said once, however often it was tried.
    for warning in trust::warnings(&*engine.reconciler.pool().get().await?, config).await? {
        warn!("{warning}");
    }
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
    let (echo, lead) = (
        Arc::new(Echo::default()),
        Arc::new(Lead::new(Arc::clone(&metrics), Arc::clone(&health))),
    );
    let rollout = Arc::new(Rollout {
        engine: Arc::clone(&engine),
        pace: Arc::new(Pace::new(config.rollout.max_rate)),
        queue: queue.clone(),
        nudge: Arc::clone(&nudge),
        metrics: Arc::clone(&metrics),
        back: Mutex::default(),
    });
    let heartbeat = Heartbeat {
        engine: Arc::clone(&engine),
        echo: Arc::clone(&echo),
        lead: Arc::clone(&lead),
        nudge: Arc::clone(&nudge),
        queue: queue.clone(),
        rollout: Arc::clone(&rollout),
        metrics: Arc::clone(&metrics),
        alarmed: Mutex::default(),
    };
    // Whether we lead is known before the sweeper begins.
    let _ = timeout(FIRST_BEAT, heartbeat.once()).await;
    let mut heartbeat = tokio::spawn(heartbeat.run());
    let brake = Arc::new(Brake::new(Arc::clone(&metrics)));
    let reconciler = Arc::clone(&engine.reconciler);
    let mut listener = tokio::spawn(
        Ears {
            target: engine::listen_target(&config)?,
            reconciler: Arc::clone(&reconciler),
            queue: queue.clone(),
            nudge: Arc::clone(&nudge),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            echo,
            poll_interval: config.sweep.poll_interval,
            instance: engine.instance.clone(),
            peers: Peers::new(engine.instance.clone()),
        }
        .run(),
    );
    let spares = Keeper {
        reconciler: Arc::clone(&reconciler),
        queue: queue.clone(),
        brake: Arc::clone(&brake),
        lead: Arc::clone(&lead),
        metrics: Arc::clone(&metrics),
        search_path: config.migrations.search_path.clone(),
        keep: config.spares.keep as usize,
    };
    let mut spares = tokio::spawn(spares.run());
    let mut sweeper = tokio::spawn(
        Sweeper {
            reconciler: Arc::clone(&reconciler),
            queue: queue.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            intervals: config.sweep.clone(),
            migrations: config.migrations.clone(),
            brake: Arc::clone(&brake),
            rollout: Arc::clone(&rollout),
            findings: Findings::new(config.clone(), Arc::clone(&metrics)),
            nudge: Arc::clone(&nudge),
            lead,
            instance: engine.instance.clone(),
        }
        .run(),
    );
    let drain = CancellationToken::new();
    let shop = Shop {
        queue: queue.clone(),
        reconciler: Arc::clone(&reconciler),
        retry: config.retry.clone(),
        pace: Arc::clone(&rollout.pace),
        brake,
        metrics: Arc::clone(&metrics),
    };
    let workers = usize::from(config.database.workers);
    let workers: Vec<JoinHandle<()>> = (0..workers)
        .map(|number| tokio::spawn(work::run(shop.clone(), number, workers, drain.clone())))
        .collect();
    let watching = tokio::spawn(rollout.run());
    health.starting(None);
    let head = engine.reconciler.loaded().release.head().version.clone();
    info!(
        instance = engine.instance,
        "keeping {} at {head}",
        reconciler.pool().target()
    );
    engine.say_what_waits();
    systemd::ready(&format!("keeping schemas at {head}"));

    // The loops never end by themselves: one that did has panicked, and the supervisor starts us anew.
    let ended = tokio::select! {
        () = attend(&engine, &queue, &metrics, &health, &nudge, signals) => Ok(()),
        Err(panic) = &mut listener => Err(Error::Refused(format!("the listener broke: {panic}"))),
        Err(panic) = &mut sweeper => Err(Error::Refused(format!("the sweeper broke: {panic}"))),
        Err(panic) = &mut spares => Err(Error::Refused(format!("the keeper of spares broke: {panic}"))),
        ended = &mut heartbeat => Err(ended
            .unwrap_or_else(|panic| Error::Refused(format!("the heartbeat broke: {panic}")))),
    };
    if let Err(error) = &ended {
        error!("stopping, because {error}");
    }

    systemd::stopping();
    info!("stopping");
    listener.abort();
    sweeper.abort();
    spares.abort();
    heartbeat.abort();
    watching.abort();
    drain.cancel();
    finish(workers, &reconciler, signals).await;
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

/// Lets the workers finish what they hold; cancels it when that takes too long or a second signal comes.
async fn finish(
    workers: Vec<JoinHandle<()>>,
    reconciler: &Reconciler,
    signals: &mut tokio::sync::mpsc::Receiver<Signal>,
) {
    let mut workers = futures::future::join_all(workers);
    tokio::select! {
        _ = &mut workers => return,
        () = nothing_applies(reconciler) => {
            info!("not waiting for the database any longer: nothing is being applied");
            return;
        }
        () = sleep(GRACE) => {}
        () = stopped(signals) => {}
    }
    let running = reconciler.cancel().await;
    warn!(
        "cancelled {running} migrations that still ran; they are rolled back, and done again at the next start"
    );
    if timeout(CANCELLED, workers).await.is_err() {
        error!(
            "the server has not confirmed that; it rolls them back when it sees that we are gone"
        );
    }
}

/// Ends when workers have only been asking the database something for a while: that may be given up.
async fn nothing_applies(reconciler: &Reconciler) {
    let mut since = Instant::now();
    while since.elapsed() < ASKING {
        sleep(ASKING / 10).await;
        if reconciler.applying() > 0 {
            since = Instant::now();
        }
    }
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
    let mut again = false;
    loop {
        let load = tokio::select! {
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => true,
                Some(Signal::Sweep) => {
                    nudge.sweep(SweepKind::Full);
                    false
                }
                Some(Signal::Stop) | None => return,
            },
            () = sleep(RELOAD_AGAIN), if again => true,
            _ = ticks.tick() => {
                if health.live().is_ok() {
                    systemd::alive();
                }
                let waiting = queue.with(|queue| queue.len());
                let leads = if metrics.leading.get() == 1 {
                    format!("{} tenants", metrics.tenants.get())
                } else {
                    "another daemon leads".to_owned()
                };
                systemd::status(&format!("{leads}, {waiting} in the queue, {}", hearing(metrics)));
                false
            }
        };
        if load {
            again = tokio::select! {
                again = reload(engine, nudge) => again,
                () = stopped(signals) => return,
            };
        }
    }
}

/// Loads the set again, within bounds. Whether to try it once more: nobody reloads twice for a server that was away.
async fn reload(engine: &Engine, nudge: &Nudge) -> bool {
    let loaded = timeout(RELOAD, engine.reload()).await;
    match loaded.unwrap_or_else(|_| {
        Err(Error::Timeout {
            operation: "load the migration set again".into(),
            limit: RELOAD,
        })
    }) {
        Ok(()) => {
            let head = &engine.reconciler.loaded().release.head().version.clone();
            info!("loaded the migration set again: head is {head}");
            engine.say_what_waits();
            nudge.sweep(SweepKind::Head);
            false
        }
        Err(error) if error.will_pass() => {
            warn!("the loaded set stays for now, tried again in {RELOAD_AGAIN:?}: {error}");
            true
        }
        Err(error) => {
            error!("the loaded set stays: {error}");
            false
        }
    }
}

/// How events come in.
fn hearing(metrics: &Metrics) -> &'static str {
    match (
        metrics.listener_connected.get(),
        metrics.listener_polling.get(),
    ) {
        (1, _) => "listening",
        (_, 1) => "polling",
        _ => "not listening",
    }
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
                    &engine.config.rollout,
                    Listed::Attention,
                    engine.config.spares.keep,
                )
                .await
            };
            let report = gathered.await.map_err(|error| error.to_string())?;
            let mut value = serde_json::to_value(report).map_err(|error| error.to_string())?;
            value["daemon"] = serde_json::json!({
                "instance": engine.instance,
                "leading": self.metrics.leading.get() == 1,
                "listener": hearing(&self.metrics),
            });
            *last = Some((Instant::now(), value.clone()));
            Ok(value)
        }
        .boxed()
    }
}
