//! Names that reach out of the tenant's schema.
//!
//! The tenant's schema comes first on the search path, so a migration names its own objects
//! plainly. A qualified name as the **target** of a statement is a change to something shared, or
//! to another tenant; as a source (a table read, a type, a function) it is fine.

use squawk_syntax::{
    SyntaxKind, SyntaxNode,
    ast::{self, AstNode},
};

use super::{Problem, Severity, statements::named};

const OUTSIDE_SCHEMA: &str = "outside-schema";

/// What is wrong with the names directly at this node.
pub(super) fn problems(node: &SyntaxNode) -> Vec<Problem> {
    if is_temporary_schema(node) {
        let message = "names in pg_temp are refused: a temporary object outlives the tenant, use \
                       a WITH query, or a table dropped at the end of the file";
        return vec![Problem::error("temporary-object", node, message.to_owned())];
    }
    match node.kind() {
        SyntaxKind::REFERENCES_CONSTRAINT | SyntaxKind::FOREIGN_KEY_CONSTRAINT => {
            shared_foreign_key(node)
        }
        kind if is_about_schemas(kind) => vec![whole_schema(node)],
        kind if has_targets(kind) => {
            let elsewhere = targets(node).into_iter().filter(is_elsewhere);
            elsewhere.map(|it| outside(&it)).collect()
        }
        _ => Vec::new(),
    }
}

/// The first segment of `pg_temp.x` or `pg_temp_3.x`, in a name or an expression.
fn is_temporary_schema(node: &SyntaxNode) -> bool {
    if !matches!(
        node.kind(),
        SyntaxKind::PATH_SEGMENT_REF | SyntaxKind::NAME_REF
    ) {
        return false;
    }
    let name = ast::normalize_name_node(node);
    let temporary = name == "pg_temp" || name.starts_with("pg_temp_");
    let mut next = node.last_token().and_then(|it| it.next_token());
    while let Some(token) = next.take_if(|it| it.kind().is_trivia()) {
        next = token.next_token();
    }
    temporary && next.is_some_and(|it| it.kind() == SyntaxKind::DOT)
}

fn shared_foreign_key(constraint: &SyntaxNode) -> Vec<Problem> {
    let table = constraint
        .children()
        .find(|it| it.kind() == SyntaxKind::TABLE_NAME_REF);
    let Some(table) = table.filter(is_qualified) else {
        return Vec::new();
    };
    let message = format!(
        "the first foreign key to the shared table {} blocks that table's writers and the \
         migrations of other tenants: add it in a file of its own, NOT VALID, and validate it in \
         the next",
        table.text(),
    );
    let (severity, rule) = (Severity::Warning, "shared-foreign-key");
    vec![Problem {
        severity,
        rule,
        at: table,
        message,
    }]
}

fn is_about_schemas(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::CREATE_SCHEMA
            | SyntaxKind::ALTER_SCHEMA
            | SyntaxKind::DROP_SCHEMA
            | SyntaxKind::SET_SCHEMA
            | SyntaxKind::IMPORT_FOREIGN_SCHEMA
            | SyntaxKind::OBJECT_SCHEMA
            | SyntaxKind::PRIVILEGE_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_FUNCTIONS_IN_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_PROCEDURES_IN_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_ROUTINES_IN_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_SEQUENCES_IN_SCHEMA
            | SyntaxKind::PRIVILEGE_ALL_TABLES_IN_SCHEMA
    )
}

fn whole_schema(node: &SyntaxNode) -> Problem {
    let message = format!(
        "{} is refused: the application creates, names and removes schemas, a migration works \
         inside the tenant's: name the objects in it",
        named(node),
    );
    Problem::error(OUTSIDE_SCHEMA, node, message)
}

fn outside(name: &SyntaxNode) -> Problem {
    let message = format!(
        "{} names {}: leave out the schema, the tenant's comes first on the search path; shared \
         objects are changed outside the migration set",
        named(name),
        name.text(),
    );
    Problem::error(OUTSIDE_SCHEMA, name, message)
}

/// Statements that change what they name directly. The others only read, or are refused whole.
pub(super) fn has_targets(kind: SyntaxKind) -> bool {
    let only_reads = matches!(
        kind,
        SyntaxKind::CALL
            | SyntaxKind::COPY
            | SyntaxKind::SET_CONSTRAINTS
            | SyntaxKind::TABLE
            | SyntaxKind::VACUUM
    );
    ast::Stmt::can_cast(kind) && !only_reads
}

