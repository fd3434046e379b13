//! Keys that nobody knows: refused by name, with the place they were written in and a suggestion.

use std::collections::{BTreeMap, BTreeSet};

use config::ValueKind;

use super::layer::{Layer, Table};
use super::suggest::{closest, hint};

/// The keys of each section.
pub(super) type Known = BTreeMap<String, Vec<String>>;

/// Adds a sentence to `problems` for each unknown section and key of a layer.
pub(super) fn report(layer: &Layer, known: &Known, problems: &mut Vec<String>) {
    for (section, value) in layer.table.iter().collect::<BTreeMap<_, _>>() {
        match (known.get(section), &value.kind) {
            (Some(keys), ValueKind::Table(table)) => {
                report_keys(layer, section, table, known, keys, problems);
            }
            (Some(_), _) => problems.push(format!(
                "`{section}` {} is a section; write `[{section}]` and its keys below it",
                layer.source()
            )),
            (None, ValueKind::Table(_)) => problems.push(format!(
                "unknown section [{section}] {}{}",
                layer.source(),
                hint(closest(section, known.keys().map(String::as_str)))
            )),
            (None, _) => problems.push(format!(
                "unknown key `{section}` outside of any section {}{}",
                layer.source(),
                elsewhere(known, section)
            )),
        }
    }
}

fn report_keys(
    layer: &Layer,
    section: &str,
    table: &Table,
    known: &Known,
    keys: &[String],
    problems: &mut Vec<String>,
) {
    let unknown = table.keys().filter(|key| !keys.contains(key));
    for key in unknown.collect::<BTreeSet<_>>() {
        let place = layer.origin.place(section, key);
        let hint = match closest(key, keys.iter().map(String::as_str)) {
            None => elsewhere(known, key),
            near => hint(near),
        };
        problems.push(format!("unknown key `{key}` in [{section}] {place}{hint}"));
    }
}

/// The sections that have exactly this key.
fn elsewhere(known: &Known, key: &str) -> String {
    let homes: Vec<String> = known
        .iter()
        .filter(|(_, keys)| keys.iter().any(|known| known == key))
        .map(|(section, _)| format!("[{section}]"))
        .collect();
    if homes.is_empty() {
        String::new()
    } else {
        format!("; `{key}` is a key of {}", homes.join(" and "))
    }
}
