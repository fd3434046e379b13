//! Table names as they are written in SQL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A table name with an optional schema, unquoted parts folded to lower case as PostgreSQL does.
///
/// ```
/// use tenantd::config::QualifiedName;
///
/// let name: QualifiedName = r#""My Schema".Tenants"#.parse()?;
/// assert_eq!(name.schema.as_deref(), Some("My Schema"));
/// assert_eq!(name.name, "tenants");
/// # Ok::<(), tenantd::config::ParseNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QualifiedName {
    /// The schema; `None` leaves it to the search path of tenantd's role.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

/// Why a text is no table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a table name: {reason}")]
pub struct ParseNameError {
    text: String,
    reason: &'static str,
}

impl FromStr for QualifiedName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let refuse = |reason| ParseNameError {
            text: text.to_owned(),
            reason,
        };
        let (first, rest) = part(text.trim()).map_err(refuse)?;
        let Some(rest) = rest else {
            return Ok(Self {
                schema: None,
                name: first,
            });
        };
        match part(rest).map_err(refuse)? {
            (name, None) => Ok(Self {
                schema: Some(first),
                name,
            }),
            (_, Some(_)) => Err(refuse("it has more parts than `schema.table`")),
        }
    }
}

/// Reads one identifier, and returns what follows the dot after it, if there is a dot.
fn part(text: &str) -> Result<(String, Option<&str>), &'static str> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(body) => quoted(body)?,
        None => unquoted(text)?,
    };
    if name.is_empty() {
        return Err("a part of it is empty");
    }
    match rest.strip_prefix('.') {
        Some(after) => Ok((name, Some(after))),
        None if rest.is_empty() => Ok((name, None)),
        None => Err("other characters than letters, digits, `_` and `$` need double quotes"),
    }
}

/// Reads up to the closing quote; `""` stands for one quote.
fn quoted(body: &str) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once('"') {
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Ok((name, after)),
        }
    }
    Err("a double quote is not closed")
}

/// Reads letters, digits, `_` and `$`. Only ASCII folds, as on the server with multi-byte encodings.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
        return Err("a part that begins with a digit or `$` needs double quotes");
    }
    let end = text
        .find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' && c != '$')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    Ok((name.to_ascii_lowercase(), rest))
}

/// Prints it so that it parses back: quotes only where folding or syntax asks for them.
impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write_part(f, schema)?;
            f.write_str(".")?;
        }
        write_part(f, &self.name)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let plain = matches!(part(name), Ok((parsed, None)) if parsed == name);
    if plain {
        f.write_str(name)
    } else {
        write!(f, "\"{}\"", name.replace('"', "\"\""))
    }
}

impl<'de> Deserialize<'de> for QualifiedName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for QualifiedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_postgres_reads_them() {
        for (text, schema, name) in [
            ("tenants", None, "tenants"),
            ("Public.Tenants", Some("public"), "tenants"),
            (r#""My Schema"."T""#, Some("My Schema"), "T"),
            (r#"app."a.b""#, Some("app"), "a.b"),
            (r#""say ""hi""""#, None, r#"say "hi""#),
            ("größe.t$1", Some("größe"), "t$1"),
        ] {
            let parsed: QualifiedName = text.parse().unwrap();
            assert_eq!(
                (parsed.schema.as_deref(), parsed.name.as_str()),
                (schema, name),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("a.", "empty"),
            (".a", "empty"),
            (r#""""#, "empty"),
            ("a.b.c", "more parts"),
            ("my table", "need double quotes"),
            ("my-schema.t", "need double quotes"),
            ("1st", "begins with a digit"),
            (r#""open"#, "not closed"),
        ] {
            let error = text.parse::<QualifiedName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_name_parses_back(schema in proptest::option::of(".+"), name in ".+") {
            let original = QualifiedName { schema, name };
            prop_assert_eq!(original.to_string().parse::<QualifiedName>(), Ok(original));
        }
    }
}
