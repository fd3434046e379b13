//! Quoting: the only place that turns names and values into SQL text.
//!
//! Values normally travel as parameters. Text is built only where PostgreSQL takes none: identifiers,
//! and the one-message apply, whose statements share a single simple query.

use std::fmt::{self, Display};

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// An SQL identifier that displays quoted: `Ident("a\"b")` shows `"a""b"`.
#[derive(Clone, Copy, Debug)]
pub struct Ident<'a>(pub &'a str);

impl Display for Ident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_identifier(self.0))
    }
}

/// An SQL text literal that displays quoted, safe with `standard_conforming_strings` on or off.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a>(pub &'a str);

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(escape_literal(self.0).trim_start())
    }
}

/// An optional text literal: `NULL` when absent.
#[derive(Clone, Copy, Debug)]
pub struct Nullable<'a>(pub Option<&'a str>);

impl Display for Nullable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => Literal(text).fmt(f),
            None => f.write_str("NULL"),
        }
    }
}

/// A `text[]` literal: one constant, however many items.
pub fn text_array<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let mut array = String::from("{");
    for item in items {
        if array.len() > 1 {
            array.push(',');
        }
        array.push('"');
        for character in item.chars() {
            if matches!(character, '"' | '\\') {
                array.push('\\');
            }
            array.push(character);
        }
        array.push('"');
    }
    array.push('}');
    format!("{}::pg_catalog.text[]", Literal(&array))
}

/// Stands behind one text argument of a call that also has arguments of type `name`, and be it NULL: from those, all
/// text in a PL/pgSQL function gets the collation `C`, and no index over a column of the database's collation serves it.
pub const OF_DATABASE: &str = "COLLATE pg_catalog.\"default\"";

/// A `search_path` of quoted entries, `{schema}` standing for the tenant's; `pg_temp` comes last, or it
/// would come first without being named.
pub fn search_path(schema: &str, entries: &[String]) -> String {
    let mut path: Vec<String> = entries
        .iter()
        .map(|entry| {
            if entry == "{schema}" {
                Ident(schema).to_string()
            } else {
                Ident(entry).to_string()
            }
        })
        .collect();
    path.push("pg_temp".into());
    path.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_stay_one_identifier() {
        assert_eq!(Ident("a\"b").to_string(), "\"a\"\"b\"");
        assert_eq!(
            Ident("x; DROP SCHEMA y").to_string(),
            "\"x; DROP SCHEMA y\""
        );
        assert_eq!(Literal("it's").to_string(), "'it''s'");
        assert_eq!(Literal("a\\'b").to_string(), "E'a\\\\''b'");
        assert_eq!(text_array([]), "'{}'::pg_catalog.text[]");
        assert_eq!(
            text_array(["a", "b'c", "", "NULL"]),
            r#"'{"a","b''c","","NULL"}'::pg_catalog.text[]"#
        );
        assert_eq!(
            text_array([r#"d"\}"#]),
            r#"E'{"d\\"\\\\}"}'::pg_catalog.text[]"#
        );
    }

    proptest! {
        #[test]
        fn an_identifier_never_holds_a_lone_quote(name in "\\PC{0,80}") {
            let quoted = Ident(&name).to_string();
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert_eq!(inner.replace("\"\"", "").matches('"').count(), 0);
            prop_assert_eq!(inner.replace("\"\"", "\""), name);
        }
    }
}
