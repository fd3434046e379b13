//! A file's text cut where names have to be looked up before the next statement.

use super::{
    Migration,
    check::{Known, Names, Statement},
};
use crate::pg::ident::{Literal, text_array};

/// A part of a file's text for a transaction that holds all of it.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What has to lie in the tenant's schema, if anywhere, before the piece may run.
    pub names: Option<&'a Names>,
    /// The text.
    pub sql: &'a str,
    /// The line of the file where it begins.
    pub line: usize,
    /// Its statements.
    pub statements: &'a [Statement],
}

impl Migration {
    /// The text for a transaction that holds all of the file, in pieces. Most files are one. `known`: from the files
    /// before it in that transaction.
    pub fn pieces(&self, known: &mut Known) -> Vec<Piece<'_>> {
        let (sql, statements) = self.in_transaction();
        let mut pieces = Vec::new();
        let look: Vec<_> = statements.iter().map(|it| known.look_before(it)).collect();
        let (mut first, mut from) = (0, 0);
        for next in 1..=statements.len() {
            let end = match statements.get(next) {
                Some(statement) if look[next] => statement.offset,
                Some(_) => continue,
                None => sql.len(),
            };
            let statements = &statements[first..next];
            pieces.push(Piece {
                names: look[first].then_some(&statements[0].changes),
                sql: &sql[from..end],
                line: if from == 0 { 1 } else { statements[0].line },
                statements,
            });
            (first, from) = (next, end);
        }
        pieces
    }
}

impl Names {
    /// A query that fails where one of them would lead out of this schema (`tenantd.inside`).
    pub fn look_up(&self, schema: &str) -> String {
        let array = |names: &std::collections::BTreeSet<String>| {
            text_array(names.iter().map(String::as_str))
        };
        format!(
            "SELECT tenantd.inside({}, pg_catalog.current_schemas(false), {}, {})",
            Literal(schema),
            array(&self.relations),
            array(&self.types),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(text: &str) -> Vec<(usize, String)> {
        cuts_behind(text, &mut Known::default())
    }

    fn cuts_behind(text: &str, known: &mut Known) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        let file = Migration::parse("1_a.sql", "1", "a", text.as_bytes(), &mut findings);
        assert_eq!(findings, [], "{text}");
        let file = file.unwrap();
        let pieces = file.pieces(known);
        let whole: String = pieces.iter().map(|it| it.sql).collect();
        assert_eq!(whole, text);
        let asked = |it: &Piece<'_>| {
            let names = it.names?;
            let names = names.relations.iter().chain(&names.types);
            Some((it.line, names.cloned().collect::<Vec<_>>().join(" ")))
        };
        pieces.iter().filter_map(asked).collect()
    }

    #[test]
    fn what_a_file_creates_or_asked_about_is_not_asked_about_again() {
        for (text, expected) in [
            (
                "CREATE TABLE t (id int);\nCREATE INDEX i ON t (id);\nALTER INDEX i RENAME TO j;",
                vec![],
            ),
            (
                "INSERT INTO plans VALUES (1); UPDATE plans SET a = 1; DELETE FROM plans;",
                vec![],
            ),
            (
                "-- why\nALTER TABLE \"Plans\" ADD COLUMN x int;\nALTER TABLE \"Plans\" ADD y int;",
                vec![(1, "Plans")],
            ),
            (
                "SELECT 1;\n-- why\nALTER TABLE Plans ADD x int;",
                vec![(3, "plans")],
            ),
            ("CREATE TABLE t (p int REFERENCES plans);", vec![]),
            (
                "COMMENT ON COLUMN t.c IS 'x'; GRANT SELECT ON t, u TO PUBLIC;",
                vec![(1, "t"), (1, "t u")],
            ),
            (
                "CREATE TYPE mood AS ENUM ('a'); ALTER TYPE mood ADD VALUE 'b'; DROP TYPE m;",
                vec![(1, "m")],
            ),
        ] {
            let found = cuts(text);
            let found: Vec<_> = found
                .iter()
                .map(|(line, names)| (*line, names.as_str()))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_a_file_before_it_in_the_transaction_created_is_not_asked_about() {
        let mut known = Known::default();
        for (text, expected) in [
            ("CREATE TABLE t (id int); CREATE INDEX i ON t (id);", vec![]),
            ("ALTER TABLE t ADD x int; DROP INDEX i;", vec![]),
            ("ALTER TABLE t ADD y int;", vec![(1, "t".to_owned())]),
        ] {
            assert_eq!(cuts_behind(text, &mut known), expected, "{text}");
        }
    }

    #[test]
    fn what_was_known_is_asked_again_after_whatever_may_take_it_away() {
        for change in [
            "DROP TABLE t",
            "ALTER TABLE t RENAME TO u",
            "ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY USING /* this */ INDEX i",
            "ALTER TABLE IF EXISTS t ADD y int",
            "INSERT INTO u VALUES (1)",
            "WITH gone AS (DELETE FROM u RETURNING 1) SELECT 1",
            "DO $$ BEGIN END $$",
        ] {
            let found = cuts(&format!("CREATE TABLE t (id int);\n{change};\nTRUNCATE t;"));
            assert_eq!(found, [(3, "t".to_owned())], "{change}");
        }
    }
}
