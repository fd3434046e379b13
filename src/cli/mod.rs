//! The command line: one file a command. Results go to stdout, progress and logs to stderr.

mod adopt;
mod check;
mod dry_run;
mod exit;
mod exposed;
mod fix;
mod hold;
mod install;
mod logging;
mod migrate;
mod output;
mod pause;
mod progress;
mod release;
mod run;
mod status;
mod sweep;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tenantd::{
    Config, Error, Result,
    daemon::{
        Engine,
        engine::{self, Purpose},
    },
    fleet::{Tenant, instances},
    migrations::MigrationSet,
};

pub(crate) use exit::Code;

/// Keeps every tenant schema of a schema-per-tenant PostgreSQL application at head.
///
/// A tenant is named by its id or by its schema. Exit codes: 0 done; 1 an error; 2 wrong usage;
/// 3 something is not current (with --check) or has drifted (verify); 4 some tenants failed, the others are done.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "TENANTD_CONFIG"
    )]
    config: Option<PathBuf>,
    /// The database, as a URI or key=value; overrides database.url.
    #[arg(
        long,
        short,
        global = true,
        value_name = "CONNINFO",
        hide_env_values = true
    )]
    database_url: Option<String>,
    /// Sets one key of the configuration, for instance --set sweep.interval=30s.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How results are printed.
    #[arg(long, short, global = true, value_enum, default_value = "table")]
    output: output::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: listen, sweep, migrate, serve metrics.
    Run,
    /// Show the fleet in numbers and the tenants that need a person; or all about some tenants.
    Status(status::Arguments),
    /// Give the tenants without tables their tables; with TENANT, release it from quarantine too.
    Fix(fix::Arguments),
    /// Bring tenants to head, in this process or by the daemon.
    Migrate(migrate::Arguments),
    /// Ask the running daemon to look at the whole fleet now.
    Sweep,
    /// Compare schemas with fresh ones at the same version, line by line.
    Verify(verify::Arguments),
    /// Release the loaded files to the fleet; try a version again that failed on too many tenants.
    Release(release::Arguments),
    /// Leave every schema that exists as it is, until `resume`; new tenants are still built.
    Pause(pause::Arguments),
    /// Go on after `pause`.
    Resume,
    /// Keep tenantd off one tenant; when it returns, nothing runs there any more.
    Hold(hold::HoldArguments),
    /// Let a tenant go that was held.
    Unhold(hold::UnholdArguments),
    /// Take schemas into the ledger that tenantd did not build or that were restored.
    Adopt(adopt::Arguments),
    /// Install or upgrade the schema `tenantd` and the triggers in the database.
    Install(install::InstallArguments),
    /// Remove the triggers; the ledger stays unless --purge.
    Uninstall(install::UninstallArguments),
    /// Check the migration directory; needs no database.
    Check(check::Arguments),
}

/// Runs one command.
pub(crate) async fn run(arguments: Arguments) -> Result<Code> {
    let format = arguments.output;
    let config = load(&arguments)?;
    logging::start(&config.log, matches!(arguments.command, Command::Run));
    if let (Command::Run, Some(file)) = (&arguments.command, &arguments.config) {
        exposed::warn(file);
    }
    match arguments.command {
        Command::Run => run::run(config).await,
        Command::Status(arguments) => status::run(config, arguments, format).await,
        Command::Fix(arguments) => fix::run(config, arguments, format).await,
        Command::Migrate(arguments) => migrate::run(config, arguments, format).await,
        Command::Sweep => sweep::run(config, format).await,
        Command::Verify(arguments) => verify::run(config, arguments, format).await,
        Command::Release(arguments) => release::run(config, arguments, format).await,
        Command::Pause(arguments) => pause::pause(config, arguments, format).await,
        Command::Resume => pause::resume(config, format).await,
        Command::Hold(arguments) => hold::hold(config, arguments, format).await,
        Command::Unhold(arguments) => hold::unhold(config, arguments, format).await,
        Command::Adopt(arguments) => adopt::run(config, arguments, format).await,
        Command::Install(arguments) => install::install(config, arguments).await,
        Command::Uninstall(arguments) => install::uninstall(config, arguments).await,
        Command::Check(arguments) => check::run(config, arguments, format).await,
    }
}

fn load(arguments: &Arguments) -> Result<Config> {
    let mut overrides = Vec::new();
    for pair in &arguments.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            // What follows the key may be a connection string with a password.
            let mut key = pair.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
            Error::Refused(format!(
                "--set {}: write it as KEY=VALUE, for instance sweep.interval=30s",
                key.next().unwrap_or_default()
            ))
        })?;
        overrides.push((key.trim().to_owned(), value.to_owned()));
    }
    if let Some(url) = &arguments.database_url {
        overrides.push(("database.url".into(), url.clone()));
    }
    Ok(Config::load(arguments.config.as_deref(), overrides)?)
}

/// What a command works with: the loaded set and the database. A command that applies the set publishes
/// it as a daemon would; one that only looks leaves the released head alone.
async fn open(config: Config, applies: bool) -> Result<Engine> {
    let purpose = match applies {
        true => Purpose::Apply,
        false => Purpose::Look,
    };
    open_for(config, purpose).await
}

async fn open_for(config: Config, purpose: Purpose) -> Result<Engine> {
    let set = MigrationSet::load(&config.migrations.dir)?;
    let pool = engine::pool(&config, "cli")?;
    Engine::open(config, set, pool, purpose).await
}

/// Who gives an order, for the ledger: the user and the host.
fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| "somebody".into());
    format!("{user}@{}", engine::host())
}

/// The tenants of these names; an error names those that are none.
async fn find(engine: &Engine, names: &[String]) -> Result<Vec<Tenant>> {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let client = engine.reconciler.pool().get().await?;
    let found = engine
        .reconciler
        .loaded()
        .census
        .find(&client, &names)
        .await?;
    let unknown: Vec<_> = names
        .iter()
        .filter(|name| !found.iter().any(|t| t.id == **name || t.schema == **name))
        .copied()
        .collect();
    if unknown.is_empty() {
        return Ok(found);
    }
    Err(Error::Refused(format!(
        "no tenant in {} has this id or schema: {}",
        engine.config.registry.table,
        unknown.join(", ")
    )))
}

/// Says on stderr when nobody will do what was just asked for.
async fn warn_without_daemon(engine: &Engine) -> Result<()> {
    let client = engine.reconciler.pool().get().await?;
    if instances::running(&client).await?.is_empty() {
        eprintln!(
            "accepted, but no tenantd is running: start it with `tenantd run` (or systemctl start tenantd)"
        );
    }
    Ok(())
}
