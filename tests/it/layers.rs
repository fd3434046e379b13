//! The arrows between the library's modules point down only: `pg` <- `migrations`, `fleet` <- `reconcile` <- `daemon`.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::app::repository;

/// Each module and those below it that it may use. `error` names the errors of the modules that it wraps.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("config", &[]),
    ("metrics", &[]),
    ("error", &["config", "migrations", "pg"]),
    ("failpoint", &["error"]),
    ("pg", &["config", "error", "failpoint", "metrics"]),
    ("migrations", &["config", "error", "metrics", "pg"]),
    (
        "fleet",
        &[
            "config",
            "error",
            "failpoint",
            "metrics",
            "pg",
            "migrations",
        ],
    ),
    (
        "reconcile",
        &[
            "config",
            "error",
            "failpoint",
            "metrics",
            "pg",
            "migrations",
            "fleet",
        ],
    ),
    (
        "daemon",
        &[
            "config",
            "error",
            "failpoint",
            "metrics",
            "pg",
            "migrations",
            "fleet",
            "reconcile",
        ],
    ),
];

/// What the library's root exports itself, and where that belongs.
const ROOT: [(&str, &str); 3] = [
    ("Config", "config"),
    ("Error", "error"),
    ("Result", "error"),
];

#[test]
fn the_arrows_between_modules_point_down_only() {
    let src = repository("src");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in sources(&src) {
        let path = file.strip_prefix(&src).unwrap();
        let module = path
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        if ["main", "lib", "cli"].contains(&module) {
            continue;
        }
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            wrong.push(format!(
                "src/{}: module {module} has no place in MAY_USE",
                path.display()
            ));
            continue;
        };
        for (line, used) in uses(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            let target = ROOT
                .iter()
                .find(|(item, _)| *item == used)
                .map_or(used.as_str(), |(_, of)| of);
            if target != module && !allowed.contains(&target) {
                wrong.push(format!(
                    "src/{}:{line}: {module} uses {target}",
                    path.display()
                ));
            }
        }
    }
    assert!(seen > 40, "only {seen} uses were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The first names of all paths that begin at the crate, with their lines: `crate::a::b`, `crate::{a, b::{c}}`.
/// The library's own name and the command line count as well. Comments do not.
fn uses(source: &str) -> Vec<(usize, String)> {
    let code: Vec<_> = source
        .lines()
        .map(|line| line.split("//").next().unwrap())
        .collect();
    let code = code.join("\n");
    let mut found = Vec::new();
    for root in ["crate::", "tenantd::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + root.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => first_names(group),
                None => vec![(0, name(rest))],
            };
            found.extend(names.into_iter().map(|(below, name)| (line + below, name)));
        }
    }
    found
}

/// The first name of each member of a group, and how many lines further down it is.
fn first_names(group: &str) -> Vec<(usize, String)> {
    let (mut depth, mut below, mut wanted) = (0, 0, true);
    let mut names = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '\n' => below += 1,
            ',' => wanted |= depth == 0,
            c if wanted && !c.is_whitespace() => {
                names.push((below, name(&group[at..])));
                wanted = false;
            }
            _ => {}
        }
    }
    names
}

fn name(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn paths_are_found_in_groups_and_in_the_middle_of_code() {
    let source = "use crate::{\n    config::{self, Config},\n    pg,\n};\n// crate::daemon\nfn f() { crate::fleet::g() }\npub(crate) struct X;";
    let expected =
        [(2, "config"), (3, "pg"), (6, "fleet")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(uses(source), expected);
}
