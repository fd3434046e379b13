//! Names that have to be the tenant's own.
//!
//! A name without a schema is looked up on the search path, where the tenant's schema comes first and others
//! follow: `ALTER TABLE plans` alters the `plans` that all share where the tenant has none. Which one it
//! would be is not in the text, so it is asked right before the statement (`tenantd.inside`). What an
//! earlier statement of the file created, or was asked about, is not asked again: most files ask once, or
//! never. Rows are not meant: INSERT, UPDATE, DELETE and MERGE may lead to a shared table.

use std::collections::BTreeSet;

use squawk_syntax::{SyntaxKind, SyntaxNode, ast};

use super::{calls, names, tokens, walk};

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

/// What is known to lie in the tenant's schema, statement by statement.
#[derive(Default)]
pub(super) struct Known(Names);

impl Known {
    /// The names that the next statement changes, and whether they have to be looked up before it.
    pub(super) fn next(&mut self, statement: &SyntaxNode) -> (Names, bool) {
        let (mut changed, mut created) = (Names::default(), Names::default());
        for node in walk(statement.clone()).filter(|node| changes_objects(node.kind())) {
            for name in names::targets(&node) {
                sort(&name, &mut changed, &mut created);
            }
        }
        let look = !changed.within(&self.0);
        if forgets(statement) {
            self.0 = Names::default();
        } else {
            self.0.extend(&changed);
            self.0.extend(&created);
        }
        (changed, look)
    }
}

fn changes_objects(kind: SyntaxKind) -> bool {
    let rows = matches!(
        kind,
        SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE
    );
    names::has_targets(kind) && !rows
}

/// After it, a name may lead elsewhere than before.
fn forgets(statement: &SyntaxNode) -> bool {
    let removes = |it: SyntaxKind| matches!(it, SyntaxKind::DROP_KW | SyntaxKind::RENAME_KW);
    calls::is_opaque(statement) || tokens(statement).any(|it| removes(it.kind()))
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
