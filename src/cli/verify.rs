//! `tenantd verify`: compares schemas with fresh ones at the same version.

use clap::Args;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use tenantd::{
    Config, Result,
    daemon::Engine,
    fleet::{State, Tenant, Verifier, Which},
};

use super::{
    Code,
    output::{self, out},
    progress::Progress,
};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["tenants", "all"])))]
pub(crate) struct Arguments {
    /// Tenants, by id or schema.
    tenants: Vec<String>,
    /// Every tenant.
    #[arg(long)]
    all: bool,
}

/// What comparing one tenant said.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    schema: String,
    state: State,
    version: Option<String>,
    /// Null: there is nothing to compare.
    drifted: Option<bool>,
    /// Lines of a fresh schema that it lacks.
    missing: Vec<String>,
    /// Lines that a fresh schema has not.
    extra: Vec<String>,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, false).await?;
    let tenants = if arguments.all {
        let client = engine.reconciler.pool().get().await?;
        let loaded = engine.reconciler.loaded();
        loaded.census.list(&client, Which::All).await?
    } else {
        super::find(&engine, &arguments.tenants).await?
    };
    let lines = verify(&engine, tenants).await?;
    let drifted = lines.iter().any(|line| line.drifted == Some(true));
    match format {
        output::Format::Json => output::json(&lines)?,
        output::Format::Table => report(&lines),
    }
    Ok(if drifted { Code::NotCurrent } else { Code::Ok })
}

async fn verify(engine: &Engine, tenants: Vec<Tenant>) -> Result<Vec<Line>> {
    let loaded = engine.reconciler.loaded();
    let verifier = &Verifier::new(loaded.release.clone(), engine.config.migrations.clone());
    let bar = &Progress::new(tenants.len());
    let lines: Vec<Result<Line>> = stream::iter(tenants)
        .map(|tenant| async move {
            let pool = engine.reconciler.pool();
            let difference = verifier.verify(pool, &tenant).await?;
            bar.done(1);
            let drifted = difference.as_ref().map(|it| !it.is_empty());
            let difference = difference.unwrap_or_default();
            Ok(Line {
                id: tenant.id,
                schema: tenant.schema,
                state: tenant.state,
                version: tenant.version,
                drifted,
                missing: difference.missing,
                extra: difference.extra,
            })
        })
        .buffered(usize::from(engine.config.database.workers))
        .collect()
        .await;
    bar.finish();
    lines.into_iter().collect()
}

fn report(lines: &[Line]) {
    let (mut same, mut differ) = (0, 0);
    for line in lines {
        let version = line.version.as_deref().unwrap_or("-");
        match line.drifted {
            Some(false) => same += 1,
            Some(true) => {
                differ += 1;
                out!(
                    "schema {} differs from a fresh one at {version} (- missing, + extra):",
                    line.schema
                );
                let signed = |sign, lines: &[String]| {
                    for line in lines {
                        out!("  {sign} {}", line.replace('\n', "\n    "));
                    }
                };
                signed('-', &line.missing);
                signed('+', &line.extra);
            }
            None => out!(
                "schema {} is {}: nothing to compare",
                line.schema,
                line.state
            ),
        }
    }
    out!(
        "{same} as built, {differ} drifted, {} not compared",
        lines.len() - same - differ
    );
}
