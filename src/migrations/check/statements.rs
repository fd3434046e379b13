//! Statements that no migration file may hold.

use squawk_syntax::{
    SyntaxKind, SyntaxNode,
    ast::{self, AstNode},
};

use super::{Problem, tokens};

const TRANSACTION_CONTROL: &str = "transaction-control";
pub(super) const SESSION_SETTING: &str = "session-setting";
const NO_TRANSACTION: &str = "no-transaction";
const DATABASE_WIDE: &str = "database-wide";

/// The rules that also hold inside `DO` blocks.
pub(super) const REFUSED_IN_BODIES: [&str; 3] = [
    TRANSACTION_CONTROL,
    SESSION_SETTING,
    super::calls::ADVISORY_LOCK,
];

/// What `SET LOCAL` may set: it lasts until the end of the transaction, and so reaches the files
/// that run after this one.
const LOCAL_SETTINGS: [&str; 5] = [
    "check_function_bodies",
    "constraint_exclusion",
    "maintenance_work_mem",
    "max_parallel_maintenance_workers",
    "work_mem",
];

/// Words after which a statement's name is complete.
const STOP_WORDS: [&str; 6] = ["IF", "FOR", "ON", "BY", "ALL", "ONLY"];

/// What is wrong with the statement or clause, if anything.
pub(super) fn problem(node: &SyntaxNode) -> Option<Problem> {
    let (rule, advice) = match node.kind() {
        SyntaxKind::SET => return setting(node),
        SyntaxKind::GRANT | SyntaxKind::REVOKE => role_grant(node)?,
        SyntaxKind::CLUSTER | SyntaxKind::REPACK | SyntaxKind::VACUUM => whole_database(node)?,
        kind => always(kind)?,
    };
    let message = format!("{} is refused: {advice}", named(node));
    Some(Problem::error(rule, node, message))
}

fn always(kind: SyntaxKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        SyntaxKind::BEGIN
        | SyntaxKind::COMMIT_TRANSACTION
        | SyntaxKind::COMMIT_PREPARED
        | SyntaxKind::ROLLBACK_TRANSACTION
        | SyntaxKind::ROLLBACK_TO_SAVEPOINT
        | SyntaxKind::ROLLBACK_PREPARED
        | SyntaxKind::SAVEPOINT_CREATE
        | SyntaxKind::RELEASE_SAVEPOINT
        | SyntaxKind::PREPARE_TRANSACTION
        | SyntaxKind::SET_TRANSACTION
        | SyntaxKind::PLPGSQL_COMMIT_STMT
        | SyntaxKind::PLPGSQL_ROLLBACK_STMT => (
            TRANSACTION_CONTROL,
            "leave it out, the service commits the file together with its ledger entry",
        ),
        SyntaxKind::RESET
        | SyntaxKind::RESET_ROLE
        | SyntaxKind::RESET_SESSION_AUTH
        | SyntaxKind::SET_ROLE
        | SyntaxKind::SET_SESSION_AUTH
        | SyntaxKind::DISCARD => (
            SESSION_SETTING,
            "leave it out, the service prepares and cleans the session",
        ),
        SyntaxKind::COPY => (
            "copy",
            "no data travels beside the file, write the rows as INSERT … VALUES",
        ),
        SyntaxKind::PREPARE | SyntaxKind::EXECUTE | SyntaxKind::DEALLOCATE => (
            "prepared-statement",
            "it outlives the tenant, write the statement itself",
        ),
        SyntaxKind::DECLARE | SyntaxKind::FETCH | SyntaxKind::MOVE | SyntaxKind::CLOSE => (
            "cursor",
            "nobody reads it, use INSERT … SELECT, UPDATE … FROM or a loop in a DO block",
        ),
        SyntaxKind::LISTEN | SyntaxKind::UNLISTEN | SyntaxKind::NOTIFY => (
            "notification",
            "channels belong to the whole database, leave it to the application or a trigger",
        ),
        SyntaxKind::LOAD => (
            "load",
            "set session_preload_libraries on the server instead",
        ),
        SyntaxKind::TEMP => (
            "temporary-object",
            "it outlives the tenant, use a WITH query, or a table dropped at the end of the file",
        ),
        SyntaxKind::DETACH_CONCURRENTLY => (
            NO_TRANSACTION,
            "it cannot run in a transaction, and one that broke cannot be repeated: use the plain form",
        ),
        SyntaxKind::REINDEX_OPTION_CONCURRENTLY => (
            NO_TRANSACTION,
            "write it behind the kind of object: REINDEX INDEX CONCURRENTLY …",
        ),
        SyntaxKind::REINDEX_TARGET_SCHEMA
        | SyntaxKind::REINDEX_TARGET_DATABASE
        | SyntaxKind::REINDEX_TARGET_SYSTEM => (
            NO_TRANSACTION,
            "it cannot run in a transaction, and goes through more than the file can name: name the \
             index or the table",
        ),
        kind if is_database_wide(kind) => (DATABASE_WIDE, DATABASE_ADVICE),
        _ => return None,
    })
}

