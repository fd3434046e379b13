//! The key=value form of a connection string, and the choice between it and the URI form.

use super::{ConninfoError, uri};

/// One parameter as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: String,
}

impl Pair {
    pub(super) fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }
}

/// Takes a connection string apart, in the order in which it was written.
pub(super) fn connection_string(text: &str) -> Result<Vec<Pair>, ConninfoError> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    if let Some(rest) = rest {
        return uri::parse(rest);
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| {
        scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
    }) {
        return Err(ConninfoError::Syntax(
            "a URI must begin with postgres:// or postgresql://",
        ));
    }
    key_values(text)
}

/// Reads `key=value key = 'a value'`; a backslash takes the next character as it is.
fn key_values(text: &str) -> Result<Vec<Pair>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let after = after
            .trim_start()
            .strip_prefix('=')
            // A URI that lost its scheme would show its password as the name of a parameter.
            .filter(|_| !key.is_empty() && !key.contains([':', '@', '/']));
        let after = after.ok_or(ConninfoError::Syntax(
            "expected a postgres:// URI, or key=value pairs with `=` after each key (a value with \
             spaces needs single quotes)",
        ))?;
        let (value, after) = value(after.trim_start())?;
        pairs.push(Pair::new(key, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// Reads one value, and returns what follows it.
fn value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(ConninfoError::Syntax("a single quote is not closed"));
    }
    Ok((value, ""))
}

/// Writes a value so that it reads back: quotes only where they are needed.
pub(super) fn quote(value: &str) -> String {
    let plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '\'' || c == '\\');
    if plain {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        let read =
            connection_string(r"host = 'a b' user=o\'x  password='it\'s \\' dbname=").unwrap();
        let expected = [
            ("host", "a b"),
            ("user", "o'x"),
            ("password", r"it's \"),
            ("dbname", ""),
        ];
        assert_eq!(read, expected.map(|(key, value)| Pair::new(key, value)));
        assert_eq!(connection_string("  "), Ok(Vec::new()));
    }

    #[test]
    fn broken_pairs_are_refused() {
        for text in [
            "mydb",
            "host=a mydb",
            "=x",
            "host='a",
            "mysql://u@h/db",
            "host",
        ] {
            assert!(connection_string(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_value_reads_back(value in any::<String>(), next in any::<String>()) {
            let text = format!("host={} user={}", quote(&value), quote(&next));
            let expected = vec![Pair::new("host", value), Pair::new("user", next)];
            prop_assert_eq!(connection_string(&text), Ok(expected));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = connection_string(&text);
            let _ = connection_string(&format!("postgres://{text}"));
        }
    }
}
