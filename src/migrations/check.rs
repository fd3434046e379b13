//! What one migration file holds, and why it may not be applied.
//!
//! Every file is parsed **alone**, before any tenant is touched. The service sends files of many
//! tenants in one message and wraps each in its own guard and ledger statements, so a file that
//! ends the transaction, changes the session, waits for rows from the client or reaches into
//! another schema would take the guard apart while it runs. Such a file is refused here, with its
//! line and with what to write instead.
//!
//! Text is judged, not effect: a `DO` block, a `CALL` or a query that calls the application's own
//! functions can do anything. [`Parsed::opaque`] says so, and the apply path then cleans the
//! session and checks it afterwards. Bodies of `DO` blocks are searched for the few statements
//! that would end the transaction or change the session; bodies of functions are not, because
//! they run when the application calls them.

mod calls;
mod enums;
mod lexical;
mod locks;
mod names;
mod outside;
mod own;
mod statements;
#[cfg(test)]
mod tests;

use std::thread;

use squawk_syntax::{
    SourceFile, SyntaxElement, SyntaxKind, SyntaxNode, SyntaxToken,
    ast::{self, AstNode},
};

pub use locks::{Lock, Locks, Mode};
pub use outside::{Alone, Outside, Plain};
pub use own::{Known, Names};

/// The parser recurses once per nested bracket; its debug build overflows a 2 MB thread after a
/// few hundred. This is address space, of which only what is used becomes memory.
const STACK_BYTES: usize = 256 << 20;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The set is refused.
    Error,
    /// The set is applied and the finding is shown.
    Warning,
}

/// One thing to say about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the finding refuses the set.
    pub severity: Severity,
    /// The rule in kebab case, for example `transaction-control`.
    pub rule: &'static str,
    /// The line, counted from 1.
    pub line: usize,
    /// What was found and what to do instead.
    pub message: String,
}

/// One top-level statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Bytes from the start of the file to the statement's first token.
    pub offset: usize,
    /// Bytes from the start of the file to the statement's end.
    pub end: usize,
    /// Line of the first token, counted from 1; a comment above belongs to no statement.
    pub line: usize,
    /// Why it cannot run in a transaction, if so.
    pub alone: Option<Alone>,
    /// What it changes by a name without a schema: that has to be the tenant's own.
    pub changes: Names,
    /// What it creates by such a name, in the tenant's schema.
    pub creates: Names,
    /// After it, a name may lead elsewhere than before.
    pub forgets: bool,
}

/// What reading a file tells about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The statements for which the server answers one `CommandComplete` each.
    pub statements: Vec<Statement>,
    /// The effect cannot be told from the text: a `DO` block, a `CALL`, a call of a function that
    /// is not one of the well-known built-in ones.
    pub opaque: bool,
    /// A statement creates a table, by whichever syntax.
    pub creates_table: bool,
    /// A statement adds a value to an enum: usable only after a commit.
    pub adds_enum_value: bool,
    /// The file cannot run in one transaction.
    pub outside: Option<Outside>,
    /// What it locks of what exists.
    pub locks: Locks,
    /// Ordered by line.
    pub findings: Vec<Finding>,
}

/// Reads one migration file and reports what it holds.
///
/// ```
/// use tenantd::migrations::check::check;
///
/// let parsed = check("ALTER TABLE orders ADD COLUMN note text;\nCOMMIT;");
/// assert_eq!(parsed.statements.len(), 2);
/// assert_eq!((parsed.findings[0].rule, parsed.findings[0].line), ("transaction-control", 2));
/// ```
#[must_use]
pub fn check(text: &str) -> Parsed {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("migration-check".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || inspect(text))
            .map_or_else(
                |_| inspect(text),
                |reader| reader.join().unwrap_or_else(|_| unreadable()),
            )
    })
}

/// A problem and the node it was found at.
struct Problem {
    severity: Severity,
    rule: &'static str,
    at: SyntaxNode,
    message: String,
}

impl Problem {
    fn error(rule: &'static str, at: &SyntaxNode, message: String) -> Self {
        let (severity, at) = (Severity::Error, at.clone());
        Self {
            severity,
            rule,
            at,
            message,
        }
    }

    fn on_line(self, line: usize) -> Finding {
        let Self {
            severity,
            rule,
            message,
            ..
        } = self;
        Finding {
            severity,
            rule,
            line,
            message,
        }
    }
}

/// Byte offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after).collect())
    }

    fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

