//! Which locks a file takes on tables that exist: per statement, by the table of lock modes in PostgreSQL's manual
//! ("Explicit Locking") and by what it says of each command.
//!
//! Only what the text names is known. A `DO` block, a function of one's own, `CASCADE` or a change of a domain may
//! lock anything; so may the other side of a foreign key that is dropped with its table.

use std::fmt;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{calls, tokens, walk};

/// The table-level lock modes, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A read.
    AccessShare,
    /// A read that locks rows.
    RowShare,
    /// A write.
    RowExclusive,
    /// Blocks vacuum and changes of the schema.
    ShareUpdateExclusive,
    /// Blocks writes.
    Share,
    /// Blocks writes, and itself.
    ShareRowExclusive,
    /// Blocks all but reads.
    Exclusive,
    /// Blocks everything.
    AccessExclusive,
}

impl Mode {
    const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A lock on something that existed before the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The strongest that the file takes.
    pub mode: Mode,
    /// The table or view as the file names it; of an index, `the table of index i`.
    pub on: String,
}

/// What a file locks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locks {
    /// Strongest first; reads are left out.
    pub known: Vec<Lock>,
    /// It may lock more than its text tells.
    pub more: bool,
}

impl fmt::Display for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self
            .known
            .iter()
            .map(|lock| format!("{} on {}", lock.mode, lock.on));
        let more = self
            .more
            .then(|| "unknown: its text does not tell all it does".to_owned());
        let all: Vec<_> = known.chain(more).collect();
        match all.as_slice() {
            [] => f.write_str("none on a table that exists"),
            all => f.write_str(&all.join(", ")),
        }
    }
}

/// What the statements of a file lock, in order.
pub(super) fn of_file<'a>(statements: impl Iterator<Item = &'a SyntaxNode>) -> Locks {
    let mut locks = Locks::default();
    let mut made: Vec<String> = Vec::new();
    for statement in statements {
        locks.more |= calls::is_opaque(statement) || reaches_further(statement);
        for (mode, on) in of_statement(statement) {
            if mode == Mode::AccessShare || made.contains(&on) {
                continue;
            }
            match locks.known.iter_mut().find(|known| known.on == on) {
                Some(known) => known.mode = known.mode.max(mode),
                None => locks.known.push(Lock { mode, on }),
            }
        }
        made.extend(makes(statement));
    }
    locks
        .known
        .sort_by(|a, b| b.mode.cmp(&a.mode).then_with(|| a.on.cmp(&b.on)));
    locks
}

/// `CASCADE`, and changes of a domain, which check the tables that use it.
fn reaches_further(statement: &SyntaxNode) -> bool {
    let drops = format!("{:?}", statement.kind()).starts_with("DROP_")
        || matches!(
            statement.kind(),
            SyntaxKind::TRUNCATE | SyntaxKind::ALTER_TABLE
        );
    let cascades = || tokens(statement).any(|it| it.kind() == SyntaxKind::CASCADE_KW);
    // ON DELETE CASCADE reaches nothing now.
    let of_key = || walk(statement.clone()).any(|it| foreign_key(it.kind()));
    statement.kind() == SyntaxKind::ALTER_DOMAIN || drops && cascades() && !of_key()
}

/// What a statement makes, as later ones name it.
fn makes(statement: &SyntaxNode) -> Option<String> {
    let named = |kind| child(statement, kind).map(|it| name(&it));
    match statement.kind() {
        SyntaxKind::CREATE_TABLE
        | SyntaxKind::CREATE_TABLE_AS
        | SyntaxKind::CREATE_FOREIGN_TABLE => named(SyntaxKind::TABLE_NAME),
        SyntaxKind::CREATE_VIEW | SyntaxKind::CREATE_MATERIALIZED_VIEW => named(SyntaxKind::VIEW),
        SyntaxKind::CREATE_INDEX => named(SyntaxKind::INDEX).map(|index| of_index(&index)),
        _ => None,
    }
}

fn of_index(index: &str) -> String {
    format!("the table of index {index}")
}

