//! `ALTER TYPE … ADD VALUE`: the transaction that adds a value cannot use it (before PostgreSQL
//! 17 not even when it created the type).

use squawk_syntax::{
    SyntaxKind, SyntaxNode,
    ast::{self, AstNode},
};

use super::{Problem, start, walk};

/// A literal equal to a value that an earlier statement of the file added to an enum, with the
/// literal's offset.
pub(super) fn uses_of_new_values(statements: &[SyntaxNode]) -> Vec<(usize, Problem)> {
    let mut added: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for statement in statements {
        let values = literals(statement);
        found.extend(values.into_iter().filter_map(|(at, literal, value)| {
            added
                .contains(&value)
                .then(|| (at, problem(&literal, &value)))
        }));
        added.extend(added_value(statement));
    }
    found
}

fn problem(literal: &SyntaxNode, value: &str) -> Problem {
    let message = format!(
        "the enum value '{value}' was added earlier in this file and cannot be used before its \
         transaction is committed; files that run outside one transaction are not supported in \
         this version: use it in a file that is applied later"
    );
    Problem::error("enum-value-used", literal, message)
}

fn added_value(statement: &SyntaxNode) -> Option<String> {
    let clause = statement
        .children()
        .find(|it| it.kind() == SyntaxKind::ADD_VALUE)?;
    clause
        .children()
        .find_map(ast::Literal::cast)
        .and_then(|it| value_of(&it))
}

/// The string literals that a statement evaluates, also inside a `DO` block: offset in the file,
/// node, value.
fn literals(statement: &SyntaxNode) -> Vec<(usize, SyntaxNode, String)> {
    if matches!(
        statement.kind(),
        SyntaxKind::COMMENT_ON | SyntaxKind::ALTER_TYPE
    ) {
        return Vec::new();
    }
    if let Some(body) = ast::Do::cast(statement.clone()).and_then(|it| it.plpgsql()) {
        let found = strings(body.syntax());
        let offset = |it: &SyntaxNode| body.source_range(it.text_range()).start().into();
        return found
            .map(|(node, value)| (offset(&node), node, value))
            .collect();
    }
    strings(statement.clone())
        .map(|(node, value)| (start(&node), node, value))
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
