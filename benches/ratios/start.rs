//! From the start of the process to its listening, with a fleet of this size.

use crate::{Outcome, fleet::Fleet, report::Report, stats::Samples};

const STARTS: usize = 7;

/// As the log says it.
pub(crate) async fn to_listening(fleet: &Fleet, report: &mut Report) -> Outcome<()> {
    let mut times = Samples::default();
    for _ in 0..STARTS {
        let mut daemon = fleet.tenantd.daemon(&[])?;
        times.time(daemon.says("listening on").await?);
        daemon.settled().await?;
        daemon.stop().await?;
    }
    report.add("start to listening", "tenantd", fleet.size, "ms", &times);
    Ok(())
}
