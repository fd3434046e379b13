//! `make bench`: tenantd against bare SQL, as ratios measured in one run on one private cluster.
//!
//! The cluster keeps the server's defaults (fsync on). Each pair is measured in turns, so that whatever
//! else the machine does hits both sides; medians are compared. Bare SQL is the same text, sent by the
//! same driver on a warm connection, without ledger, guard or stamp.

#[path = "../../tests/it/support/postgres.rs"]
mod postgres;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use postgres::{Options, Server};
use tenantd::{
    Config,
    daemon::{Engine, controller, engine},
    fleet::control,
    migrations::MigrationSet,
    reconcile::Reason,
};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/tenant");
/// Ids of the tenants that are built for real; the fleet of the head check has lower ones.
const FIRST: i64 = 1_000_000;
const TENANTS: i64 = 40;
const FLEET: i64 = 1000;
const CHECKS: usize = 50;
const EVENTS: i64 = 30;

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let server = Server::start(Options {
        durable: true,
        ..Options::default()
    })
    .await?;
    let app = server.connect("postgres").await;
    app.batch_execute("CREATE TABLE public.tenants (id bigint PRIMARY KEY, name text)")
        .await?;
    let config = configuration(&server)?;
    let pool = engine::pool(&config, "bench")?;
    control::install(&mut *pool.get().await?, &config, None).await?;
    let engine = Engine::open(
        config.clone(),
        MigrationSet::load(Path::new(SAMPLE))?,
        pool,
        tenantd::daemon::engine::Purpose::Apply,
    )
    .await?;
    let version: String = app.query_one("SHOW server_version", &[]).await?.get(0);
    println!(
        "PostgreSQL {version}, fsync on, {} cores; medians, ratios to bare SQL in the same run\n",
        cores()
    );
    new_tenant(&engine, &app).await?;
    head_check(&engine, &app).await?;
    events(engine.config, &server, &app).await
}

fn configuration(server: &Server) -> Outcome<Config> {
    let overrides = [
        ("database.url", server.conninfo("postgres")),
        ("migrations.dir", SAMPLE.to_owned()),
        ("http.listen", String::new()),
        ("rollout.max_rate", "0".to_owned()),
    ];
    let overrides = overrides
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Ok(Config::load_from(
        None,
        std::collections::HashMap::new(),
        overrides,
    )?)
}

/// A new tenant: the sample set in one transaction, by tenantd and by bare SQL, in turns.
async fn new_tenant(engine: &Engine, app: &Client) -> Outcome<()> {
    let set = MigrationSet::load(Path::new(SAMPLE))?;
    let text: String = set
        .files()
        .iter()
        .map(|file| format!("{}\n;\n", file.sql))
        .collect();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for id in FIRST..FIRST + TENANTS {
        app.execute("INSERT INTO public.tenants (id) VALUES ($1)", &[&id])
            .await?;
        let start = Instant::now();
        let outcome = engine
            .reconciler
            .reconcile(&id.to_string(), Reason::Insert)
            .await?;
        ours.push(start.elapsed());
        if outcome.message.is_some() {
            return Err(format!("{:?}", outcome.message).into());
        }
        let sql = format!(
            "BEGIN; CREATE SCHEMA bare_{id}; SET LOCAL search_path = bare_{id}, public; {text}; COMMIT"
        );
        let start = Instant::now();
        app.simple_query(&sql).await?;
        bare.push(start.elapsed());
    }
    compare(
        &format!(
            "new tenant, {} files, {} ms of bare SQL",
            set.files().len(),
            median(&mut bare.clone()).as_millis()
        ),
        &mut ours,
        &mut bare,
        1.15,
    );
    Ok(())
}