/// The names that a statement acts on.
pub(super) fn targets(node: &SyntaxNode) -> Vec<SyntaxNode> {
    let mut found = Vec::new();
    for child in node.children() {
        match child.kind() {
            SyntaxKind::FUNCTION_NAME_REF if node.kind() == SyntaxKind::CREATE_CONVERSION => {}
            SyntaxKind::FROM_TABLE if node.kind() == SyntaxKind::CREATE_TRIGGER => {}
            kind if is_name(kind) => found.push(child),
            kind if leads_to_target(kind) => found.extend(targets(&child)),
            _ => {}
        }
    }
    found
}

/// Names in pg_temp are reported where they are walked over.
fn is_elsewhere(name: &SyntaxNode) -> bool {
    is_qualified(name) && !name.descendants().any(|it| is_temporary_schema(&it))
}

/// A column is qualified by its table, so its schema is the third name from the right.
fn is_qualified(name: &SyntaxNode) -> bool {
    let plain = if name.kind() == SyntaxKind::QUALIFIED_COLUMN_NAME_REF {
        2
    } else {
        1
    };
    let path = name.children().find(|it| is_path(it.kind()));
    let segments = path.map_or(0, |it| {
        it.descendants().filter(|it| is_path(it.kind())).count()
    });
    segments > plain
}

fn is_path(kind: SyntaxKind) -> bool {
    matches!(kind, SyntaxKind::PATH | SyntaxKind::PATH_REF)
}

/// Nodes that wrap one possibly qualified name.
fn is_name(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::AGGREGATE
            | SyntaxKind::AGGREGATE_NAME
            | SyntaxKind::COLLATION
            | SyntaxKind::COLLATION_REF
            | SyntaxKind::CONVERSION
            | SyntaxKind::CONVERSION_REF
            | SyntaxKind::DOMAIN
            | SyntaxKind::DOMAIN_REF
            | SyntaxKind::FUNCTION_NAME
            | SyntaxKind::FUNCTION_NAME_REF
            | SyntaxKind::INDEX
            | SyntaxKind::INDEX_REF
            | SyntaxKind::OP
            | SyntaxKind::OP_CLASS_NAME
            | SyntaxKind::OP_CLASS_REF
            | SyntaxKind::OP_FAMILY_NAME
            | SyntaxKind::OP_FAMILY_REF
            | SyntaxKind::PROCEDURE_NAME
            | SyntaxKind::PROCEDURE_NAME_REF
            | SyntaxKind::PROPERTY_GRAPH
            | SyntaxKind::PROPERTY_GRAPH_REF
            | SyntaxKind::QUALIFIED_COLUMN_NAME_REF
            | SyntaxKind::RELATION_NAME_REF
            | SyntaxKind::ROUTINE_NAME_REF
            | SyntaxKind::SEQUENCE
            | SyntaxKind::SEQUENCE_REF
            | SyntaxKind::STATISTICS
            | SyntaxKind::STATISTICS_REF
            | SyntaxKind::TABLE_NAME
            | SyntaxKind::TABLE_NAME_REF
            | SyntaxKind::TEXT_SEARCH_CONFIGURATION
            | SyntaxKind::TEXT_SEARCH_CONFIGURATION_REF
            | SyntaxKind::TEXT_SEARCH_DICTIONARY
            | SyntaxKind::TEXT_SEARCH_DICTIONARY_REF
            | SyntaxKind::TEXT_SEARCH_PARSER
            | SyntaxKind::TEXT_SEARCH_PARSER_REF
            | SyntaxKind::TEXT_SEARCH_TEMPLATE
            | SyntaxKind::TEXT_SEARCH_TEMPLATE_REF
            | SyntaxKind::TYPE_NAME
            | SyntaxKind::TYPE_NAME_REF
            | SyntaxKind::VIEW
            | SyntaxKind::VIEW_REF
    )
}

