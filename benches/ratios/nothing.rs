//! Nothing to do: who is not at head, asked of a fleet in which everybody is.

use std::time::Instant;

use tenantd::{
    daemon::{Engine, engine},
    fleet::{Depth, glance::LOOKED_AT},
    migrations::MigrationSet,
};

use crate::{Outcome, fleet::Fleet, report::Report, stats::Samples};

const CHECKS: usize = 30;
const SWEEPS: usize = 21;

/// The head check inside this process, over the same connection as the bare query, in turns.
pub(crate) async fn head_check(fleet: &Fleet, report: &mut Report) -> Outcome<()> {
    let config = fleet.tenantd.config()?;
    let set = MigrationSet::load(&fleet.tenantd.migrations())?;
    let pool = engine::pool(&config, "bench")?;
    let engine = Engine::open(config, set, pool, engine::Purpose::Look).await?;
    let client = engine.reconciler.pool().get().await?;
    let census = &engine.reconciler.loaded().census;
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for _ in 0..CHECKS {
        let start = Instant::now();
        let found = census
            .glance(&client, Depth::Heads, None, LOOKED_AT)
            .await?;
        ours.time(start.elapsed());
        let start = Instant::now();
        // Unprepared, as ours is: a check a minute gains nothing from a kept plan.
        let rows = client
            .query_typed(include_str!("head_check.sql"), &[])
            .await?;
        bare.time(start.elapsed());
        let (ours, bare) = (found.doubtful.len() + found.lagging.len(), rows.len());
        if ours + bare > 0 {
            return Err(format!("{ours} and {bare} tenants are in doubt").into());
        }
    }
    report.add("head check", "tenantd", fleet.size, "ms", &ours);
    report.add("head check", "bare SQL", fleet.size, "ms", &bare);
    Ok(())
}

/// The full sweep as a daemon does it and as long as its histogram says, and the bare query, in turns.
pub(crate) async fn full_sweep(fleet: &Fleet, report: &mut Report) -> Outcome<()> {
    let mut daemon = fleet.tenantd.daemon(&[])?;
    daemon.settled().await?;
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for _ in 0..SWEEPS {
        ours.time(daemon.full_sweep().await?);
        let start = Instant::now();
        let rows = fleet
            .app
            .query_typed(include_str!("full_sweep.sql"), &[])
            .await?;
        bare.time(start.elapsed());
        let counted: [i64; 4] = [0, 1, 2, 3].map(|column| rows[0].get(column));
        let all = i64::try_from(fleet.size)?;
        if counted != [all, all, all, 0] {
            return Err(format!("the bare query counts {counted:?}").into());
        }
    }
    report.add("full sweep", "tenantd", fleet.size, "ms", &ours);
    report.add("full sweep", "bare SQL", fleet.size, "ms", &bare);
    daemon.stop().await
}