const DATABASE_ADVICE: &str = "it acts on the whole database and would run once a tenant, do it \
                               once outside the migration set";

fn is_database_wide(kind: SyntaxKind) -> bool {
    creates_for_all(kind) || alters_for_all(kind) || drops_for_all(kind) || names_for_all(kind)
}

fn creates_for_all(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::CREATE_ACCESS_METHOD
            | SyntaxKind::CREATE_DATABASE
            | SyntaxKind::CREATE_EVENT_TRIGGER
            | SyntaxKind::CREATE_EXTENSION
            | SyntaxKind::CREATE_FOREIGN_DATA_WRAPPER
            | SyntaxKind::CREATE_GROUP
            | SyntaxKind::CREATE_LANGUAGE
            | SyntaxKind::CREATE_PUBLICATION
            | SyntaxKind::CREATE_ROLE
            | SyntaxKind::CREATE_SERVER
            | SyntaxKind::CREATE_SUBSCRIPTION
            | SyntaxKind::CREATE_TABLESPACE
            | SyntaxKind::CREATE_USER
            | SyntaxKind::CREATE_USER_MAPPING
    )
}

fn alters_for_all(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::ALL_IN_TABLESPACE
            | SyntaxKind::ALTER_DATABASE
            | SyntaxKind::ALTER_DEFAULT_PRIVILEGES
            | SyntaxKind::ALTER_EVENT_TRIGGER
            | SyntaxKind::ALTER_EXTENSION
            | SyntaxKind::ALTER_FOREIGN_DATA_WRAPPER
            | SyntaxKind::ALTER_GROUP
            | SyntaxKind::ALTER_LANGUAGE
            | SyntaxKind::ALTER_LARGE_OBJECT
            | SyntaxKind::ALTER_PUBLICATION
            | SyntaxKind::ALTER_ROLE
            | SyntaxKind::ALTER_SERVER
            | SyntaxKind::ALTER_SUBSCRIPTION
            | SyntaxKind::ALTER_SYSTEM
            | SyntaxKind::ALTER_TABLESPACE
            | SyntaxKind::ALTER_USER
            | SyntaxKind::ALTER_USER_MAPPING
            | SyntaxKind::CHECKPOINT
            | SyntaxKind::REASSIGN
            | SyntaxKind::SECURITY_LABEL
    )
}

fn drops_for_all(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::DROP_ACCESS_METHOD
            | SyntaxKind::DROP_DATABASE
            | SyntaxKind::DROP_EVENT_TRIGGER
            | SyntaxKind::DROP_EXTENSION
            | SyntaxKind::DROP_FOREIGN_DATA_WRAPPER
            | SyntaxKind::DROP_GROUP
            | SyntaxKind::DROP_LANGUAGE
            | SyntaxKind::DROP_OWNED
            | SyntaxKind::DROP_PUBLICATION
            | SyntaxKind::DROP_ROLE
            | SyntaxKind::DROP_SERVER
            | SyntaxKind::DROP_SUBSCRIPTION
            | SyntaxKind::DROP_TABLESPACE
            | SyntaxKind::DROP_USER
            | SyntaxKind::DROP_USER_MAPPING
    )
}

