//! `tenantd status`: the fleet in numbers, or all about some tenants.

use std::time::Duration;

use clap::Args;
use tenantd::{
    Config, Result,
    config::RolloutMode,
    daemon::Engine,
    fleet::{
        Group, State,
        report::{Listed, Report, TenantReport},
        rollout::Progress,
        spare::Numbers,
    },
};
use tokio::time::{Instant, sleep};

use super::{
    Code,
    output::{self, out},
};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Tenants to tell all about, by id or schema.
    tenants: Vec<String>,
    /// List every tenant.
    #[arg(long, conflicts_with = "tenants")]
    all: bool,
    /// Wait until they (or all) are fine, at most this long.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "60s", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    /// End with 3 when something is not current.
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, false).await?;
    let deadline = Instant::now() + arguments.wait.unwrap_or_default();
    let report = loop {
        let report = gather(&engine, &arguments).await?;
        if fine(&report) || Instant::now() >= deadline {
            break report;
        }
        sleep(Duration::from_millis(200)).await;
    };
    match format {
        output::Format::Json => output::json(&report)?,
        output::Format::Table if arguments.tenants.is_empty() => fleet(&report),
        output::Format::Table => {
            for tenant in report.tenants.iter().flatten() {
                one(tenant);
            }
        }
    }
    let waited_in_vain = arguments.wait.is_some() && !fine(&report);
    Ok(if (arguments.check || waited_in_vain) && !fine(&report) {
        Code::NotCurrent
    } else {
        Code::Ok
    })
}

async fn gather(engine: &Engine, arguments: &Arguments) -> Result<Report> {
    super::find(engine, &arguments.tenants).await?;
    let names: Vec<_> = arguments.tenants.iter().map(String::as_str).collect();
    let listed = match names.as_slice() {
        [] if arguments.all => Listed::All,
        [] => Listed::Attention,
        names => Listed::Named(names),
    };
    let loaded = engine.reconciler.loaded();
    let client = engine.reconciler.pool().get().await?;
    Report::gather(
        &client,
        &loaded.census,
        &loaded.release,
        &engine.config.database.name,
        &engine.config.rollout,
        listed,
        engine.config.spares.keep,
    )
    .await
}

/// Whether all that was asked about is fine: nothing heals, nothing needs a person.
fn fine(report: &Report) -> bool {
    match &report.tenants {
        Some(tenants) => tenants
            .iter()
            .all(|tenant| tenant.state.group() == Group::Fine),
        None => report
            .counts
            .by_state
            .iter()
            .all(|(state, count)| *count == 0 || state.group() == Group::Fine),
    }
}

fn fleet(report: &Report) {
    let counts = &report.counts;
    out!(
        "tenants {}   schemas that exist {}   with tables {}   without tables {}   head {}\n",
        counts.tenants,
        counts.schemas_existing,
        counts.schemas_with_tables,
        counts.schemas_without_tables,
        report.head
    );
    rollout(&report.rollout);
    for group in [Group::Fine, Group::Healing, Group::NeedsPerson] {
        let of = |state: &State| counts.by_state.get(state).copied().unwrap_or(0);
        let states: Vec<_> = State::ALL
            .iter()
            .filter(|state| state.group() == group && of(state) > 0)
            .collect();
        let total: i64 = states.iter().map(|state| of(state)).sum();
        let parts: Vec<_> = states
            .iter()
            .map(|state| format!("{state} {}", of(state)))
            .collect();
        out!(
            "{:<15} {total:>6}   {}",
            group.to_string(),
            parts.join(", ")
        );
    }
    if report.drifted > 0 {
        out!(
            "drifted         {:>6}   `tenantd verify --all` shows how they differ from fresh schemas",
            report.drifted
        );
    }
    if report.unrecorded > 0 {
        out!(
            "unrecorded      {:>6}   rows of tenantd.applied are gone: see docs/troubleshooting.md",
            report.unrecorded
        );
    }
    spares(&report.spares);
    for stopped in &report.stopped {
        out!(
            "\nstopped: version {} ({}) failed on {} tenants, stopped at {}",
            stopped.version,
            stopped.file,
            stopped.failures,
            stopped.since
        );
        out!("      {}", stopped.error);
        out!("      {}", stopped.next);
    }
    if !report.attention.is_empty() {
        out!("\nneeds a person:");
        for tenant in &report.attention {
            out!("  {} ({}), {}", tenant.id, tenant.schema, tenant.state);
            if let Some(error) = &tenant.error {
                out!("      {error}");
            }
            out!("      {}", tenant.next);
        }
        if report.attention_truncated {
            out!("  … and more: `tenantd status --all` lists them");
        }
    }
    if let Some(tenants) = &report.tenants {
        let rows = tenants.iter().map(|tenant| {
            [
                tenant.id.clone(),
                tenant.name.clone().unwrap_or_default(),
                tenant.schema.clone(),
                tenant.state.to_string(),
                tenant.version.clone().unwrap_or_default(),
                tenant
                    .pending
                    .map_or_else(String::new, |pending| pending.to_string()),
            ]
        });
        out!(
            "\n{}",
            output::table(
                ["id", "name", "schema", "state", "version", "pending"],
                rows
            )
        );
    }
    match report.daemons.as_slice() {
        [] => out!("\nno tenantd is running: start it with `tenantd run`"),
        daemons => out!("\nrunning: {}", daemons.join(", ")),
    }
}

