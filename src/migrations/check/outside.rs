//! Files that cannot run in one transaction: they hold a statement that refuses one, or they use an
//! enum value that they add. Their statements run one by one instead.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::{Problem, Statement, start, tokens};

/// A statement that refuses to run in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alone {
    /// `CREATE INDEX CONCURRENTLY` of this name.
    BuildIndex(String),
    /// `DROP INDEX CONCURRENTLY` of this name.
    DropIndex(String),
    /// `REINDEX … CONCURRENTLY`.
    Reindex,
    /// `VACUUM` of tables.
    Vacuum,
}

/// What else is known of a file that runs outside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// What comes to the same in a schema that nobody uses yet.
    pub plain: Plain,
    /// That takes several transactions too: the file uses an enum value that it adds.
    pub commits: bool,
}

/// A file's text with what refuses a transaction blanked out: every place in it stays where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// The text.
    pub sql: String,
    /// The statements that are left.
    pub statements: Vec<Statement>,
}

/// Why the statement cannot run in a transaction, if so.
pub(super) fn alone(statement: &SyntaxNode) -> Option<Alone> {
    let concurrent = concurrently(statement).is_some();
    match statement.kind() {
        SyntaxKind::CREATE_INDEX if concurrent => {
            Some(Alone::BuildIndex(name_in(statement, SyntaxKind::INDEX)?))
        }
        SyntaxKind::DROP_INDEX if concurrent => {
            Some(Alone::DropIndex(name_in(statement, SyntaxKind::INDEX_REF)?))
        }
        SyntaxKind::REINDEX if concurrent => Some(Alone::Reindex),
        SyntaxKind::VACUUM => Some(Alone::Vacuum),
        _ => None,
    }
}

/// An index without a name cannot be found again when its build broke.
pub(super) fn problem(node: &SyntaxNode) -> Option<Problem> {
    let unnamed = node.kind() == SyntaxKind::CREATE_INDEX
        && concurrently(node).is_some()
        && name_in(node, SyntaxKind::INDEX).is_none();
    unnamed.then(|| {
        let message = "CREATE INDEX CONCURRENTLY is refused: give the index a name, so that a build that broke \
                       can be found and repeated";
        Problem::error("index-name", node, message.to_owned())
    })
}

/// What code does that cannot be read is checked at the end of its transaction, and there is none.
pub(super) fn opaque(node: &SyntaxNode) -> Problem {
    let message = format!(
        "{} is refused in a file that runs outside a transaction, because what it does could not be checked: \
         move it to a file of its own",
        super::statements::named(node)
    );
    Problem::error("outside-opaque", node, message)
}

/// The file's text for one transaction.
pub(super) fn plain(text: &str, statements: &[(SyntaxNode, Statement)]) -> Plain {
    let mut sql = text.to_owned();
    let mut left = Vec::new();
    for (node, statement) in statements {
        match statement.alone {
            Some(Alone::Reindex | Alone::Vacuum) => {
                blank(&mut sql, text, start(node), node.text_range().end().into());
                continue;
            }
            Some(Alone::BuildIndex(_) | Alone::DropIndex(_)) => {
                if let Some(word) = concurrently(node) {
                    let range = word.text_range();
                    blank(&mut sql, text, range.start().into(), range.end().into());
                }
            }
            None => {}
        }
        left.push(Statement {
            alone: None,
            ..statement.clone()
        });
    }
    Plain {
        sql,
        statements: left,
    }
}

/// Blanks as many bytes as before, so that later offsets hold.
fn blank(sql: &mut String, text: &str, from: usize, to: usize) {
    let blanks: String = text[from..to]
        .bytes()
        .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
        .collect();
    sql.replace_range(from..to, &blanks);
}

fn concurrently(statement: &SyntaxNode) -> Option<squawk_syntax::SyntaxToken> {
    let own = statement.children_with_tokens();
    let of_target = statement
        .children()
        .filter(|child| {
            matches!(
                child.kind(),
                SyntaxKind::REINDEX_TARGET_INDEX | SyntaxKind::REINDEX_TARGET_TABLE
            )
        })
        .flat_map(|target| target.children_with_tokens().collect::<Vec<_>>());
    own.chain(of_target)
        .filter_map(squawk_syntax::SyntaxElement::into_token)
        .find(|token| token.kind() == SyntaxKind::CONCURRENTLY_KW)
}

/// The identifier in the child of this kind, as the catalog will have it.
fn name_in(statement: &SyntaxNode, kind: SyntaxKind) -> Option<String> {
    let child = statement.children().find(|child| child.kind() == kind)?;
    let word = tokens(&child).filter(|it| !it.kind().is_trivia()).last()?;
    let text = word.text();
    Some(
        match text.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => text.to_lowercase(),
        },
    )
}
