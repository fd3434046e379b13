//! Names that have to be the tenant's own.
//!
//! A name without a schema is looked up on the search path, where the tenant's schema comes first and others
//! follow: `ALTER TABLE plans` alters the `plans` that all share where the tenant has none. Which one it
//! would be is not in the text, so it is asked right before the statement (`tenantd.inside`). What an
//! earlier statement of the transaction created, or was asked about, is not asked again: most files ask once, or
//! never, and those of a new tenant hardly ever. To ask takes some 30 to 110 µs of the server's time, in the same
//! message. Rows are not meant: INSERT, UPDATE, DELETE and MERGE may lead to a shared table.

use std::collections::BTreeSet;

use squawk_syntax::{SyntaxKind, SyntaxNode, ast};

use super::{Statement, calls, names, tokens, walk};

/// Names without a schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Of tables, views, indexes and sequences.
    pub relations: BTreeSet<String>,
    /// Of types and domains.
    pub types: BTreeSet<String>,
}

impl Names {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty() && self.types.is_empty()
    }

    fn within(&self, other: &Self) -> bool {
        self.relations.is_subset(&other.relations) && self.types.is_subset(&other.types)
    }

    fn extend(&mut self, other: &Self) {
        self.relations.extend(other.relations.iter().cloned());
        self.types.extend(other.types.iter().cloned());
    }
}

/// What is known to lie in the tenant's schema, statement by statement of one transaction.
#[derive(Debug, Default)]
pub struct Known(Names);

impl Known {
    /// Whether what the next statement changes has to be looked up before it.
    pub fn look_before(&mut self, statement: &Statement) -> bool {
        let look = !statement.changes.within(&self.0);
        if statement.forgets {
            self.0 = Names::default();
        } else {
            self.0.extend(&statement.changes);
            self.0.extend(&statement.creates);
        }
        look
    }
}

/// What a statement changes, and what it creates.
pub(super) fn names(statement: &SyntaxNode) -> (Names, Names) {
    let (mut changed, mut created) = (Names::default(), Names::default());
    for node in walk(statement.clone()).filter(|node| changes_objects(node.kind())) {
        for name in names::targets(&node) {
            sort(&name, &mut changed, &mut created);
        }
    }
    (changed, created)
}

fn changes_objects(kind: SyntaxKind) -> bool {
    names::has_targets(kind) && !writes_rows(kind)
}

fn writes_rows(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE
    )
}

/// After it, a name may lead elsewhere than before: an object was dropped or renamed, which an index is too that becomes
/// a constraint; rows were written, which calls triggers; or `IF EXISTS` passed over what was not there.
pub(super) fn forgets(statement: &SyntaxNode) -> bool {
    let words: Vec<_> = tokens(statement)
        .map(|it| it.kind())
        .filter(|it| !it.is_trivia())
        .collect();
    let pairs = [
        [SyntaxKind::USING_KW, SyntaxKind::INDEX_KW],
        [SyntaxKind::IF_KW, SyntaxKind::EXISTS_KW],
    ];
    calls::is_opaque(statement)
        || words.contains(&SyntaxKind::DROP_KW)
        || words.contains(&SyntaxKind::RENAME_KW)
        || words.windows(2).any(|two| pairs.iter().any(|it| it == two))
        || walk(statement.clone()).any(|it| writes_rows(it.kind()))
}

/// Adds the name to those that must be there or to those that then are. Others (functions, operators,
/// collations, …) are told apart by more than their names, and not looked up.
fn sort(name: &SyntaxNode, changed: &mut Names, created: &mut Names) {
    let into = match name.kind() {
        SyntaxKind::INDEX_REF
        | SyntaxKind::PROPERTY_GRAPH_REF
        | SyntaxKind::QUALIFIED_COLUMN_NAME_REF
        | SyntaxKind::RELATION_NAME_REF
        | SyntaxKind::SEQUENCE_REF
        | SyntaxKind::TABLE_NAME_REF
        | SyntaxKind::VIEW_REF => &mut changed.relations,
        SyntaxKind::DOMAIN_REF | SyntaxKind::TYPE_NAME_REF => &mut changed.types,
        SyntaxKind::INDEX
        | SyntaxKind::PROPERTY_GRAPH
        | SyntaxKind::SEQUENCE
        | SyntaxKind::TABLE_NAME
        | SyntaxKind::VIEW => &mut created.relations,
        SyntaxKind::DOMAIN | SyntaxKind::TYPE_NAME => &mut created.types,
        _ => return,
    };
    into.extend(first_segment(name));
}

/// The table of `table.column`; the name itself otherwise, since names with a schema are refused.
fn first_segment(name: &SyntaxNode) -> Option<String> {
    let segment = |it: &SyntaxNode| {
        matches!(
            it.kind(),
            SyntaxKind::PATH_SEGMENT | SyntaxKind::PATH_SEGMENT_REF
        )
    };
    let segments = name.descendants().filter(segment);
    let first = segments.min_by_key(|it| it.text_range().start())?;
    Some(ast::normalize_name_node(&first))
}