/// The objects of COMMENT, GRANT and REVOKE that lie outside every schema.
fn names_for_all(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::OBJECT_ACCESS_METHOD
            | SyntaxKind::OBJECT_DATABASE
            | SyntaxKind::OBJECT_EVENT_TRIGGER
            | SyntaxKind::OBJECT_EXTENSION
            | SyntaxKind::OBJECT_FOREIGN_DATA_WRAPPER
            | SyntaxKind::OBJECT_LANGUAGE
            | SyntaxKind::OBJECT_LARGE_OBJECT
            | SyntaxKind::OBJECT_PUBLICATION
            | SyntaxKind::OBJECT_ROLE
            | SyntaxKind::OBJECT_SERVER
            | SyntaxKind::OBJECT_SUBSCRIPTION
            | SyntaxKind::OBJECT_TABLESPACE
            | SyntaxKind::PRIVILEGE_DATABASE
            | SyntaxKind::PRIVILEGE_FOREIGN_DATA_WRAPPER
            | SyntaxKind::PRIVILEGE_FOREIGN_SERVER
            | SyntaxKind::PRIVILEGE_LANGUAGE
            | SyntaxKind::PRIVILEGE_LARGE_OBJECT
            | SyntaxKind::PRIVILEGE_PARAMETER
            | SyntaxKind::PRIVILEGE_TABLESPACE
    )
}

/// GRANT and REVOKE without ON hand out membership in a role.
fn role_grant(node: &SyntaxNode) -> Option<(&'static str, &'static str)> {
    let advice = "membership in a role holds for all databases, grant it once outside the set";
    let on_objects = has_child(node, SyntaxKind::ON_PRIVILEGE_OBJECTS_CLAUSE);
    (!on_objects).then_some((DATABASE_WIDE, advice))
}

/// CLUSTER, REPACK and VACUUM without a table go through all tables of the database.
fn whole_database(node: &SyntaxNode) -> Option<(&'static str, &'static str)> {
    let advice = "without a table it goes through the whole database, name the table";
    let of_table = [
        SyntaxKind::TABLE_NAME_REF,
        SyntaxKind::CLUSTER_LEGACY,
        SyntaxKind::TABLE_AND_COLUMNS_LIST,
    ];
    let named = of_table.into_iter().any(|it| has_child(node, it));
    (!named).then_some((DATABASE_WIDE, advice))
}

/// `SET LOCAL` of a listed parameter passes, everything else is refused.
fn setting(node: &SyntaxNode) -> Option<Problem> {
    let target = node
        .children()
        .find(|it| it.kind() != SyntaxKind::LOCAL_SCOPE);
    let name = target.and_then(|it| {
        let name = it
            .children()
            .find(|it| it.kind() == SyntaxKind::CONFIG_PARAMETER_REF)?;
        Some(name.text().to_string().trim_matches('"').to_lowercase())
    });
    let listed = name
        .as_deref()
        .is_some_and(|it| LOCAL_SETTINGS.contains(&it) || it.starts_with("enable_"));
    let advice = match (listed, has_child(node, SyntaxKind::LOCAL_SCOPE)) {
        (true, true) => return None,
        (true, false) => "it outlives the tenant, write SET LOCAL",
        _ => "leave it out, only planner and memory settings may be changed, with SET LOCAL",
    };
    let what = name.unwrap_or_else(|| "this setting".to_owned());
    let message = format!("SET of {what} is refused: {advice}");
    Some(Problem::error(SESSION_SETTING, node, message))
}

/// The words that begin the statement around a node, and the clause when the node is one:
/// `CREATE EXTENSION`, `ALTER TABLE … CONCURRENTLY`.
pub(super) fn named(node: &SyntaxNode) -> String {
    let statement = node.ancestors().find(|it| ast::Stmt::can_cast(it.kind()));
    let clause = first_words(node);
    match statement.map(|it| first_words(&it)) {
        Some(whole) if !whole.contains(&clause) => format!("{whole} … {clause}"),
        Some(whole) => whole,
        None => clause,
    }
}

/// The keywords before the first name, without a leading WITH query.
fn first_words(node: &SyntaxNode) -> String {
    let with = node
        .children()
        .find(|it| it.kind() == SyntaxKind::WITH_CLAUSE);
    let from = with.map_or(node.text_range().start(), |it| it.text_range().end());
    let words: Vec<String> = tokens(node)
        .filter(|it| it.text_range().start() >= from && !it.kind().is_trivia())
        .take_while(|it| it.kind() != SyntaxKind::IDENT)
        .map(|it| it.text().to_uppercase())
        .take_while(|it| it.starts_with(char::is_alphabetic) && !STOP_WORDS.contains(&it.as_str()))
        .take(4)
        .collect();
    words.join(" ")
}

fn has_child(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children().any(|it| it.kind() == kind)
}