fn inspect(text: &str) -> Parsed {
    let parse = SourceFile::parse(text);
    let root = parse.syntax_node();
    let lines = Lines::new(text);
    let statements: Vec<(SyntaxNode, Statement)> = root
        .children()
        .filter(is_statement)
        .map(|node| {
            let (changes, creates) = own::names(&node);
            let statement = Statement {
                offset: start(&node),
                end: node.text_range().end().into(),
                line: lines.of(start(&node)),
                alone: outside::alone(&node),
                changes,
                creates,
                forgets: own::forgets(&node),
            };
            (node, statement)
        })
        .collect();
    let nodes = || statements.iter().map(|(node, _)| node);

    let mut findings = lexical::findings(text, &parse, &lines);
    if statements.is_empty() && findings.is_empty() {
        findings.push(empty());
    }
    for node in walk(root) {
        let found = refusals(&node).into_iter();
        findings.extend(found.map(|it| {
            let line = lines.of(start(&it.at));
            it.on_line(line)
        }));
        findings.extend(in_do_block(&node, &lines));
    }
    let uses_new_value = enums::use_of_new_value(nodes());
    let refuses = statements.iter().any(|(_, it)| it.alone.is_some());
    let outside = (uses_new_value.is_some() || refuses).then(|| Outside {
        plain: outside::plain(text, &statements),
        commits: uses_new_value.is_some(),
    });
    if outside.is_some() {
        findings.extend(nodes().filter(|it| calls::is_opaque(it)).map(|it| {
            let line = lines.of(start(it));
            outside::opaque(it).on_line(line)
        }));
    }
    findings.sort_by_key(|it| (it.line, it.severity, it.rule));
    findings.dedup();

    Parsed {
        opaque: nodes().any(calls::is_opaque),
        creates_table: nodes().any(creates_table),
        adds_enum_value: nodes().any(|it| enums::added_value(it).is_some()),
        locks: locks::of_file(nodes()),
        outside,
        statements: statements.into_iter().map(|(_, it)| it).collect(),
        findings,
    }
}

fn refusals(node: &SyntaxNode) -> Vec<Problem> {
    let mut found = names::problems(node);
    found.extend(statements::problem(node));
    found.extend(calls::problem(node));
    found.extend(outside::problem(node));
    found
}

/// What a `DO` block must not do. A body that the parser cannot read stays unjudged: the apply
/// path has its own guard.
fn in_do_block(node: &SyntaxNode, lines: &Lines) -> Vec<Finding> {
    let Some(body) = ast::Do::cast(node.clone()).and_then(|it| it.plpgsql()) else {
        return Vec::new();
    };
    if !body.errors().is_empty() {
        return Vec::new();
    }
    walk(body.syntax())
        .flat_map(|it| {
            statements::problem(&it)
                .into_iter()
                .chain(calls::problem(&it))
        })
        .filter(|it| statements::REFUSED_IN_BODIES.contains(&it.rule))
        .map(|it| {
            let at = body.source_range(it.at.text_range()).start();
            it.on_line(lines.of(at.into()))
        })
        .collect()
}

/// A node and all below it that take effect when the file runs: not the bodies of functions nor
/// the actions of rules. Keeps its own stack, as trees can be deep.
fn walk(root: SyntaxNode) -> impl Iterator<Item = SyntaxNode> {
    let mut pending = vec![root];
    std::iter::from_fn(move || {
        let node = pending.pop()?;
        let now =
            |it: &SyntaxNode| !matches!(it.kind(), SyntaxKind::ATOMIC_BODY | SyntaxKind::RULE_DO);
        pending.extend(node.children().filter(now));
        Some(node)
    })
}

fn is_statement(node: &SyntaxNode) -> bool {
    !matches!(node.kind(), SyntaxKind::EMPTY_STMT | SyntaxKind::ERROR)
}

fn creates_table(statement: &SyntaxNode) -> bool {
    matches!(
        statement.kind(),
        SyntaxKind::CREATE_TABLE
            | SyntaxKind::CREATE_TABLE_AS
            | SyntaxKind::CREATE_FOREIGN_TABLE
            | SyntaxKind::SELECT_INTO
    )
}

/// Offset of the first token that is not a comment or white space.
fn start(node: &SyntaxNode) -> usize {
    let first = tokens(node).find(|it| !it.kind().is_trivia());
    first
        .map_or(node.text_range(), |it| it.text_range())
        .start()
        .into()
}

fn tokens(node: &SyntaxNode) -> impl Iterator<Item = SyntaxToken> {
    node.descendants_with_tokens()
        .filter_map(SyntaxElement::into_token)
}

fn empty() -> Finding {
    Finding {
        severity: Severity::Error,
        rule: "empty",
        line: 1,
        message: "the file holds no statement: write the migration, or remove the file".to_owned(),
    }
}

/// The parser gave up, which is its bug, not the file's.
fn unreadable() -> Parsed {
    let finding = Finding {
        severity: Severity::Error,
        rule: "syntax",
        line: 1,
        message: "the parser gave up on this file: split it, or write it differently".to_owned(),
    };
    Parsed {
        opaque: true,
        findings: vec![finding],
        ..Parsed::default()
    }
}