/// Told where there are some, or should be.
fn spares(numbers: &Numbers) {
    let Numbers {
        ready,
        keep,
        existing,
        refused,
    } = numbers;
    if *keep == 0 && *existing == 0 {
        return;
    }
    let mut text = format!("ready of {keep} to keep");
    if existing > ready {
        text += &format!("; {} not at head yet", existing - ready);
    }
    if let Some(why) = refused {
        text = format!("none for this set: {why}");
    } else if *keep == 0 {
        text += "; new tenants take them, or `tenantd uninstall` removes them";
    }
    out!("spares          {ready:>6}   {text}");
}

/// How a rollout goes, where there is something to say.
fn rollout(progress: &Progress) {
    let mut lines = Vec::new();
    let waits = progress.released.as_ref() != Some(&progress.loaded);
    if progress.mode == RolloutMode::Manual && waits {
        let released = progress.released.as_deref().unwrap_or("nothing");
        lines.push(format!(
            "released {released}, loaded {}: `tenantd release` rolls it out",
            progress.loaded
        ));
    }
    if progress.pending > 0 && progress.rate > 0.0 {
        let left = progress.eta_seconds.unwrap_or_default();
        lines.push(format!(
            "rollout: {} tenants pending, {:.0} a second, {left:.0} s left",
            progress.pending, progress.rate
        ));
    }
    lines.extend(
        progress
            .paused
            .as_ref()
            .map(|paused| format!("{}; `tenantd resume` goes on", paused.sentence())),
    );
    lines.extend(
        progress
            .brake
            .as_ref()
            .map(|why| format!("the rollout stands back: {why}")),
    );
    if !lines.is_empty() {
        out!("{}\n", lines.join("\n"));
    }
}

fn one(tenant: &TenantReport) {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let mut lines = vec![
        ("tenant", tenant.id.clone()),
        ("name", text(&tenant.name)),
        ("schema", tenant.schema.clone()),
        (
            "state",
            format!("{} ({})", tenant.state, tenant.state.group()),
        ),
        ("version", text(&tenant.version)),
        (
            "pending",
            tenant
                .pending
                .map_or_else(|| "-".into(), |pending| format!("{pending} files")),
        ),
        ("migrated", text(&tenant.migrated_at)),
    ];
    if let Some(error) = &tenant.error {
        lines.push(("error", error.clone()));
        lines.push(("since", text(&tenant.error_at)));
        lines.push(("attempts", tenant.attempts.to_string()));
    }
    if let Some(seconds) = tenant.next_attempt_in_seconds {
        lines.push(("next attempt", format!("in {seconds:.1} s")));
    }
    lines.push(("next", tenant.next.clone()));
    for (label, value) in lines {
        out!("{label:<13} {value}");
    }
    out!("");
}
