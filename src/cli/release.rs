//! `tenantd release`: lets a version that was stopped be tried on the fleet again.

use clap::Args;
use tenantd::{
    Config, Error, Result,
    fleet::{breaker, requests},
};

use super::{
    Code,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The version, as in the file name; by default every one that is stopped.
    version: Option<String>,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, false).await?;
    let release = &engine.reconciler.loaded().release;
    let version = arguments.version.as_deref();
    if let Some(version) = version
        && !release.set.files().iter().any(|f| f.version == version)
    {
        return Err(Error::Refused(format!(
            "the migration set has no version {version}: write it as in the file name"
        )));
    }
    let client = engine.reconciler.pool().get().await?;
    let closed = breaker::close(&client, release, version).await?;
    if closed.is_empty() {
        return Err(Error::Refused(match version {
            Some(version) => {
                format!("version {version} is not stopped: there is nothing to release")
            }
            None => "no version is stopped: there is nothing to release".into(),
        }));
    }
    requests::sweep(&client).await?;
    drop(client);
    match format {
        output::Format::Json => output::json(&serde_json::json!({ "released": closed }))?,
        output::Format::Table => out!(
            "released {}: tried again on the tenants that wait; those in quarantine stay there until `tenantd fix TENANT`",
            closed.join(", ")
        ),
    }
    super::warn_without_daemon(&engine).await?;
    Ok(Code::Ok)
}
