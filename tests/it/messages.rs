//! Every message that an operator can see has an entry in the troubleshooting guide.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::{fs, path::Path};

use crate::support::app::repository;

/// What begins a message in the source.
const SOURCES: [&str; 7] = [
    "warn!(",
    "error!(",
    "Refused(",
    "WrongServer(",
    "#[error(",
    "eprintln!(",
    "warnings.push(",
];
/// Fewer letters between two placeholders say too little to look for.
const TELLING: usize = 10;
/// How many words of a message the guide has to quote as they are.
const WORDS: usize = 5;

#[test]
fn the_troubleshooting_guide_has_an_entry_for_every_message() {
    let guide = fs::read_to_string(repository("docs/troubleshooting.md")).unwrap();
    let guide = plain(&guide);
    let mut messages = Vec::new();
    for file in sources(&repository("src")) {
        let text = fs::read_to_string(&file).unwrap();
        // What follows are tests.
        let code = text.split("#[cfg(test)]").next().unwrap();
        let found = SOURCES.iter().flat_map(|begin| calls(code, begin));
        messages.extend(found.filter_map(|call| beginning(&literal(call)?)));
    }
    messages.sort();
    messages.dedup();
    assert!(messages.len() > 40, "only {} were found", messages.len());
    let missing: Vec<_> = messages.iter().filter(|m| !guide.contains(*m)).collect();
    assert!(missing.is_empty(), "not in the guide: {missing:#?}");
}

fn sources(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().unwrap() != "tests"
            && path.parent().unwrap().file_name().unwrap() != "tests"
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What is inside the parentheses of each call that begins so.
fn calls<'a>(code: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(begin).map(move |(at, _)| {
        let rest = &code[at + begin.len()..];
        let (mut depth, mut text, mut escaped) = (1, false, false);
        let end = rest.char_indices().find(|&(_, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' if text => escaped = true,
                '"' => text = !text,
                '(' if !text => depth += 1,
                ')' if !text => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        &rest[..end.map_or(rest.len(), |(at, _)| at)]
    })
}

/// The first text in it, as it is printed; placeholders stay.
fn literal(call: &str) -> Option<String> {
    let (_, rest) = call.split_once('"')?;
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                // A line that goes on: the blanks before its continuation are not printed.
                '\n' => {
                    let going_on = characters.as_str().trim_start();
                    characters = going_on.chars();
                }
                'n' => text.push('\n'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

/// The first words of the longest piece between placeholders.
fn beginning(message: &str) -> Option<String> {
    let mut longest = "";
    for piece in message.split('{') {
        let piece = piece.rsplit('}').next().unwrap();
        for piece in piece.lines() {
            if piece.trim().len() > longest.len() {
                longest = piece.trim();
            }
        }
    }
    let words = plain(longest);
    let words = words.trim_matches(|c: char| !c.is_alphanumeric());
    let first: Vec<_> = words.split(' ').take(WORDS).collect();
    let first = first.join(" ");
    let letters = first.chars().filter(|c| c.is_alphabetic()).count();
    (letters >= TELLING).then_some(first)
}

/// Without markup, with single blanks.
fn plain(text: &str) -> String {
    let text = text.replace(['`', '*'], "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn messages_are_found_whatever_surrounds_them() {
    let code = "warn!(tenant.id = id, \"cannot (yet) reach {} of the \\\n   servers: {error}\", f(\")\"));\nreturn Err(Error::Refused(text));";
    let found: Vec<_> = calls(code, "warn!(").filter_map(literal).collect();
    assert_eq!(found, ["cannot (yet) reach {} of the servers: {error}"]);
    assert_eq!(beginning(&found[0]).unwrap(), "cannot (yet) reach");
    assert_eq!(calls(code, "Refused(").filter_map(literal).count(), 0);
    assert_eq!(beginning("{text}"), None);
}
