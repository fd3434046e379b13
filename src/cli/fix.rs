//! `tenantd fix`: tables for tenants without any; a released quarantine; a lost schema built anew.

use clap::Args;
use tenantd::{
    Config, Error, Result,
    fleet::{State, Which, ledger, requests},
    reconcile::Reason,
};

use super::{
    Code, migrate,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Tenants, by id or schema; without any, all that have no tables are left to the daemon.
    tenants: Vec<String>,
    /// Build a lost tenant anew; what is left of its schema is renamed and kept.
    #[arg(long)]
    rebuild: bool,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, !arguments.tenants.is_empty()).await?;
    if arguments.tenants.is_empty() {
        if arguments.rebuild {
            return Err(Error::Refused(
                "--rebuild gives up what a schema held: name the tenants".into(),
            ));
        }
        return fix_empty(&engine).await;
    }
    let (mut ids, mut lines) = (Vec::new(), Vec::new());
    for tenant in super::find(&engine, &arguments.tenants).await? {
        match tenant.state {
            State::Lost if arguments.rebuild => {
                let outcome = engine.reconciler.rebuild(&tenant, Reason::Manual).await?;
                lines.push(migrate::line(tenant.id, outcome));
                continue;
            }
            State::Quarantined | State::Failed | State::Blocked => {
                let client = engine.reconciler.pool().get().await?;
                ledger::release_quarantine(&client, &tenant.id).await?;
            }
            _ => {}
        }
        ids.push(tenant.id);
    }
    lines.extend(migrate::migrate(&engine, ids, false).await?);
    migrate::report(&lines, false, format)
}

/// Hands every tenant without tables to the daemon.
async fn fix_empty(engine: &tenantd::daemon::Engine) -> Result<Code> {
    let client = engine.reconciler.pool().get().await?;
    let without = [State::Unprovisioned, State::Empty];
    let loaded = engine.reconciler.loaded();
    let tenants = loaded.census.list(&client, Which::In(&without)).await?;
    let ids: Vec<_> = tenants.into_iter().map(|tenant| tenant.id).collect();
    let asked = ids.len();
    if asked > 0 {
        requests::migrate(&client, &ids).await?;
    }
    drop(client);
    out!("{asked} tenants without tables are asked for");
    if asked > 0 {
        super::warn_without_daemon(engine).await?;
    }
    Ok(Code::Ok)
}
