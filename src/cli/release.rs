//! `tenantd release`: moves the released head, and lets a version that was stopped be tried on the fleet again.

use clap::Args;
use tenantd::{
    Config, Error, Result,
    config::RolloutMode,
    daemon::{Engine, engine::Purpose},
    fleet::{Release, breaker, head, requests, rollout},
    reconcile::Loaded,
};

use super::{
    Code, dry_run,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The version, as in the file name; by default the last one of the loaded set.
    version: Option<String>,
    /// Tenants a second from now on, with each daemon; 0: no limit; `default`: as configured.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    max_rate: Option<Rate>,
    /// Also back to an older version, or to files that do not go on from the released ones.
    #[arg(long)]
    force: bool,
    /// Show what the rollout would do: tenants grouped by identical pending work.
    #[arg(long)]
    dry_run: bool,
}

/// `None`: as configured.
type Rate = Option<u32>;

fn rate(text: &str) -> std::result::Result<Rate, String> {
    if text == "default" {
        return Ok(None);
    }
    let rate = text.parse::<i32>().ok().filter(|rate| *rate >= 0);
    rate.map(|rate| Some(rate.unsigned_abs()))
        .ok_or_else(|| "write a number of tenants a second, or `default`".into())
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open_for(config, Purpose::Order).await?;
    let release = chosen(&engine, arguments.version.as_deref())?;
    if arguments.dry_run {
        let registry = engine.reconciler.loaded().census.registry().clone();
        let loaded = Loaded::new(registry, release);
        return dry_run::run(&engine, &loaded, None, format).await;
    }
    let before = {
        let client = engine.reconciler.pool().get().await?;
        head::released(&client, &release.set).await?
    };
    let named = arguments.version.as_deref();
    // One that is part of what is released is meant alone: it was stopped.
    let within = before.as_ref().and_then(|now| now.common) >= Some(release.head);
    let only = named.filter(|_| auto(&engine) || within && !arguments.force);
    let mut closed = close(&engine, &release, only).await?;
    let is_new = before.is_none_or(|before| before.digest != release.head().digest);
    let moved = is_new
        && (only.is_none() || closed.is_empty())
        && move_head(&engine, &release, arguments.force).await?;
    if moved && only.is_some() {
        closed = close(&engine, &release, None).await?;
    }
    if !moved && closed.is_empty() && arguments.max_rate.is_none() {
        return Err(nothing(&release, named, is_new));
    }
    let client = engine.reconciler.pool().get().await?;
    if let Some(max_rate) = arguments.max_rate {
        rollout::set_max_rate(&client, max_rate).await?;
    }
    requests::sweep(&client).await?;
    drop(client);
    let version = &release.head().version;
    match format {
        output::Format::Json => output::json(&serde_json::json!({
            "released": closed, "head": version, "moved": moved,
        }))?,
        output::Format::Table => {
            if moved {
                out!("released {version} to the fleet");
            }
            if !closed.is_empty() {
                out!(
                    "released {}: tried again on the tenants that wait; those in quarantine stay there until `tenantd fix TENANT`",
                    closed.join(", ")
                );
            }
            match arguments.max_rate {
                Some(Some(0)) => out!("max_rate: no limit"),
                Some(Some(rate)) => out!("max_rate: {rate} tenants a second"),
                Some(None) => out!("max_rate: as configured"),
                None => {}
            }
        }
    }
    super::warn_without_daemon(&engine).await?;
    Ok(Code::Ok)
}

fn auto(engine: &Engine) -> bool {
    engine.config.rollout.mode == RolloutMode::Auto
}

async fn close(engine: &Engine, release: &Release, only: Option<&str>) -> Result<Vec<String>> {
    let client = engine.reconciler.pool().get().await?;
    breaker::close(&client, release, only).await
}

/// Why nothing was done.
fn nothing(release: &Release, named: Option<&str>, is_new: bool) -> Error {
    let version = &release.head().version;
    Error::Refused(match named {
        Some(version) => format!("version {version} is not stopped: there is nothing to release"),
        None if is_new => format!(
            "the daemon releases version {version} when it loads it, because [rollout] mode is \"auto\": reload it. No \
             version is stopped: there is nothing to release"
        ),
        None => format!(
            "version {version} is released already, and none is stopped: there is nothing to release"
        ),
    })
}

/// The loaded set up to the version, or all of it.
fn chosen(engine: &Engine, version: Option<&str>) -> Result<Release> {
    let mut release = engine.reconciler.loaded().release.clone();
    if let Some(version) = version {
        let files = release.set.files();
        let file = files.iter().find(|file| file.version == version);
        release.head = file
            .ok_or_else(|| {
                Error::Refused(format!(
                    "the migration set has no version {version}: write it as in the file name"
                ))
            })?
            .ordinal;
    }
    Ok(release)
}

/// Whether the released head was moved. In `auto` mode a daemon decides, by what it has loaded.
async fn move_head(engine: &Engine, release: &Release, force: bool) -> Result<bool> {
    if auto(engine) {
        return Ok(false);
    }
    let mut client = engine.reconciler.pool().get().await?;
    match head::release(&mut client, release, &super::who(), force).await? {
        None => Ok(true),
        Some(now) => Err(Error::Refused(format!(
            "the released head is {}, which is not part of what you release: tenants that have more than {} would be \
             left alone, and new ones built without it; if you want that, add `--force`",
            now.version,
            release.head().version
        ))),
    }
}