/// Nodes between a statement and the names it acts on. Whatever is not listed (queries, types,
/// expressions, LIKE, the function of a trigger) only reads.
fn leads_to_target(kind: SyntaxKind) -> bool {
    is_object_of_comment_or_grant(kind)
        || matches!(
            kind,
            SyntaxKind::ATTACH_INDEX_PARTITION
                | SyntaxKind::ATTACH_PARTITION
                | SyntaxKind::CLUSTER_LEGACY
                | SyntaxKind::DETACH_PARTITION
                | SyntaxKind::FROM_TABLE
                | SyntaxKind::FUNCTION_SIG
                | SyntaxKind::FUNCTION_SIG_LIST
                | SyntaxKind::INHERITS
                | SyntaxKind::INHERIT_TABLE
                | SyntaxKind::INTO_CLAUSE
                | SyntaxKind::NO_INHERIT_TABLE
                | SyntaxKind::ON_PATH
                | SyntaxKind::ON_RELATION
                | SyntaxKind::ON_TABLE
                | SyntaxKind::OPTION_OWNED_BY
                | SyntaxKind::OP_SIG
                | SyntaxKind::OP_SIG_LIST
                | SyntaxKind::PARTITION_OF
                | SyntaxKind::PROCEDURE_SIG
                | SyntaxKind::PROCEDURE_SIG_LIST
                | SyntaxKind::REINDEX_TARGET_INDEX
                | SyntaxKind::REINDEX_TARGET_TABLE
                | SyntaxKind::RELATION_LIST
                | SyntaxKind::RELATION_NAME
                | SyntaxKind::ROUTINE_SIG
                | SyntaxKind::ROUTINE_SIG_LIST
                | SyntaxKind::RULE_ON
                | SyntaxKind::TABLE_AND_COLUMNS
                | SyntaxKind::TABLE_AND_COLUMNS_LIST
                | SyntaxKind::TABLE_LIST
                | SyntaxKind::TABLE_RELATION_NAME
        )
}

fn is_object_of_comment_or_grant(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::OBJECT_AGGREGATE
            | SyntaxKind::OBJECT_COLLATION
            | SyntaxKind::OBJECT_COLUMN
            | SyntaxKind::OBJECT_CONSTRAINT
            | SyntaxKind::OBJECT_CONVERSION
            | SyntaxKind::OBJECT_DOMAIN
            | SyntaxKind::OBJECT_FOREIGN_TABLE
            | SyntaxKind::OBJECT_FUNCTION
            | SyntaxKind::OBJECT_INDEX
            | SyntaxKind::OBJECT_MATERIALIZED_VIEW
            | SyntaxKind::OBJECT_OPERATOR
            | SyntaxKind::OBJECT_OPERATOR_CLASS
            | SyntaxKind::OBJECT_OPERATOR_FAMILY
            | SyntaxKind::OBJECT_POLICY
            | SyntaxKind::OBJECT_PROCEDURE
            | SyntaxKind::OBJECT_PROPERTY_GRAPH
            | SyntaxKind::OBJECT_ROUTINE
            | SyntaxKind::OBJECT_RULE
            | SyntaxKind::OBJECT_SEQUENCE
            | SyntaxKind::OBJECT_STATISTICS
            | SyntaxKind::OBJECT_TABLE
            | SyntaxKind::OBJECT_TEXT_SEARCH_CONFIG
            | SyntaxKind::OBJECT_TEXT_SEARCH_DICT
            | SyntaxKind::OBJECT_TEXT_SEARCH_PARSER
            | SyntaxKind::OBJECT_TEXT_SEARCH_TEMPLATE
            | SyntaxKind::OBJECT_TRIGGER
            | SyntaxKind::OBJECT_TYPE
            | SyntaxKind::OBJECT_VIEW
            | SyntaxKind::ON_PRIVILEGE_OBJECTS_CLAUSE
            | SyntaxKind::PRIVILEGE_DEFAULT
            | SyntaxKind::PRIVILEGE_DOMAIN
            | SyntaxKind::PRIVILEGE_FUNCTION
            | SyntaxKind::PRIVILEGE_PROCEDURE
            | SyntaxKind::PRIVILEGE_PROPERTY_GRAPH
            | SyntaxKind::PRIVILEGE_ROUTINE
            | SyntaxKind::PRIVILEGE_SEQUENCE
            | SyntaxKind::PRIVILEGE_TABLE
            | SyntaxKind::PRIVILEGE_TYPE
    )
}
