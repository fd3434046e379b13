//! One file for the whole fleet, one transaction a tenant: by the command, by the daemon, and by bare SQL.

use std::time::{Duration, Instant};

use crate::{
    Outcome,
    fleet::Fleet,
    program::{self, Daemon},
    report::Report,
    sets,
    stats::Samples,
};

/// Messages on their way at once on each connection, where they are pipelined.
const DEPTH: usize = 4;

/// Who brings the file to the fleet.
#[derive(Clone, Copy)]
enum Contender {
    Command,
    Daemon,
    Bare { commit: &'static str, depth: usize },
}

const CONTENDERS: [(&str, Contender); 6] = [
    ("tenantd migrate", Contender::Command),
    ("tenantd daemon", Contender::Daemon),
    (
        "bare SQL, asynchronous",
        Contender::Bare {
            commit: "off",
            depth: 1,
        },
    ),
    (
        "bare SQL, asynchronous, pipelined",
        Contender::Bare {
            commit: "off",
            depth: DEPTH,
        },
    ),
    (
        "bare SQL, synchronous",
        Contender::Bare {
            commit: "on",
            depth: 1,
        },
    ),
    (
        "bare SQL, synchronous, pipelined",
        Contender::Bare {
            commit: "on",
            depth: DEPTH,
        },
    ),
];

/// `ADD COLUMN`, tenants a second.
pub(crate) async fn add_column(
    fleet: &mut Fleet,
    report: &mut Report,
    rounds: usize,
) -> Outcome<()> {
    in_turns(fleet, report, rounds, "ADD COLUMN", |table, number| {
        format!("ALTER TABLE {table} ADD COLUMN added_{number} integer;")
    })
    .await
}

/// `CREATE INDEX` on an empty table, tenants a second.
pub(crate) async fn create_index(
    fleet: &mut Fleet,
    report: &mut Report,
    rounds: usize,
) -> Outcome<()> {
    in_turns(fleet, report, rounds, "CREATE INDEX", |table, number| {
        format!("CREATE INDEX added_{number} ON {table} (amount);")
    })
    .await
}

/// Each round takes another table, the same for everybody, and begins with another contender after a checkpoint.
async fn in_turns(
    fleet: &mut Fleet,
    report: &mut Report,
    rounds: usize,
    part: &str,
    text: impl Fn(&str, usize) -> String,
) -> Outcome<()> {
    let mut rates = CONTENDERS.map(|_| Samples::default());
    for round in 0..rounds {
        let table = sets::table(fleet.added);
        for turn in 0..CONTENDERS.len() {
            let who = (turn + round) % CONTENDERS.len();
            let number = fleet.added * CONTENDERS.len() + who;
            let sql = text(table, number);
            fleet.app.batch_execute("CHECKPOINT").await?;
            let took = bring(fleet, CONTENDERS[who].1, &sql).await?;
            if round + 1 == rounds {
                everywhere(fleet, &format!("added_{number}")).await?;
            }
            rates[who].rate(fleet.size, took);
        }
    }
    for ((who, _), rates) in CONTENDERS.iter().zip(&rates) {
        report.add(part, who, fleet.size, "tenants/s", rates);
    }
    Ok(())
}

/// The new column or index must be in every schema, whoever made it.
async fn everywhere(fleet: &Fleet, name: &str) -> Outcome<()> {
    let sql = "SELECT (SELECT count(*) FROM pg_attribute WHERE attname = $1)
                    + (SELECT count(*) FROM pg_class WHERE relname = $1)";
    let there: i64 = fleet.app.query_one(sql, &[&name]).await?.get(0);
    if usize::try_from(there)? != fleet.size {
        return Err(format!("{name} is in {there} of {} schemas", fleet.size).into());
    }
    Ok(())
}

async fn bring(fleet: &mut Fleet, by: Contender, sql: &str) -> Outcome<Duration> {
    match by {
        Contender::Command => {
            fleet.file(sql)?;
            let start = Instant::now();
            let times = fleet.tenantd.migrate_all()?;
            let took = start.elapsed();
            if times > 1 {
                println!("migrate --all had to be run {times} times; all of them count");
            }
            if !reached(fleet).await? {
                return Err("migrate --all has left tenants behind".into());
            }
            Ok(took)
        }
        Contender::Daemon => {
            let mut daemon = fleet.tenantd.daemon(&[])?;
            daemon.settled().await?;
            let took = by_daemon(fleet, &daemon, sql).await?;
            daemon.stop().await?;
            Ok(took)
        }
        Contender::Bare { commit, depth } => {
            fleet.commit_mode(commit).await?;
            let message =
                |id| format!("BEGIN; SET LOCAL search_path = tenant_{id}, public; {sql} COMMIT");
            fleet.each(1..fleet.size + 1, depth, message).await
        }
    }
}

/// From SIGHUP until everybody is at the new head.
pub(crate) async fn by_daemon(fleet: &mut Fleet, daemon: &Daemon, sql: &str) -> Outcome<Duration> {
    fleet.file(sql)?;
    let start = Instant::now();
    daemon.signal("HUP")?;
    let fleet = &*fleet;
    // To look is to read the ledger, so seldom in a large fleet: the rollout takes fifty times as long.
    let every = program::OFTEN.max(Duration::from_micros(5) * u32::try_from(fleet.size)?);
    daemon
        .until("the rollout", every, async |_| reached(fleet).await)
        .await?;
    Ok(start.elapsed())
}

/// Whether the file added last is the head, and everybody there.
pub(crate) async fn reached(fleet: &Fleet) -> Outcome<bool> {
    let head = format!("{:04}", 100 + fleet.added);
    let row = fleet.app.query_one(
        "SELECT EXISTS (SELECT FROM tenantd.head WHERE version = $1)
            AND NOT EXISTS (SELECT FROM tenantd.tenant t, tenantd.head h WHERE t.digest IS DISTINCT FROM h.digest)",
        &[&head])
        .await?;
    Ok(row.get(0))
}
