//! `tenantd pause` and `tenantd resume`: the whole fleet waits, and goes on.

use clap::Args;
use tenantd::{
    Config, Result,
    daemon::engine::Purpose,
    fleet::{requests, rollout},
};

use super::{
    Code,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Why, for those who find the fleet paused.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn pause(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open_for(config, Purpose::Order).await?;
    let client = engine.reconciler.pool().get().await?;
    let before = rollout::pause(&client, &super::who(), arguments.reason.as_deref()).await?;
    match (format, before) {
        (output::Format::Json, before) => {
            output::json(&serde_json::json!({ "paused": true, "before": before }))?;
        }
        (output::Format::Table, Some(before)) => {
            out!("the fleet is {} already; it stays so", before.sentence());
        }
        (output::Format::Table, None) => out!(
            "paused: no existing schema is migrated until `tenantd resume`; what is being applied comes to its end, new \
             tenants are built, and `tenantd migrate TENANT` still works"
        ),
    }
    Ok(Code::Ok)
}

pub(crate) async fn resume(config: Config, format: output::Format) -> Result<Code> {
    let engine = super::open_for(config, Purpose::Order).await?;
    let client = engine.reconciler.pool().get().await?;
    let was = rollout::resume(&client).await?;
    if was {
        requests::sweep(&client).await?;
    }
    drop(client);
    match format {
        output::Format::Json => output::json(&serde_json::json!({ "resumed": was }))?,
        output::Format::Table if was => out!("the fleet goes on"),
        output::Format::Table => out!("the fleet was not paused"),
    }
    if was {
        super::warn_without_daemon(&engine).await?;
    }
    Ok(Code::Ok)
}
