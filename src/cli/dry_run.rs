//! `tenantd migrate --dry-run`: what would be done, in groups of tenants that lack the same files; and what these lock.

use std::collections::{BTreeMap, BTreeSet};

use tenantd::{
    Result,
    daemon::Engine,
    fleet::{Group, Tenant, Which},
    migrations::Migration,
    reconcile::Loaded,
};

use super::{
    Code,
    migrate::healing,
    output::{self, out},
};

/// Schemas that are named of a group of all tenants, as JSON.
const NAMED: usize = 100;
/// Versions that are named one by one.
const VERSIONS: usize = 4;

/// Tenants that lack the same.
#[derive(Default)]
struct Same {
    tenants: usize,
    /// The first of them.
    schemas: Vec<String>,
    /// Some have tables, which are locked.
    used: bool,
}

/// What is lacking: whether the schema is, and the files (ordinals).
type Lack = (bool, Vec<usize>);

/// Against what is loaded: the released head, or what `release` would make it.
pub(crate) async fn run(
    engine: &Engine,
    loaded: &Loaded,
    named: Option<Vec<Tenant>>,
    format: output::Format,
) -> Result<Code> {
    let mut groups = BTreeMap::new();
    match named {
        Some(tenants) => sort(engine, loaded, &tenants, usize::MAX, &mut groups),
        None => {
            let states = healing();
            let mut after: Option<String> = None;
            loop {
                let client = engine.reconciler.pool().get().await?;
                let which = Which::In(&states);
                let window = loaded.census.window(&client, which, after.as_deref());
                let window = window.await?;
                sort(engine, loaded, &window.tenants, NAMED, &mut groups);
                after = window.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    match format {
        output::Format::Json => json(loaded, &groups)?,
        output::Format::Table => table(loaded, &groups),
    }
    Ok(Code::Ok)
}

/// Sorts these tenants into the groups, each of which remembers at most so many schemas.
fn sort(
    engine: &Engine,
    loaded: &Loaded,
    tenants: &[Tenant],
    most: usize,
    groups: &mut BTreeMap<Lack, Same>,
) {
    for tenant in tenants {
        let plan = engine.reconciler.plan(loaded, tenant);
        let files: Vec<_> = match tenant.state.group() {
            Group::NeedsPerson => Vec::new(),
            _ => plan
                .files(loaded.release.set.files())
                .map(|file| file.ordinal)
                .collect(),
        };
        let create = plan.create_schema && !files.is_empty();
        let group = groups.entry((create, files)).or_default();
        group.tenants += 1;
        group.used |= tenant.has_tables;
        if group.schemas.len() < most {
            group.schemas.push(tenant.schema.clone());
        }
    }
}

fn files<'a>(loaded: &'a Loaded, ordinals: &[usize]) -> Vec<&'a Migration> {
    let all = loaded.release.set.files();
    ordinals.iter().map(|ordinal| &all[ordinal - 1]).collect()
}

fn json(loaded: &Loaded, groups: &BTreeMap<Lack, Same>) -> Result<()> {
    let group = |((create, ordinals), same): (&Lack, &Same)| {
        let files = files(loaded, ordinals);
        let locks = files.iter().filter(|_| same.used).map(|file| {
            let known = file.locks.known.iter();
            let known: Vec<_> = known
                .map(|lock| serde_json::json!({ "lock": lock.mode.as_str(), "on": lock.on }))
                .collect();
            serde_json::json!({ "file": file.file, "locks": known, "unknown": file.locks.more })
        });
        serde_json::json!({
            "create_schema": create,
            "files": files.iter().map(|file| &file.file).collect::<Vec<_>>(),
            "tenants": same.tenants,
            "schemas": same.schemas,
            "schemas_truncated": same.schemas.len() < same.tenants,
            "locks": locks.collect::<Vec<_>>(),
        })
    };
    output::json(&groups.iter().map(group).collect::<Vec<_>>())
}

fn table(loaded: &Loaded, groups: &BTreeMap<Lack, Same>) {
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|(_, same)| std::cmp::Reverse(same.tenants));
    for ((create, ordinals), same) in sorted {
        let some: Vec<_> = same.schemas.iter().take(3).map(String::as_str).collect();
        let more = if same.tenants > 3 { ", …" } else { "" };
        let create = if *create {
            "create the schema, then "
        } else {
            ""
        };
        out!(
            "{} tenants ({}{more}): {create}{}",
            same.tenants,
            some.join(", "),
            work(loaded, ordinals)
        );
    }
    let used = groups.iter().filter(|(_, same)| same.used);
    let pending: BTreeSet<_> = used.flat_map(|((_, files), _)| files).copied().collect();
    if !pending.is_empty() {
        out!("locks on tables that exist:");
    }
    for file in files(loaded, &pending.into_iter().collect::<Vec<_>>()) {
        out!("  {}: {}", file.file, file.locks);
    }
    let all: usize = groups.values().map(|same| same.tenants).sum();
    out!("{all} tenants; nothing was changed");
}

/// The files in few words.
fn work(loaded: &Loaded, ordinals: &[usize]) -> String {
    let files = files(loaded, ordinals);
    match files.as_slice() {
        [] => "nothing to do, or nothing we may do".to_owned(),
        [only] => only.file.clone(),
        files if files.len() == loaded.release.head => format!("all {}", files.len()),
        files if files.len() <= VERSIONS => {
            let versions: Vec<_> = files.iter().map(|file| file.version.as_str()).collect();
            versions.join(", ")
        }
        [first, .., last] => format!("{} files, {} to {}", files.len(), first.file, last.file),
    }
}