/// "Who is not at head?" over a thousand current tenants.
async fn head_check(engine: &Engine, app: &Client) -> Outcome<()> {
    app.batch_execute(&format!(
        "INSERT INTO public.tenants SELECT g FROM generate_series(1, {FLEET}) g;
         DO $$ BEGIN FOR g IN 1..{FLEET} LOOP EXECUTE format('CREATE SCHEMA tenant_%s', g); END LOOP; END $$;
         INSERT INTO tenantd.tenant (tenant_id, schema, namespace, version, digest, state)
         SELECT g::text, 'tenant_' || g, ('tenant_' || g)::regnamespace, h.version, h.digest, 'current'
         FROM generate_series(1, {FLEET}) g, tenantd.head h;
         ANALYZE"
    ))
    .await?;
    let client = engine.reconciler.pool().get().await?;
    let census = &engine.reconciler.loaded().census;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..CHECKS {
        let start = Instant::now();
        let doubtful = census.behind(&client, "", 4000).await?;
        ours.push(start.elapsed());
        let start = Instant::now();
        // Unprepared, as ours is: a check a minute gains nothing from a kept plan.
        let rows = client
            .query_typed(include_str!("head_check.sql"), &[])
            .await?;
        bare.push(start.elapsed());
        if !doubtful.is_empty() || !rows.is_empty() {
            return Err(
                format!("{} and {} tenants are in doubt", doubtful.len(), rows.len()).into(),
            );
        }
    }
    compare(
        &format!("head check, {} current tenants", FLEET + TENANTS),
        &mut ours,
        &mut bare,
        1.5,
    );
    app.batch_execute(&format!("DELETE FROM public.tenants WHERE id <= {FLEET}; DELETE FROM tenantd.tenant WHERE tenant_id::bigint <= {FLEET};
        DO $$ BEGIN FOR g IN 1..{FLEET} LOOP EXECUTE format('DROP SCHEMA tenant_%s', g); END LOOP; END $$"))
        .await?;
    Ok(())
}

/// From NOTIFY to the start of work, and from the insert's commit to `tenant_ready`, by a whole daemon.
async fn events(config: Config, server: &Server, app: &Client) -> Outcome<()> {
    let (signals, receiver) = mpsc::channel(1);
    let daemon = tokio::spawn(controller::run(config, receiver));
    let (listening, mut connection) =
        tokio_postgres::connect(&server.conninfo("postgres"), NoTls).await?;
    let (sender, mut ready) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send((Instant::now(), notification.payload().to_owned()));
            }
        }
    });
    listening.batch_execute("LISTEN tenant_ready").await?;
    // A tenant that is current answers as soon as it was looked at: what passes until then is the way in.
    let known = FIRST.to_string();
    let wake = format!("NOTIFY tenantd_wake, '{known}'");
    let mut idle = Vec::new();
    for round in 0..=EVENTS {
        tokio::time::sleep(Duration::from_millis(if round == 0 { 1000 } else { 20 })).await;
        let start = Instant::now();
        app.batch_execute(&wake).await?;
        idle.push(heard(&mut ready, &known).await? - start);
    }
    println!(
        "NOTIFY to looked at and answered, idle: median {:.2} ms (goal: start of work under 5 ms)",
        ms(median(&mut idle))
    );
    let mut fresh = Vec::new();
    for id in 2 * FIRST..2 * FIRST + EVENTS {
        app.execute("INSERT INTO public.tenants (id) VALUES ($1)", &[&id])
            .await?;
        let committed = Instant::now();
        fresh.push(heard(&mut ready, &id.to_string()).await? - committed);
    }
    println!(
        "insert's commit to tenant_ready:            median {:.1} ms",
        ms(median(&mut fresh))
    );
    signals.send(tenantd::daemon::Signal::Stop).await?;
    daemon.await??;
    Ok(())
}

async fn heard(
    ready: &mut mpsc::UnboundedReceiver<(Instant, String)>,
    id: &str,
) -> Outcome<Instant> {
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(20), ready.recv()).await?;
        match heard {
            Some((at, heard)) if heard == id => return Ok(at),
            Some(_) => {}
            None => return Err("the listening connection was lost".into()),
        }
    }
}

fn compare(what: &str, ours: &mut [Duration], bare: &mut [Duration], goal: f64) {
    let (ours, bare) = (median(ours), median(bare));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    let verdict = if ratio <= goal { "reached" } else { "missed" };
    println!(
        "{what}: {:.2} ms / {:.2} ms = {ratio:.2} x bare SQL (goal {goal}: {verdict})",
        ms(ours),
        ms(bare)
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}