/// What one statement locks; a relation may come several times.
fn of_statement(statement: &SyntaxNode) -> Vec<(Mode, String)> {
    use Mode::{AccessExclusive, Exclusive, Share, ShareRowExclusive, ShareUpdateExclusive};
    let concurrently = tokens(statement).any(|it| it.kind() == SyntaxKind::CONCURRENTLY_KW);
    let or = |otherwise, mode| if concurrently { mode } else { otherwise };
    let on = |mode: Mode| {
        let named = targets(statement);
        named
            .into_iter()
            .map(move |name| (mode, name))
            .collect::<Vec<_>>()
    };
    let mut locks = match statement.kind() {
        SyntaxKind::ALTER_TABLE | SyntaxKind::ALTER_FOREIGN_TABLE => altered(statement),
        SyntaxKind::ALTER_INDEX => on(index_altered(statement)),
        SyntaxKind::ALTER_VIEW
        | SyntaxKind::ALTER_MATERIALIZED_VIEW
        | SyntaxKind::ALTER_POLICY
        | SyntaxKind::ALTER_RULE
        | SyntaxKind::ALTER_TRIGGER
        | SyntaxKind::CLUSTER
        | SyntaxKind::CREATE_POLICY
        | SyntaxKind::CREATE_RULE
        | SyntaxKind::DROP_FOREIGN_TABLE
        | SyntaxKind::DROP_MATERIALIZED_VIEW
        | SyntaxKind::DROP_POLICY
        | SyntaxKind::DROP_RULE
        | SyntaxKind::DROP_TABLE
        | SyntaxKind::DROP_TRIGGER
        | SyntaxKind::DROP_VIEW
        | SyntaxKind::REPACK
        | SyntaxKind::TRUNCATE => on(AccessExclusive),
        SyntaxKind::CREATE_INDEX => on(or(Share, ShareUpdateExclusive)),
        SyntaxKind::DROP_INDEX => on(or(AccessExclusive, ShareUpdateExclusive)),
        SyntaxKind::REINDEX => on(or(Share, ShareUpdateExclusive)),
        SyntaxKind::REFRESH => on(or(AccessExclusive, Exclusive)),
        SyntaxKind::CREATE_TRIGGER => on(ShareRowExclusive),
        SyntaxKind::LOCK => on(asked_for(statement)),
        SyntaxKind::VACUUM if tokens(statement).any(|it| it.kind() == SyntaxKind::FULL_KW) => {
            on(AccessExclusive)
        }
        SyntaxKind::ANALYZE
        | SyntaxKind::COMMENT_ON
        | SyntaxKind::CREATE_STATISTICS
        | SyntaxKind::SECURITY_LABEL
        | SyntaxKind::VACUUM => on(ShareUpdateExclusive),
        SyntaxKind::CREATE_VIEW if child(statement, SyntaxKind::OR_REPLACE).is_some() => {
            let view = child(statement, SyntaxKind::VIEW).map(|it| name(&it));
            view.into_iter()
                .map(|view| (AccessExclusive, view))
                .collect()
        }
        _ => Vec::new(),
    };
    for node in walk(statement.clone()) {
        locks.extend(clause(&node));
    }
    locks
}

/// What a clause locks, wherever it stands.
fn clause(node: &SyntaxNode) -> Vec<(Mode, String)> {
    let mode = match node.kind() {
        SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE => {
            Mode::RowExclusive
        }
        SyntaxKind::REFERENCES_CONSTRAINT | SyntaxKind::FOREIGN_KEY_CONSTRAINT => {
            Mode::ShareRowExclusive
        }
        SyntaxKind::PARTITION_OF | SyntaxKind::ATTACH_PARTITION | SyntaxKind::DETACH_PARTITION => {
            Mode::AccessExclusive
        }
        SyntaxKind::INHERITS | SyntaxKind::INHERIT_TABLE => Mode::ShareUpdateExclusive,
        SyntaxKind::SELECT if child(node, SyntaxKind::LOCKING_CLAUSE).is_some() => {
            let from = child(node, SyntaxKind::FROM_CLAUSE);
            let items = from.iter().flat_map(SyntaxNode::children);
            return items
                .flat_map(|item| targets(&item))
                .map(|name| (Mode::RowShare, name))
                .collect();
        }
        _ => return Vec::new(),
    };
    let named = targets(node).into_iter().take(match node.kind() {
        SyntaxKind::INHERITS => usize::MAX,
        _ => 1,
    });
    named.map(|name| (mode, name)).collect()
}

/// `ALTER TABLE` takes the strongest lock that one of its actions needs.
fn altered(statement: &SyntaxNode) -> Vec<(Mode, String)> {
    let actions = statement.children().skip(1).map(|it| action(&it));
    let mode = actions.max().unwrap_or(Mode::AccessExclusive);
    let table = targets(statement).into_iter().take(1);
    table.map(|table| (mode, table)).collect()
}

