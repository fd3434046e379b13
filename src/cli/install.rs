//! `tenantd install` and `uninstall`.

use clap::Args;
use tenantd::{Config, Result, daemon::engine, fleet::control};

use super::{Code, output::out};

#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// Print the SQL and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Grant this role what the daemon needs.
    #[arg(long)]
    role: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UninstallArguments {
    /// Print what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Drop the ledger too.
    #[arg(long)]
    purge: bool,
}

pub(crate) async fn install(config: Config, arguments: InstallArguments) -> Result<Code> {
    let pool = engine::pool(&config, "install")?;
    let mut client = pool.get().await?;
    let role = arguments.role.as_deref();
    if arguments.dry_run {
        out!("{}", control::install_sql(&client, &config, role).await?);
        return Ok(Code::Ok);
    }
    for line in control::install(&mut client, &config, role).await? {
        out!("{line}");
    }
    Ok(Code::Ok)
}

pub(crate) async fn uninstall(config: Config, arguments: UninstallArguments) -> Result<Code> {
    let pool = engine::pool(&config, "install")?;
    let mut client = pool.get().await?;
    if arguments.dry_run {
        out!(
            "{}",
            control::uninstall_sql(&client, arguments.purge).await?
        );
        return Ok(Code::Ok);
    }
    for line in control::uninstall(&mut client, arguments.purge).await? {
        out!("{line}");
    }
    Ok(Code::Ok)
}
