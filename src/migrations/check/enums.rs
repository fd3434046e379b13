//! `ALTER TYPE … ADD VALUE`: the transaction that adds a value cannot use it (before PostgreSQL
//! 17 not even when it created the type). A file that does both runs outside one transaction.

use squawk_syntax::{
    SyntaxKind, SyntaxNode,
    ast::{self, AstNode},
};

use super::{start, walk};

/// Offset of the first literal equal to a value that an earlier statement of the file added to an enum.
pub(super) fn use_of_new_value<'a>(
    statements: impl Iterator<Item = &'a SyntaxNode>,
) -> Option<usize> {
    let mut added: Vec<String> = Vec::new();
    for statement in statements {
        let used = literals(statement)
            .into_iter()
            .find(|(_, value)| added.contains(value));
        if let Some((at, _)) = used {
            return Some(at);
        }
        added.extend(added_value(statement));
    }
    None
}

/// The value that `ALTER TYPE … ADD VALUE` adds.
pub(super) fn added_value(statement: &SyntaxNode) -> Option<String> {
    let clause = statement
        .children()
        .find(|it| it.kind() == SyntaxKind::ADD_VALUE)?;
    clause
        .children()
        .find_map(ast::Literal::cast)
        .and_then(|it| value_of(&it))
}

/// The string literals that a statement evaluates, also inside a `DO` block: offset in the file, value.
fn literals(statement: &SyntaxNode) -> Vec<(usize, String)> {
    if matches!(
        statement.kind(),
        SyntaxKind::COMMENT_ON | SyntaxKind::ALTER_TYPE
    ) {
        return Vec::new();
    }
    if let Some(body) = ast::Do::cast(statement.clone()).and_then(|it| it.plpgsql()) {
        let found = strings(body.syntax());
        let offset = |it: &SyntaxNode| body.source_range(it.text_range()).start().into();
        return found.map(|(node, value)| (offset(&node), value)).collect();
    }
    strings(statement.clone())
        .map(|(node, value)| (start(&node), value))
        .collect()
}

fn strings(root: SyntaxNode) -> impl Iterator<Item = (SyntaxNode, String)> {
    walk(root).filter_map(|node| {
        let value = value_of(&ast::Literal::cast(node.clone())?)?;
        Some((node, value))
    })
}

fn value_of(literal: &ast::Literal) -> Option<String> {
    Some(literal.decoded_value()?.into_text())
}
