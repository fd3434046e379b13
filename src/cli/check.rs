//! `tenantd check`: the migration directory, and on request how it fits the fleet.

use std::path::PathBuf;

use clap::Args;
use tenantd::{
    Config, Result,
    fleet::gaps,
    migrations::{FileFinding, MigrationSet, SetError},
};

use super::{
    Code,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory; by default migrations.dir.
    dir: Option<PathBuf>,
    /// Ask the database too: name the versions that a tenant lacks below one it has.
    #[arg(long)]
    fleet: bool,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let dir = arguments
        .dir
        .unwrap_or_else(|| config.migrations.dir.clone());
    let set = match MigrationSet::load(&dir) {
        Ok(set) => set,
        Err(SetError::Refused(findings)) => {
            print(&findings, format)?;
            return Ok(Code::Error);
        }
        Err(error) => return Err(error.into()),
    };
    print(set.warnings(), format)?;
    if format == output::Format::Table {
        out!(
            "{} files, head {} ({})",
            set.files().len(),
            set.head().version,
            set.head().name
        );
    }
    if !arguments.fleet {
        return Ok(Code::Ok);
    }
    let engine = super::open(config, false).await?;
    let client = engine.reconciler.pool().get().await?;
    let gaps = gaps::find(&client, &engine.reconciler.loaded().release).await?;
    for gap in &gaps {
        out!(
            "{}: version {} is missing on {} tenants that have {} or later, for instance {}: give the file a version above those",
            gap.file,
            gap.version,
            gap.tenants,
            gap.above,
            gap.example
        );
    }
    Ok(if gaps.is_empty() {
        Code::Ok
    } else {
        Code::Error
    })
}

fn print(findings: &[FileFinding], format: output::Format) -> Result<()> {
    if format == output::Format::Table {
        for finding in findings {
            out!("{finding}");
        }
        return Ok(());
    }
    let findings: Vec<_> = findings
        .iter()
        .map(|FileFinding { file, finding }| {
            serde_json::json!({
                "file": file, "line": finding.line, "rule": finding.rule, "message": finding.message,
                "severity": format!("{:?}", finding.severity).to_lowercase(),
            })
        })
        .collect();
    output::json(&findings)
}
