//! Function calls: the few that are refused, and those whose effect the text does not show.

use squawk_syntax::{SyntaxKind, SyntaxNode, ast};

use super::{Problem, statements::SESSION_SETTING, walk};

pub(super) const ADVISORY_LOCK: &str = "advisory-lock";

/// What is wrong with the call, if it is one.
pub(super) fn problem(node: &SyntaxNode) -> Option<Problem> {
    let called = called(node)?;
    let name = called.built_in()?;
    let (rule, advice) = match name {
        "set_config" => (
            SESSION_SETTING,
            "leave it out, or write SET LOCAL for a planner or memory setting",
        ),
        "pg_notify" => (
            "notification",
            "channels belong to the whole database, leave it to the application or a trigger",
        ),
        name if is_session_lock(name) => (
            ADVISORY_LOCK,
            "a session lock outlives the tenant and the service holds its own guard, leave it \
             out or use the pg_advisory_xact_lock functions",
        ),
        _ => return None,
    };
    Some(Problem::error(
        rule,
        node,
        format!("a call of {name}() is refused: {advice}"),
    ))
}

fn is_session_lock(name: &str) -> bool {
    let lock = name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_");
    lock && !name.contains("_xact_")
}

/// Whether the statement may do more than its text says.
pub(super) fn is_opaque(statement: &SyntaxNode) -> bool {
    let runs_anything = |it: &SyntaxNode| {
        matches!(
            it.kind(),
            SyntaxKind::DO | SyntaxKind::CALL | SyntaxKind::EXECUTE
        )
    };
    let calls_unknown = |it: &SyntaxNode| called(it).is_some_and(|it| !it.is_well_known());
    let evaluates = evaluates(statement.kind());
    walk(statement.clone()).any(|it| runs_anything(&it) || (evaluates && calls_unknown(&it)))
}

/// Statements that evaluate their expressions when they run, rather than store them.
fn evaluates(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::ALTER_DOMAIN
            | SyntaxKind::ALTER_FOREIGN_TABLE
            | SyntaxKind::ALTER_TABLE
            | SyntaxKind::COMPOUND_SELECT
            | SyntaxKind::CREATE_MATERIALIZED_VIEW
            | SyntaxKind::CREATE_TABLE_AS
            | SyntaxKind::DELETE
            | SyntaxKind::EXPLAIN
            | SyntaxKind::INSERT
            | SyntaxKind::MERGE
            | SyntaxKind::PAREN_SELECT
            | SyntaxKind::SELECT
            | SyntaxKind::SELECT_INTO
            | SyntaxKind::TABLE
            | SyntaxKind::UPDATE
            | SyntaxKind::VALUES
    )
}

/// A function by name, without its arguments.
struct Called {
    schema: Option<String>,
    name: String,
}

impl Called {
    /// The name, if it can mean a function in pg_catalog.
    fn built_in(&self) -> Option<&str> {
        let pg_catalog = self.schema.as_deref().is_none_or(|it| it == "pg_catalog");
        pg_catalog.then_some(self.name.as_str())
    }

    fn is_well_known(&self) -> bool {
        let name = self.built_in();
        name.is_some_and(|it| {
            WELL_KNOWN.contains(&it) || FAMILIES.iter().any(|family| it.starts_with(family))
        })
    }
}

/// The name in `f(…)` or `s.f(…)`. Calls with a syntax of their own, such as `extract(…)`, have
/// none and are built in.
fn called(node: &SyntaxNode) -> Option<Called> {
    if node.kind() != SyntaxKind::CALL_EXPR {
        return None;
    }
    let callee = node.first_child()?;
    match callee.kind() {
        SyntaxKind::NAME_REF => Some(Called {
            schema: None,
            name: ast::normalize_name_node(&callee),
        }),
        SyntaxKind::FIELD_EXPR => {
            let name = callee.last_child()?;
            let schema = callee.first_child().map(|it| ast::normalize_name_node(&it));
            Some(Called {
                schema,
                name: ast::normalize_name_node(&name),
            })
        }
        _ => None,
    }
}

/// Prefixes that only built-in functions without side effects are likely to carry.
const FAMILIES: [&str; 9] = [
    "array_", "date_", "json_", "jsonb_", "pg_get_", "regexp_", "string_", "to_", "xml",
];

/// Functions that migrations commonly call and that change no state but a sequence's.
#[rustfmt::skip]
const WELL_KNOWN: &[&str] = &[
    "abs", "age", "array", "ascii", "avg", "bit_and", "bit_or", "bit_length", "bool_and",
    "bool_or", "bpchar", "btrim", "cardinality", "cbrt", "ceil", "ceiling", "char_length",
    "character_length", "chr", "clock_timestamp", "coalesce", "col_description", "concat",
    "concat_ws", "convert_from", "convert_to", "count", "cume_dist", "current_database",
    "current_schema", "current_schemas", "current_setting", "currval", "daterange", "decode",
    "degrees", "dense_rank", "div", "encode", "enum_first", "enum_last", "enum_range", "every",
    "exp", "first_value", "floor", "format", "format_type", "gcd", "gen_random_uuid",
    "generate_series", "generate_subscripts", "get_byte", "greatest", "grouping",
    "has_schema_privilege", "has_table_privilege", "hashtext", "host", "initcap", "int4range",
    "int8range", "isempty", "isfinite", "justify_days", "justify_hours", "justify_interval",
    "lag", "last_value", "lastval", "lcm", "lead", "least", "left", "length", "ln", "log",
    "lower", "lpad", "ltrim", "make_date", "make_interval", "make_time", "make_timestamp",
    "make_timestamptz", "max", "md5", "min", "mod", "mode", "multirange", "nextval", "normalize",
    "now", "nth_value", "ntile", "nullif", "num_nonnulls", "num_nulls", "numrange",
    "obj_description", "octet_length", "overlay", "percent_rank", "percentile_cont",
    "percentile_disc", "pg_advisory_xact_lock", "pg_table_size", "pg_try_advisory_xact_lock",
    "pg_typeof", "pi", "plainto_tsquery", "position", "power", "quote_ident", "quote_literal",
    "quote_nullable", "random", "range_agg", "rank", "repeat", "replace", "reverse", "right",
    "round", "row_number", "row_to_json", "rpad", "rtrim", "setval", "setweight", "sha256",
    "sign", "split_part", "sqrt", "starts_with", "statement_timestamp", "stddev", "strpos",
    "substr", "sum", "timeofday", "transaction_timestamp", "translate", "trunc", "tsrange",
    "tstzrange", "unnest", "upper", "upper_inf", "variance", "version", "websearch_to_tsquery",
    "width_bucket",
];
