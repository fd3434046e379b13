//! `tenantd adopt`: takes schemas into the ledger on a person's word.

use clap::Args;
use tenantd::{Config, Result, fleet::adopt};

use super::{
    Code, migrate,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Tenants, by id or schema.
    #[arg(required = true)]
    tenants: Vec<String>,
    /// The version they are at; by default the stamp of a restored one, the head for an untracked one.
    #[arg(long)]
    version: Option<String>,
    /// Adopt although the catalog differs from a fresh build at that version.
    #[arg(long)]
    force: bool,
    /// Compare only.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, !arguments.dry_run).await?;
    let loaded = engine.reconciler.loaded();
    let (mut ids, mut differ) = (Vec::new(), false);
    for tenant in super::find(&engine, &arguments.tenants).await? {
        let pool = engine.reconciler.pool();
        let adoption = adopt::examine(
            pool,
            &loaded.release,
            &tenant,
            arguments.version.as_deref(),
            &engine.config.migrations,
        )
        .await?;
        let version = adoption
            .files
            .last()
            .map(|file| file.version.as_str())
            .unwrap_or_default();
        if !adoption.difference.is_empty() {
            differ = true;
            eprintln!(
                "schema {} differs from a fresh one at {version} (- missing, + extra):\n{}",
                tenant.schema, adoption.difference
            );
            if !arguments.force {
                eprintln!(
                    "not adopted: name the right version with --version, mend the schema, or say --force"
                );
                continue;
            }
        }
        if arguments.dry_run {
            out!("{} would be adopted at {version}", tenant.schema);
            continue;
        }
        let mut client = pool.get().await?;
        adopt::record(&mut client, &tenant, adoption.files, &engine.instance).await?;
        eprintln!("schema {} is adopted at {version}", tenant.schema);
        ids.push(tenant.id);
    }
    if differ && !arguments.force {
        return Ok(Code::Error);
    }
    if arguments.dry_run {
        return Ok(Code::Ok);
    }
    let lines = migrate::migrate(&engine, ids, false).await?;
    migrate::report(&lines, false, format)
}