fn action(action: &SyntaxNode) -> Mode {
    let has = |kinds: &[SyntaxKind]| action.children().any(|it| kinds.contains(&it.kind()));
    match action.kind() {
        SyntaxKind::VALIDATE_CONSTRAINT
        | SyntaxKind::SET_OPTIONS
        | SyntaxKind::RESET_OPTIONS
        | SyntaxKind::CLUSTER_ON
        | SyntaxKind::SET_WITHOUT_CLUSTER
        | SyntaxKind::ATTACH_PARTITION => Mode::ShareUpdateExclusive,
        SyntaxKind::ALTER_COLUMN
            if has(&[
                SyntaxKind::SET_STATISTICS,
                SyntaxKind::SET_OPTIONS,
                SyntaxKind::RESET_OPTIONS,
            ]) =>
        {
            Mode::ShareUpdateExclusive
        }
        SyntaxKind::DETACH_PARTITION if has(&[SyntaxKind::DETACH_CONCURRENTLY]) => {
            Mode::ShareUpdateExclusive
        }
        SyntaxKind::ENABLE_TRIGGER
        | SyntaxKind::ENABLE_ALWAYS_TRIGGER
        | SyntaxKind::ENABLE_REPLICA_TRIGGER
        | SyntaxKind::DISABLE_TRIGGER => Mode::ShareRowExclusive,
        SyntaxKind::ADD_CONSTRAINT if has(&[SyntaxKind::FOREIGN_KEY_CONSTRAINT]) => {
            Mode::ShareRowExclusive
        }
        _ => Mode::AccessExclusive,
    }
}

fn index_altered(statement: &SyntaxNode) -> Mode {
    let mild = [
        SyntaxKind::INDEX_RENAME_TO,
        SyntaxKind::SET_OPTIONS,
        SyntaxKind::RESET_OPTIONS,
        SyntaxKind::ALTER_SET_STATISTICS,
    ];
    // It locks the index alone: of its table, only what plans with the index waits.
    match statement.children().any(|it| mild.contains(&it.kind())) {
        true => Mode::AccessShare,
        false => Mode::AccessExclusive,
    }
}

fn asked_for(statement: &SyntaxNode) -> Mode {
    let Some(clause) = child(statement, SyntaxKind::LOCK_MODE_CLAUSE) else {
        return Mode::AccessExclusive;
    };
    let words: Vec<_> = tokens(&clause)
        .filter(|it| !it.kind().is_trivia())
        .map(|it| it.text().to_uppercase())
        .collect();
    let asked = words.join(" ");
    let is_asked = |mode: &Mode| asked == format!("IN {mode} MODE");
    Mode::ALL
        .into_iter()
        .find(is_asked)
        .unwrap_or(Mode::AccessExclusive)
}

fn foreign_key(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::REFERENCES_CONSTRAINT | SyntaxKind::FOREIGN_KEY_CONSTRAINT
    )
}

/// The relations that a node names directly, or through what only wraps a name.
fn targets(node: &SyntaxNode) -> Vec<String> {
    let mut found = Vec::new();
    for part in node.children() {
        match part.kind() {
            SyntaxKind::TABLE_NAME_REF | SyntaxKind::RELATION_NAME_REF | SyntaxKind::VIEW_REF => {
                found.push(name(&part));
            }
            SyntaxKind::INDEX_REF => found.push(of_index(&name(&part))),
            SyntaxKind::QUALIFIED_COLUMN_NAME_REF => {
                let column = name(&part);
                found.extend(column.rsplit_once('.').map(|(table, _)| table.to_owned()));
            }
            SyntaxKind::FROM_TABLE
            | SyntaxKind::OBJECT_COLUMN
            | SyntaxKind::OBJECT_INDEX
            | SyntaxKind::OBJECT_MATERIALIZED_VIEW
            | SyntaxKind::OBJECT_TABLE
            | SyntaxKind::OBJECT_VIEW
            | SyntaxKind::ON_RELATION
            | SyntaxKind::ON_TABLE
            | SyntaxKind::REINDEX_TARGET_INDEX
            | SyntaxKind::REINDEX_TARGET_TABLE
            | SyntaxKind::RELATION_LIST
            | SyntaxKind::RELATION_NAME
            | SyntaxKind::RULE_ON
            | SyntaxKind::TABLE_AND_COLUMNS
            | SyntaxKind::TABLE_AND_COLUMNS_LIST
            | SyntaxKind::TABLE_LIST
            | SyntaxKind::TABLE_RELATION_NAME => found.extend(targets(&part)),
            _ => {}
        }
    }
    found
}

fn child(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    node.children().find(|it| it.kind() == kind)
}

/// A name as the catalog has it, with its schema where the file gives one.
fn name(node: &SyntaxNode) -> String {
    let words = tokens(node).filter(|it| !it.kind().is_trivia());
    words
        .map(|word| match word.text() {
            quoted if quoted.starts_with('"') => quoted.to_owned(),
            plain => plain.to_lowercase(),
        })
        .collect()
}
