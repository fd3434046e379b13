//! `make bench`: tenantd against bare SQL and against the tools people use today, in one run on one private cluster.
//!
//! The cluster keeps the server's defaults (fsync on). What is compared is measured in turns, so that whatever else the
//! machine does hits all sides; neighbours are compared, see `Report::ratio`. Bare SQL is the same text, sent by the same
//! driver on warm connections, without ledger, guard or stamp. tenantd is the program itself wherever that can be
//! measured.
//!
//! Each part is a file. What a run has measured goes into `benchmark.json`, from which the page and the plot are made.
//! Environment: `BENCH_TENANTS` (10000) the largest fleet, `BENCH_QUICK=1` fewer repetitions, `LARGE=1` memory with
//! 100 000 tenants too, `BENCH_PARTS` (`new-tenant,claim,peers,fleet,pages`) what to do, `BENCH_OUT` where the files
//! go.

#[path = "../../tests/it/support/postgres.rs"]
mod postgres;

mod claim;
mod fleet;
mod flood;
mod goals;
mod heard;
mod latency;
mod logins;
mod memory;
mod new_tenant;
mod nothing;
mod options;
mod page;
mod peers;
mod plot;
mod program;
mod report;
mod rollout;
mod sets;
mod start;
mod stats;

use fleet::Fleet;
use options::{Choice, Part};
use postgres::Server;
use report::Report;
use tokio::runtime::Builder;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    if let Ok(conninfo) = std::env::var(claim::RENAMES) {
        // One thread, as tenantd has.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(claim::rename(&conninfo));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(&Choice::from_environment()?))
}

async fn run(choice: &Choice) -> Outcome<()> {
    let start = std::time::Instant::now();
    std::fs::create_dir_all(&choice.out)?;
    let file = choice.out.join("benchmark.json");
    let mut report = Report::read(&file)?;
    if choice.measures() {
        measure(choice, &mut report).await?;
    }
    report.judge();
    report.write(&file)?;
    std::fs::write(choice.out.join("benchmark.svg"), plot::draw(&report))?;
    std::fs::write(choice.out.join("benchmark.md"), page::write(&report))?;
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

async fn measure(choice: &Choice, report: &mut Report) -> Outcome<()> {
    let durable = postgres::Options {
        durable: true,
        ..postgres::Options::default()
    };
    let server = Server::start(durable).await?;
    options::describe(&server, choice, report).await?;
    println!(
        "PostgreSQL {}, {} cores, {} GiB; medians, quartiles in brackets\n",
        report.postgresql, report.cores, report.memory_gib
    );
    if choice.has(Part::NewTenant) {
        new_tenant::measure(&server, report, choice.rounds(140)).await?;
    }
    if choice.has(Part::Claim) {
        claim::measure(&server, report, choice.rounds(120)).await?;
    }
    if choice.has(Part::Peers) {
        peers::measure(&server, report, choice.rounds(5)).await?;
    }
    if choice.has(Part::Fleet) {
        for size in choice.sizes() {
            fleet_of(size, &server, choice, report).await?;
        }
    }
    if choice.has(Part::Fleet) && choice.large {
        // One table a tenant: what is measured is tenantd, not the catalog.
        let mut fleet = Fleet::build(&server, 100_000, &sets::fleet(1)).await?;
        memory::measure(&mut fleet, report).await?;
    }
    Ok(())
}

/// Everything that depends on the number of tenants; the largest fleet also serves the other parts.
async fn fleet_of(
    size: usize,
    server: &Server,
    choice: &Choice,
    report: &mut Report,
) -> Outcome<()> {
    let largest = size == choice.tenants;
    let mut fleet = Fleet::build(server, size, &sets::fleet(sets::FLEET_TABLES)).await?;
    nothing::head_check(&fleet, report).await?;
    nothing::full_sweep(&fleet, report).await?;
    start::to_listening(&fleet, report).await?;
    memory::measure(&mut fleet, report).await?;
    rollout::add_column(&mut fleet, report, choice.rounds(9)).await?;
    if largest {
        rollout::create_index(&mut fleet, report, choice.rounds(5)).await?;
        logins::measure(&fleet, report, choice.rounds(7), choice.seconds()).await?;
        flood::measure(&fleet, report).await?;
        latency::measure(&mut fleet, report, choice.rounds(200)).await?;
    }
    fleet.drop(server).await
}
