//! A new tenant from a ready schema: insert's commit to the client's hearing of it. Bare: a client that renames.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    Outcome,
    fleet::Fleet,
    heard::Heard,
    postgres::Server,
    program::{self, Daemon},
    report::Report,
    sets,
    stats::Samples,
};

/// In the environment of the bare client: where to connect to.
pub(crate) const RENAMES: &str = "BENCH_RENAMES";
const PART: &str = "insert to ready, by rename";
/// Spares that are kept.
const SPARES: f64 = 4.0;
/// A build that has spares has made the first one by then.
const FIRST_SPARE: Duration = Duration::from_secs(30);
/// Before each turn: people sign up out of the blue, and whoever has just had a turn would have warm caches.
const REST: Duration = Duration::from_millis(100);
const BARE: &str = "
    CREATE TABLE public.bare_tenants (id bigint PRIMARY KEY);
    CREATE FUNCTION public.bare_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('bare_inserted', NEW.id::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER inserted AFTER INSERT ON public.bare_tenants FOR EACH ROW EXECUTE FUNCTION public.bare_inserted()";

/// In turns: the bare round trip, tenantd with spares if this build has them, and tenantd without. Each in a database of
/// its own, because after a rename all sessions of a database plan their statements anew.
pub(crate) async fn measure(server: &Server, report: &mut Report, rounds: usize) -> Outcome<()> {
    let signups = Fleet::empty(server, "claims", &sets::sign_up()).await?;
    let other = Fleet::empty(server, "bare_claims", &sets::sign_up()).await?;
    let text = other.tenantd.text()?;
    other.app.batch_execute(BARE).await?;
    other
        .each(0..rounds, 1, |id| {
            format!("BEGIN; CREATE SCHEMA spare_{id}; SET LOCAL search_path = spare_{id}, public; {text} COMMIT")
        })
        .await?;
    let mut daemon = with_spares(&signups, report).await?;
    let mut ready = Heard::new(&signups.conninfo, "tenant_ready").await?;
    let mut bare_ready = Heard::new(&other.conninfo, "bare_ready").await?;
    let renamer = Renamer::start(&other.conninfo).await?;
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for turn in 0..2 * rounds {
        if let Some(daemon) = &daemon {
            // Nobody refills while we measure.
            let full = async |it: &Daemon| Ok(it.sum(&["tenantd_spares{"]).await? >= SPARES);
            daemon.until("spares", program::OFTEN, full).await?;
        }
        tokio::time::sleep(REST).await;
        let id = turn / 2;
        // By turns the first.
        if turn % 2 == id % 2 {
            let insert = format!("INSERT INTO public.bare_tenants VALUES ({id})");
            bare.0
                .push(insert_to_ready(&other, &insert, &mut bare_ready, id).await?);
        } else if daemon.is_some() {
            let insert = format!("INSERT INTO public.tenants VALUES ({id}, 'new')");
            ours.0
                .push(insert_to_ready(&signups, &insert, &mut ready, id).await?);
        }
    }
    drop(renamer);
    report.add(PART, "bare SQL", 0, "ms", &bare);
    if let Some(daemon) = daemon.take() {
        report.add(PART, "tenantd with spares", 0, "ms", &ours);
        daemon.stop().await?;
    }
    without_spares(&signups, report, &mut ready, rounds).await?;
    other.drop(server).await?;
    signups.drop(server).await
}

/// A daemon that holds spares, or none and a line that says so.
async fn with_spares(signups: &Fleet, report: &mut Report) -> Outcome<Option<Daemon>> {
    let mut daemon = signups
        .tenantd
        .daemon(&[&format!("spares.keep={SPARES}")])?;
    let listening = daemon.says("listening on").await;
    if let Err(error) = listening {
        if !error.to_string().contains("does not have spares") {
            return Err(error);
        }
        report.skip("spares: not in this build");
        return Ok(None);
    }
    while daemon.started.elapsed() < FIRST_SPARE {
        if daemon.sum(&["tenantd_spares{"]).await? > 0.0 {
            return Ok(Some(daemon));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    report.skip("spares: not in this build");
    daemon.stop().await?;
    Ok(None)
}

async fn without_spares(
    signups: &Fleet,
    report: &mut Report,
    ready: &mut Heard,
    rounds: usize,
) -> Outcome<()> {
    let mut daemon = signups.tenantd.daemon(&[])?;
    daemon.settled().await?;
    let mut times = Samples::default();
    for id in rounds..2 * rounds {
        let insert = format!("INSERT INTO public.tenants VALUES ({id}, 'new')");
        times
            .0
            .push(insert_to_ready(signups, &insert, ready, id).await?);
    }
    report.add(
        "insert to ready, without spares",
        "tenantd",
        0,
        "ms",
        &times,
    );
    daemon.stop().await
}

/// The bare client, a process of its own as tenantd is; killed on drop.
struct Renamer {
    _child: Child,
}

impl Renamer {
    /// Returns when it listens.
    async fn start(conninfo: &str) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(RENAMES, conninfo)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("it has no standard output")?;
        BufReader::new(stdout).lines().next_line().await?;
        Ok(Self { _child: child })
    }
}

/// That process: renames a ready schema for each id it hears of, and says so in the same transaction.
pub(crate) async fn rename(conninfo: &str) -> Outcome<()> {
    let mut inserted = Heard::new(conninfo, "bare_inserted").await?;
    println!("listening");
    loop {
        let (_, id) = inserted.next().await?;
        let sql = format!("ALTER SCHEMA spare_{id} RENAME TO bare_{id}; NOTIFY bare_ready, '{id}'");
        inserted.client.batch_execute(&sql).await?;
    }
}

/// In milliseconds, from the answer to the commit.
async fn insert_to_ready(
    signups: &Fleet,
    insert: &str,
    ready: &mut Heard,
    id: usize,
) -> Outcome<f64> {
    signups.app.batch_execute(insert).await?;
    let committed = Instant::now();
    let at = ready.payload(&id.to_string()).await?;
    Ok(crate::stats::ms(at.saturating_duration_since(committed)))
}
