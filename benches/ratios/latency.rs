//! From the commit of an insert to `tenant_ready`, while nothing else is done and during rollouts.

use std::time::Instant;

use crate::{
    Outcome,
    fleet::Fleet,
    heard::Heard,
    program::{self, Daemon},
    report::Report,
    rollout, sets,
    stats::Samples,
};

/// Above the ids of the fleet.
const FIRST: usize = 10_000_000;
const ROLLOUTS: usize = 8;

pub(crate) async fn measure(fleet: &mut Fleet, report: &mut Report, inserts: usize) -> Outcome<()> {
    let mut daemon = fleet.tenantd.daemon(&[])?;
    daemon.settled().await?;
    let mut ready = Heard::new(&fleet.conninfo, "tenant_ready").await?;
    let mut ids = FIRST..;
    let mut idle = Samples::default();
    for id in ids.by_ref().take(inserts) {
        idle.0.push(insert(fleet, &mut ready, id).await?);
    }
    let mut busy = Samples::default();
    for _ in 0..ROLLOUTS {
        if busy.0.len() < inserts {
            during_one(fleet, &daemon, &mut ready, &mut ids, &mut busy).await?;
        }
    }
    report.add("insert to ready", "tenantd, idle", fleet.size, "ms", &idle);
    report.add(
        "insert to ready",
        "tenantd, during a rollout",
        fleet.size,
        "ms",
        &busy,
    );
    if busy.0.is_empty() {
        return Err("no tenant was inserted during a rollout".into());
    }
    daemon.stop().await
}

/// Inserts as long as the rollout lasts; what was ready only after its end does not count.
async fn during_one(
    fleet: &mut Fleet,
    daemon: &Daemon,
    ready: &mut Heard,
    ids: &mut std::ops::RangeFrom<usize>,
    busy: &mut Samples,
) -> Outcome<()> {
    let table = sets::table(fleet.added);
    fleet.file(&format!(
        "ALTER TABLE {table} ADD COLUMN during_{} integer;",
        fleet.added
    ))?;
    let head = format!("{:04}", 100 + fleet.added);
    daemon.signal("HUP")?;
    let fleet = &*fleet;
    daemon
        .until("the new head", program::OFTEN, async |_| {
            let sql = "SELECT EXISTS (SELECT FROM tenantd.head WHERE version = $1)";
            Ok(fleet.app.query_one(sql, &[&head]).await?.get(0))
        })
        .await?;
    for id in ids {
        let took = insert(fleet, ready, id).await?;
        if rollout::reached(fleet).await? {
            break;
        }
        busy.0.push(took);
    }
    Ok(())
}

/// In milliseconds.
async fn insert(fleet: &Fleet, ready: &mut Heard, id: usize) -> Outcome<f64> {
    let sql = format!("INSERT INTO public.tenants VALUES ({id}, 'new')");
    fleet.app.batch_execute(&sql).await?;
    let committed = Instant::now();
    let at = ready.payload(&id.to_string()).await?;
    Ok(crate::stats::ms(at.saturating_duration_since(committed)))
}
