//! `tenantd hold` and `tenantd unhold`: one tenant is left alone, and is not any more.

use std::time::Duration;

use clap::Args;
use tenantd::{
    Config, Error, Result,
    daemon::engine::Purpose,
    fleet::{State, hold, requests},
};

use super::{
    Code,
    output::{self, out},
};

/// How long what runs on the tenant is waited for.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct HoldArguments {
    /// The tenant, by id or schema.
    tenant: String,
    /// Why, for those who find it held.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct UnholdArguments {
    /// The tenant, by id or schema.
    tenant: String,
}

pub(crate) async fn hold(
    config: Config,
    arguments: HoldArguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open_for(config, Purpose::Order).await?;
    let found = super::find(&engine, std::slice::from_ref(&arguments.tenant)).await?;
    let client = engine.reconciler.pool().get().await?;
    for tenant in &found {
        hold::hold(&client, tenant, &super::who(), &arguments.reason).await?;
        if tenant.state == State::Refused {
            continue;
        }
        if let Some(who) = hold::until_idle(&client, &tenant.schema, LIMIT).await? {
            return Err(Error::Refused(format!(
                "tenant {} is held now, but {who} still works on schema {}: wait for it, or end it",
                tenant.id, tenant.schema
            )));
        }
    }
    let ids: Vec<_> = found.iter().map(|tenant| tenant.id.as_str()).collect();
    match format {
        output::Format::Json => output::json(&serde_json::json!({ "held": ids }))?,
        output::Format::Table => {
            out!(
                "tenant {} is held: nothing of tenantd runs there",
                ids.join(", ")
            );
        }
    }
    Ok(Code::Ok)
}

pub(crate) async fn unhold(
    config: Config,
    arguments: UnholdArguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open_for(config, Purpose::Order).await?;
    let found = super::find(&engine, std::slice::from_ref(&arguments.tenant)).await?;
    let client = engine.reconciler.pool().get().await?;
    let mut freed = Vec::new();
    for tenant in &found {
        if hold::unhold(&client, &tenant.id).await? {
            freed.push(tenant.id.as_str());
        }
    }
    if freed.is_empty() {
        return Err(Error::Refused(format!(
            "tenant {} is not held: there is nothing to let go",
            arguments.tenant
        )));
    }
    requests::sweep(&client).await?;
    drop(client);
    match format {
        output::Format::Json => output::json(&serde_json::json!({ "unheld": freed }))?,
        output::Format::Table => out!("tenant {} is held no longer", freed.join(", ")),
    }
    super::warn_without_daemon(&engine).await?;
    Ok(Code::Ok)
}
