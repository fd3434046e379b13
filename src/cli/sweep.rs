//! `tenantd sweep`: asks the running daemon to look at the whole fleet now.

use tenantd::{Config, Result, fleet::requests};

use super::{
    Code,
    output::{self, out},
};

pub(crate) async fn run(config: Config, format: output::Format) -> Result<Code> {
    let engine = super::open(config, false).await?;
    let client = engine.reconciler.pool().get().await?;
    requests::sweep(&client).await?;
    drop(client);
    match format {
        output::Format::Table => out!("asked for a sweep"),
        output::Format::Json => output::json(&serde_json::json!({ "requested": "sweep" }))?,
    }
    super::warn_without_daemon(&engine).await?;
    Ok(Code::Ok)
}
