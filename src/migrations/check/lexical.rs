//! What is wrong with the text itself: syntax errors, psql commands, characters that the server
//! reads otherwise than the parser does.

use std::collections::BTreeSet;

use squawk_syntax::{Parse, SourceFile, SyntaxKind, SyntaxNode};

use super::{Finding, Lines, Severity, start, tokens};

/// More than this only repeats the first one.
const MAX_SYNTAX_ERRORS: usize = 5;

pub(super) fn findings(text: &str, parse: &Parse<SourceFile>, lines: &Lines) -> Vec<Finding> {
    let root = parse.syntax_node();
    let mut found = foreign_characters(text, lines);
    found.extend(mixed_strings(&root, lines));
    if found.is_empty() {
        found.extend(syntax_errors(parse, lines));
    }
    found
}

/// One finding a line, as the parser reports each word of a line that it cannot place.
fn syntax_errors(parse: &Parse<SourceFile>, lines: &Lines) -> Vec<Finding> {
    let psql = psql_commands(&parse.syntax_node(), lines);
    let mut seen = psql.clone();
    let syntax = parse.errors().into_iter().filter_map(|it| {
        let line = lines.of(it.range().start().into());
        let message = format!("syntax error: {}", it.message());
        seen.insert(line).then(|| error("syntax", line, message))
    });
    let mut found: Vec<Finding> = syntax.take(MAX_SYNTAX_ERRORS).collect();
    found.extend(
        psql.into_iter()
            .map(|line| error("psql-command", line, PSQL.to_owned())),
    );
    found
}

const PSQL: &str = "commands that begin with a backslash are psql's and the server does not know \
                    them: leave it out, or write the SQL that psql would have sent";

fn psql_commands(root: &SyntaxNode, lines: &Lines) -> BTreeSet<usize> {
    tokens(root)
        .filter(|it| it.kind() == SyntaxKind::ERROR && it.text().starts_with('\\'))
        .map(|it| lines.of(it.text_range().start().into()))
        .collect()
}

/// The protocol ends a query at a NUL byte; a byte order mark is part of a name to the server and
/// white space to the parser.
fn foreign_characters(text: &str, lines: &Lines) -> Vec<Finding> {
    let nul = text.find('\0').map(|at| {
        let message = "a NUL byte ends the query for the server: remove it";
        error("nul-byte", lines.of(at), message.to_owned())
    });
    let mark = text.starts_with('\u{feff}').then(|| {
        let message = "the file begins with a byte order mark: save it as UTF-8 without one";
        error("byte-order-mark", 1, message.to_owned())
    });
    nul.into_iter().chain(mark).collect()
}

/// The server carries the escapes of `E'…'` over to a string that continues it on the next line,
/// the parser does not: they would disagree on where the string ends, and so on what is a
/// statement.
fn mixed_strings(root: &SyntaxNode, lines: &Lines) -> Vec<Finding> {
    let literals = root
        .descendants()
        .filter(|it| it.kind() == SyntaxKind::LITERAL);
    literals
        .filter(is_mixed)
        .map(|it| {
            let message = "a backslash in a string that continues E'…' on another line is read \
                           differently by parser and server: write one literal, or join with ||";
            error("syntax", lines.of(start(&it)), message.to_owned())
        })
        .collect()
}

fn is_mixed(literal: &SyntaxNode) -> bool {
    let mut tokens = tokens(literal);
    tokens
        .next()
        .is_some_and(|it| it.kind() == SyntaxKind::ESC_STRING)
        && tokens.any(|it| it.kind() == SyntaxKind::STRING && it.text().contains('\\'))
}

fn error(rule: &'static str, line: usize, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        rule,
        line,
        message,
    }
}
