//! `tenantd migrate`: bring tenants to head, here or by the daemon; and what `fix` shares with it.

use std::{
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clap::Args;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use tenantd::{
    Config, Error, Result,
    daemon::Engine,
    fleet::{Depth, Group, State, Tenant, ledger, load::Load, requests, rollout},
    metrics::ReconcileOutcome,
    reconcile::{
        Outcome, Reason, Taken,
        pace::Pace,
        queue::{Key, portion},
    },
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Code, dry_run,
    output::{self, out},
    progress::Progress,
};

/// How long a tenant that another process works on is waited for.
const BUSY: Duration = Duration::from_secs(60);

/// How often the orders for the fleet are read again.
const OBEY: Duration = Duration::from_secs(1);

/// A wait that is worth a command's while.
const SHORTLY: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["tenants", "all"])))]
pub(crate) struct Arguments {
    /// Tenants, by id or schema.
    tenants: Vec<String>,
    /// Every tenant that is behind or has no tables.
    #[arg(long)]
    all: bool,
    /// Leave it to the running daemon and return at once.
    #[arg(long = "async")]
    background: bool,
    /// Show what would be done: tenants grouped by identical pending work.
    #[arg(long)]
    dry_run: bool,
}

/// What became of one tenant.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    id: String,
    schema: String,
    outcome: ReconcileOutcome,
    version: Option<String>,
    files: usize,
    milliseconds: u128,
    message: Option<String>,
}

pub(crate) async fn run(
    config: Config,
    arguments: Arguments,
    format: output::Format,
) -> Result<Code> {
    let engine = super::open(config, !arguments.dry_run && !arguments.background).await?;
    if arguments.dry_run {
        let named = if arguments.all {
            None
        } else {
            Some(super::find(&engine, &arguments.tenants).await?)
        };
        return dry_run::run(&engine, &engine.reconciler.loaded(), named, format).await;
    }
    if arguments.background {
        let client = engine.reconciler.pool().get().await?;
        if arguments.all {
            requests::sweep(&client).await?;
            out!("asked for a sweep of all tenants");
        } else {
            let ids: Vec<_> = super::find(&engine, &arguments.tenants)
                .await?
                .into_iter()
                .map(|t| t.id)
                .collect();
            requests::migrate(&client, &ids).await?;
            out!("asked for {} tenants", ids.len());
        }
        drop(client);
        super::warn_without_daemon(&engine).await?;
        return Ok(Code::Ok);
    }
    let lines = if arguments.all {
        migrate_all(&engine).await?
    } else {
        let tenants = super::find(&engine, &arguments.tenants).await?;
        let ids = tenants.into_iter().map(|tenant| tenant.id).collect();
        migrate(&engine, ids, false).await?
    };
    report(&lines, arguments.all, format)
}

