//! A new tenant, 40 files: tenantd, bare SQL in one transaction, and the peers, in turns.

use std::time::Instant;

use tenantd::{
    daemon::{Engine, engine},
    migrations::MigrationSet,
    reconcile::Reason,
};

use crate::{
    Outcome,
    fleet::Fleet,
    peers::{self, Peer},
    postgres::Server,
    report::Report,
    sets,
    stats::Samples,
};

/// Rounds from one turn of the peers to the next.
const SELDOM: usize = 4;

pub(crate) async fn measure(server: &Server, report: &mut Report, rounds: usize) -> Outcome<()> {
    let set = sets::sign_up();
    let signups = Fleet::empty(server, "sign_up", &set).await?;
    let config = signups.tenantd.config()?;
    let pool = engine::pool(&config, "bench")?;
    let files = MigrationSet::load(&signups.tenantd.migrations())?;
    let engine = Engine::open(config, files, pool, engine::Purpose::Apply).await?;
    let mut peers = peers::installed(server, report, "peers_sign_up", &set).await?;
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    let mut theirs: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
    // The first round warms connections and caches.
    for id in 0..=rounds {
        // Twice each, by turns the first: whoever comes behind the peers finds the caches cold.
        let mut taken = [Vec::new(), Vec::new()];
        for turn in [id, id + 1, id + 1, id] {
            let who = turn % 2;
            let id = 2 * id + taken[who].len();
            taken[who].push(match who {
                0 => by_tenantd(&engine, &signups, id).await?,
                _ => by_bare_sql(&signups, id).await?,
            });
        }
        if id > 0 {
            let [by_tenantd, by_bare_sql] = taken;
            ours.0.extend(by_tenantd);
            bare.0.extend(by_bare_sql);
        }
        // They are far enough away to be measured more seldom.
        if id % SELDOM == 0 {
            for (peer, theirs) in peers.iter_mut().zip(&mut theirs) {
                let took = peer.create(id).await?;
                if id > 0 {
                    theirs.0.push(took);
                }
            }
        }
    }
    same_relations(&signups, rounds - rounds % SELDOM, &peers, server).await?;
    report.add("new tenant", "tenantd", 0, "ms", &ours);
    report.add("new tenant", "bare SQL", 0, "ms", &bare);
    for (peer, times) in peers.iter().zip(&theirs) {
        report.add("new tenant", peer.name(), 0, "ms", times);
    }
    drop(engine);
    signups.drop(server).await
}

async fn by_tenantd(engine: &Engine, signups: &Fleet, id: usize) -> Outcome<f64> {
    // Without the trigger, so that nothing else runs.
    let insert = format!("INSERT INTO public.tenants VALUES ({id}, 'new')");
    signups.app.batch_execute(&insert).await?;
    let start = Instant::now();
    let outcome = engine
        .reconciler
        .reconcile(&id.to_string(), Reason::Insert)
        .await?;
    let took = crate::stats::ms(start.elapsed());
    match outcome.message {
        None => Ok(took),
        Some(message) => Err(message.into()),
    }
}

async fn by_bare_sql(signups: &Fleet, id: usize) -> Outcome<f64> {
    let text = signups.tenantd.text()?;
    let sql = format!(
        "BEGIN; CREATE SCHEMA bare_{id}; SET LOCAL search_path = bare_{id}, public; {text} COMMIT"
    );
    let start = Instant::now();
    signups.bare[0].batch_execute(&sql).await?;
    Ok(crate::stats::ms(start.elapsed()))
}

/// Everybody must have built the same; a peer also has its own table of what was applied.
async fn same_relations(
    signups: &Fleet,
    id: usize,
    peers: &[Peer],
    server: &Server,
) -> Outcome<()> {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = $1)
               OR relname IN (SELECT 'pg_toast_' || oid FROM pg_class WHERE relnamespace = $1::text::regnamespace)
               OR relname IN (SELECT 'pg_toast_' || oid || '_index' FROM pg_class WHERE relnamespace = $1::text::regnamespace)";
    let count = async |client: &tokio_postgres::Client, schema: String| -> Outcome<i64> {
        Ok(client.query_one(sql, &[&schema]).await?.get(0))
    };
    let ours = count(&signups.app, format!("tenant_{id}")).await?;
    let bare = count(&signups.app, format!("bare_{id}")).await?;
    if ours != bare {
        return Err(format!("tenantd has built {ours} relations, bare SQL {bare}").into());
    }
    println!("\nnew tenant: 40 files, 30 tables, {ours} relations");
    let client = server.connect("peers_sign_up").await;
    for peer in peers {
        let theirs = count(&client, peer.schema(id)).await?;
        if !(ours..ours + 8).contains(&theirs) {
            return Err(format!(
                "{} has built {theirs} relations, tenantd {ours}",
                peer.name()
            )
            .into());
        }
    }
    Ok(())
}
