//! Whether the files of a set read the name of the schema that they fill: then a schema filled under another name may
//! differ. Judged by words, so the bodies of functions and blocks are read too; what is built in other ways is found
//! in the schema afterwards.

use super::MigrationSet;

/// Where a file reads the schema's name, in words: `0007_roles.sql:12 reads current_schema`.
/// `schema` and `table`: the registry, from which a file may learn whom it is for.
pub fn find(set: &MigrationSet, schema: Option<&str>, table: &str) -> Option<String> {
    let texts: Vec<_> = set
        .files()
        .iter()
        .map(|file| (&file.file, words(&file.sql)))
        .collect();
    let own = texts.iter().any(|(_, words)| makes_table(words, table));
    texts.iter().find_map(|(file, words)| {
        let (line, what) = reads(words, schema, table, own)?;
        Some(format!("{file}:{line} reads {what}"))
    })
}

/// A word or a sign, and its line.
type Word = (usize, String);

/// The words of a text without its comments, in lower case; every other sign by itself.
fn words(sql: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let (mut line, mut open) = (1, false);
    let mut rest = sql.chars().peekable();
    while let Some(c) = rest.next() {
        let goes_on = c.is_alphanumeric() || c == '_' || c == '$';
        match c {
            '-' if rest.peek() == Some(&'-') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            _ if goes_on && open => {
                if let Some((_, word)) = words.last_mut() {
                    word.extend(c.to_lowercase());
                }
            }
            _ if goes_on => words.push((line, c.to_lowercase().collect())),
            '\n' => line += 1,
            _ if c.is_whitespace() || c == '"' => {}
            _ => words.push((line, c.to_string())),
        }
        open = goes_on;
    }
    words
}

/// Whether a table of this name is made.
fn makes_table(words: &[Word], table: &str) -> bool {
    let texts: Vec<&str> = words.iter().map(|(_, word)| word.as_str()).collect();
    let at = |index: usize| texts.get(index).copied().unwrap_or_default();
    (0..texts.len()).filter(|&i| at(i) == "table").any(|i| {
        let skip = if at(i + 1) == "if" { 3 } else { 0 };
        at(i + 1 + skip) == table && at(i + 2 + skip) != "."
    })
}

fn reads(
    words: &[Word],
    schema: Option<&str>,
    table: &str,
    own: bool,
) -> Option<(usize, &'static str)> {
    let at = |index: Option<usize>| {
        let word = index.and_then(|index| words.get(index));
        word.map_or("", |(_, word)| word.as_str())
    };
    words.iter().enumerate().find_map(|(i, (line, word))| {
        let before = |n: usize| at(i.checked_sub(n));
        match word.as_str() {
            "current_schema" => Some((*line, "current_schema")),
            "current_schemas" => Some((*line, "current_schemas")),
            // A path that is written out holds no name of ours, or one that is found in the schema.
            "search_path" if !matches!(at(Some(i + 1)), "=" | "to") => Some((*line, "search_path")),
            word if word == table => {
                let qualified = before(1) == ".";
                let source = if qualified { before(3) } else { before(1) };
                let registry = match qualified {
                    true => schema.is_none_or(|it| it == before(2)),
                    false => !own,
                };
                (registry && matches!(source, "from" | "join" | "only"))
                    .then_some((*line, "the registry"))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(sql: &str) -> Option<(usize, &'static str)> {
        let words = words(sql);
        reads(
            &words,
            Some("public"),
            "tenants",
            makes_table(&words, "tenants"),
        )
    }

    #[test]
    fn what_reads_the_name_is_found_in_statements_blocks_and_functions() {
        let cases = [
            (
                "SELECT 1;\nINSERT INTO t VALUES (Current_Schema());",
                (2, "current_schema"),
            ),
            (
                "DO $$ BEGIN PERFORM current_schemas(false); END $$",
                (1, "current_schemas"),
            ),
            (
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path FROM CURRENT AS 'SELECT 1'",
                (1, "search_path"),
            ),
            ("SELECT current_setting('search_path')", (1, "search_path")),
            (
                "INSERT INTO t SELECT name\nFROM public.tenants",
                (2, "the registry"),
            ),
            (
                "SELECT * FROM a JOIN \"public\".\"tenants\" USING (id)",
                (1, "the registry"),
            ),
            ("SELECT * FROM tenants", (1, "the registry")),
        ];
        for (sql, expected) in cases {
            assert_eq!(found(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_does_not_read_it_is_let_be() {
        for sql in [
            "-- current_schema\nSELECT 1",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = pg_catalog AS 'SELECT 1'",
            "SET LOCAL search_path TO x",
            "CREATE TABLE a (tenant bigint REFERENCES public.tenants)",
            "CREATE TABLE IF NOT EXISTS tenants (id int); SELECT * FROM tenants",
            "SELECT * FROM other.tenants",
            "SELECT my_current_schema()",
        ] {
            assert_eq!(found(sql), None, "{sql}");
        }
    }
}