/// Brings these tenants to head in this process, several at a time, in order of what is done first. `all`:
/// nobody named them, so the pace of a rollout holds, and a stopped version stays stopped.
pub(crate) async fn migrate(engine: &Engine, ids: Vec<String>, all: bool) -> Result<Vec<Line>> {
    let pace = Pace::new(0);
    if all {
        obey(engine, &pace, &mut None).await?;
    }
    let at_once = if all { pace.at_once() } else { 1 };
    let bar = Progress::new(ids.len());
    let trouble = Mutex::new(None);
    let ids: Vec<Key> = ids.into_iter().map(Key::from).collect();
    let mut left = &ids[..];
    let portions = std::iter::from_fn(|| {
        let most = portion(left.len()).min(at_once).min(left.len());
        left.split_off(..most).filter(|ids| !ids.is_empty())
    });
    let work = stream::iter(portions)
        .take_while(|_| std::future::ready(!all || lock(&trouble).is_none()))
        .map(|ids| {
            let (pace, bar, trouble) = (&pace, &bar, &trouble);
            async move {
                pace.pass_all(ids.len()).await;
                together(engine, ids, all, bar, trouble)
                    .await
                    .inspect_err(|error| *lock(trouble) = Some(error.to_string()))
            }
        })
        .buffer_unordered(usize::from(engine.config.database.workers))
        .collect();
    let lines: Vec<Result<Vec<Line>>> = tokio::select! {
        lines = work => lines,
        never = keep_obeying(engine, &pace), if all => match never {},
    };
    bar.finish();
    let mut done = Vec::with_capacity(ids.len());
    let mut failure = None;
    for lines in lines {
        match lines {
            Ok(lines) => done.extend(lines),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if all {
        failure = failure.or(settle(engine).await.err());
    }
    let tried = done.len();
    match (lock(&trouble).take().filter(|_| all), failure) {
        (Some(trouble), _) => Err(Error::Refused(format!(
            "stopped after {tried} tenants, because the server is in trouble: {trouble}"
        ))),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(done),
    }
}

/// What a rollout ends with.
async fn settle(engine: &Engine) -> Result<()> {
    let client = engine.reconciler.pool().get().await?;
    if engine.reconciler.asynchronous() {
        ledger::flush(&client).await?;
    }
    if let Err(error) = ledger::note_anybody(&client).await {
        tracing::debug!("a sweep will tell the login trigger: {error}");
    }
    Ok(())
}

/// Some tenants: what can be done for many at once, the others one by one.
async fn together(
    engine: &Engine,
    ids: &[Key],
    all: bool,
    bar: &Progress,
    trouble: &Mutex<Option<String>>,
) -> Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(ids.len());
    let mut alone = Vec::new();
    let mut open = ids.to_vec();
    if !all {
        alone.extend(open.drain(..).map(|id| (id, Reason::Manual)));
    }
    loop {
        for (id, reason) in alone.drain(..) {
            if all && lock(trouble).is_some() {
                return Ok(lines);
            }
            let outcome = patiently(engine, &id, reason, all).await?;
            if outcome.trouble.is_some() {
                lock(trouble).clone_from(&outcome.message);
            }
            bar.done(1);
            lines.push(line(id.to_string(), outcome));
        }
        if open.is_empty() {
            return Ok(lines);
        }
        let reconciler = &engine.reconciler;
        let place = reconciler.places().take(reconciler.loaded().waits()).await;
        let taken = reconciler.batch(&open, Reason::Sweep).await?;
        drop(place);
        let before = lines.len();
        for (id, taken) in std::mem::take(&mut open).into_iter().zip(taken) {
            match taken {
                // A person asks now, so what waits for its time is tried; what waits for `resume` is not.
                Taken::Done(outcome)
                    if outcome.kind == ReconcileOutcome::Waiting && !paused(&outcome) =>
                {
                    alone.push((id, Reason::Manual));
                }
                Taken::Done(outcome) => lines.push(line(id.to_string(), *outcome)),
                Taken::Alone => alone.push((id, Reason::Sweep)),
                Taken::Later => open.push(id),
            }
        }
        bar.done(lines.len() - before);
    }
}

fn paused(outcome: &Outcome) -> bool {
    let tenant = outcome.tenant.as_ref();
    tenant.is_some_and(|tenant| tenant.waits_for_resume().is_some())
}

/// Goes by the fleet's rate, and stands back while the rollout costs others too much. `back`: whether it does.
async fn obey(engine: &Engine, pace: &Pace, back: &mut Option<String>) -> Result<()> {
    let limits = &engine.config.rollout;
    let client = engine.reconciler.pool().get().await?;
    let orders = rollout::orders(&client).await?;
    pace.set(orders.max_rate.unwrap_or(limits.max_rate));
    let load = Load::measure(&client, limits).await?;
    let now = load.too_much(limits, back.is_some()).map(|now| now.text);
    match (&now, &back) {
        (Some(text), None) => eprintln!("the rollout stands back: {text}"),
        (None, Some(_)) => eprintln!("the rollout goes on"),
        _ => {}
    }
    pace.hold(now.is_some());
    *back = now;
    Ok(())
}

/// Does so every second; a question that fails is asked again.
async fn keep_obeying(engine: &Engine, pace: &Pace) -> Infallible {
    let mut back = None;
    loop {
        sleep(OBEY).await;
        let _ = timeout(OBEY * 5, obey(engine, pace, &mut back)).await;
    }
}

fn lock(trouble: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One tenant; waits while another process works on it.
async fn patiently(engine: &Engine, id: &str, reason: Reason, all: bool) -> Result<Outcome> {
    let deadline = Instant::now() + BUSY;
    let mut tries = 0;
    loop {
        let outcome = if all {
            engine.reconciler.reconcile(id, reason).await?
        } else {
            engine.reconciler.by_hand(id).await?
        };
        // The daemon would try the loser of a deadlock again at once, too.
        let shortly = outcome.retry_in.is_some_and(|wait| wait <= SHORTLY);
        tries += u32::from(outcome.kind == ReconcileOutcome::Failed);
        let again = match outcome.kind {
            ReconcileOutcome::Busy => Instant::now() < deadline,
            ReconcileOutcome::Failed => shortly && tries <= 3,
            _ => false,
        };
        if !again {
            return Ok(outcome);
        }
        sleep(outcome.retry_in.unwrap_or(Duration::from_millis(100))).await;
    }
}

async fn migrate_all(engine: &Engine) -> Result<Vec<Line>> {
    let client = engine.reconciler.pool().get().await?;
    let loaded = engine.reconciler.loaded();
    let (mut ids, mut after, mut ahead) = (Vec::new(), None, loaded.take_ahead());
    loop {
        let (start, glance) = match ahead.take() {
            Some(ahead) => ahead,
            None => {
                loaded
                    .glance(&client, Depth::Heads, after.as_deref())
                    .await?
            }
        };
        ids.extend(glance.lagging.iter().map(|it| it.id.clone()));
        loaded.seen.put(start, glance.lagging);
        ids.extend(glance.doubtful);
        after = glance.next;
        if after.is_none() {
            break;
        }
    }
    drop(client);
    let mut lines = migrate(engine, ids, true).await?;
    // Who needs a person is told by `status`.
    lines.retain(|line| line.outcome != ReconcileOutcome::LeftAlone);
    Ok(lines)
}

/// The states that tenantd mends by itself.
pub(crate) fn healing() -> Vec<State> {
    let all = State::ALL.iter().copied();
    all.filter(|state| state.group() == Group::Healing)
        .collect()
}

/// What is told of one tenant.
pub(crate) fn line(id: String, outcome: Outcome) -> Line {
    let message = match (outcome.kind, &outcome.tenant, outcome.message) {
        (ReconcileOutcome::Gone, ..) => Some("the tenant has left the registry".into()),
        (ReconcileOutcome::Quarantined, Some(tenant), Some(error)) => {
            let parked = Tenant {
                state: State::Quarantined,
                ..tenant.clone()
            };
            Some(format!("{error}\n    next: {}", parked.advice()))
        }
        (_, _, message) => message,
    };
    Line {
        schema: outcome
            .tenant
            .as_ref()
            .map(|tenant| tenant.schema.clone())
            .unwrap_or_default(),
        message,
        id,
        outcome: outcome.kind,
        version: outcome.version,
        files: outcome.applied,
        milliseconds: outcome.took.as_millis(),
    }
}

/// Prints what became of the tenants; a long list only where something went wrong.
pub(crate) fn report(lines: &[Line], brief: bool, format: output::Format) -> Result<Code> {
    let done = |line: &&Line| {
        matches!(
            line.outcome,
            ReconcileOutcome::Applied | ReconcileOutcome::Current
        )
    };
    let failed = lines.iter().filter(|line| !done(line)).count();
    match format {
        output::Format::Json => output::json(&lines)?,
        output::Format::Table => {
            // Many tenants that wait for one thing are told of in one line.
            let waits = |line: &&Line| brief && line.outcome == ReconcileOutcome::Waiting;
            for line in lines
                .iter()
                .filter(|line| !brief || !(done(line) || waits(line)))
            {
                let version = line.version.as_deref().unwrap_or("nothing");
                out!(
                    "{} ({}): {} at {version}, {} files, {} ms",
                    line.id,
                    line.schema,
                    line.outcome,
                    line.files,
                    line.milliseconds
                );
                if let Some(message) = &line.message {
                    out!("    {message}");
                }
            }
            let waiting: Vec<_> = lines.iter().filter(waits).collect();
            if let Some(first) = waiting.first() {
                let message = first.message.as_deref().unwrap_or_default();
                out!("{} tenants wait: {message}", waiting.len());
            }
            out!(
                "{} of {} tenants are at head",
                lines.len() - failed,
                lines.len()
            );
        }
    }
    Ok(if failed == 0 {
        Code::Ok
    } else {
        Code::SomeFailed
    })
}
