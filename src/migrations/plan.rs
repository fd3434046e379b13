//! What would be done to one schema: pure, from what was read to an ordered list of steps.

use std::ops::RangeInclusive;

use super::file::Migration;

/// One commit's worth of files, or a file that takes several commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Files (ordinals) that are applied and recorded in one transaction.
    Transaction(RangeInclusive<usize>),
    /// A file (ordinal) whose statements run one by one.
    Outside(usize),
}

impl Step {
    /// Whether it takes several commits.
    pub fn is_outside(&self) -> bool {
        matches!(self, Self::Outside(_))
    }

    /// The files of it, of a set's.
    pub fn files<'a>(&self, files: &'a [Migration]) -> &'a [Migration] {
        match self {
            Self::Transaction(ordinals) => &files[ordinals.start() - 1..*ordinals.end()],
            Self::Outside(ordinal) => &files[ordinal - 1..*ordinal],
        }
    }
}

/// The steps that bring one schema to a version.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the schema itself is created first.
    pub create_schema: bool,
    /// In order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plans from `reached` (ordinal, 0 for nothing) to the end of `files`.
    ///
    /// A schema without tables is filled in one transaction: nobody can be using it. Only a new value
    /// of an enum takes a commit before it can be used. A schema with tables gets one transaction a
    /// file, so that no lock is held across files and each committed file is recorded; and a file that
    /// refuses a transaction is run outside.
    pub fn new(exists: bool, has_tables: bool, reached: usize, files: &[Migration]) -> Self {
        let mut steps = Vec::new();
        let mut first = reached + 1;
        let mut used = has_tables;
        for file in files.iter().skip(reached) {
            let ordinal = file.ordinal;
            used |= file.creates_table;
            if file.needs_commits() || has_tables && file.outside.is_some() {
                if first < ordinal {
                    steps.push(Step::Transaction(first..=ordinal - 1));
                }
                steps.push(Step::Outside(ordinal));
                first = ordinal + 1;
            } else if has_tables || ordinal == files.len() || used && file.adds_enum_value {
                // Not before there is a table: a schema that has lost its tables would look the same.
                steps.push(Step::Transaction(first..=ordinal));
                first = ordinal + 1;
            }
        }
        Self {
            create_schema: !exists,
            steps,
        }
    }

    /// Its files, in order.
    pub fn files<'a>(&self, files: &'a [Migration]) -> impl Iterator<Item = &'a Migration> {
        self.steps.iter().flat_map(|step| step.files(files))
    }
}

#[cfg(test)]
mod tests {
    use super::{Step::*, *};

    fn files(texts: &[&str]) -> Vec<Migration> {
        let parse = |(index, text): (usize, &&str)| {
            let mut findings = Vec::new();
            let file = Migration::parse("1_a.sql", "1", "a", text.as_bytes(), &mut findings);
            assert_eq!(findings, []);
            Migration {
                ordinal: index + 1,
                ..file.unwrap()
            }
        };
        texts.iter().enumerate().map(parse).collect()
    }

    fn tables(count: usize) -> Vec<Migration> {
        files(&vec!["CREATE TABLE t (id int);"; count])
    }

    #[test]
    fn an_empty_schema_is_filled_in_one_transaction() {
        let plan = Plan::new(false, false, 0, &tables(3));
        assert!(plan.create_schema);
        assert_eq!(plan.steps, [Transaction(1..=3)]);
    }

    #[test]
    fn a_schema_with_tables_gets_one_transaction_a_file() {
        let plan = Plan::new(true, true, 1, &tables(3));
        assert!(!plan.create_schema);
        assert_eq!(plan.steps, [Transaction(2..=2), Transaction(3..=3)]);
    }

    #[test]
    fn nothing_is_planned_at_or_past_the_target() {
        assert!(Plan::new(true, true, 3, &tables(3)).steps.is_empty());
        assert!(Plan::new(true, true, 4, &tables(3)).steps.is_empty());
    }

    #[test]
    fn a_concurrent_build_runs_outside_only_where_somebody_may_use_the_table() {
        let files = files(&[
            "CREATE TABLE t (id int);",
            "CREATE INDEX CONCURRENTLY i ON t (id);",
            "CREATE TABLE u (id int);",
        ]);
        let empty = Plan::new(false, false, 0, &files);
        assert_eq!(empty.steps, [Transaction(1..=3)]);
        let used = Plan::new(true, true, 1, &files);
        assert_eq!(used.steps, [Outside(2), Transaction(3..=3)]);
    }

    #[test]
    fn a_new_enum_value_is_committed_before_a_later_file_may_use_it() {
        let files = files(&[
            "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (m mood);",
            "ALTER TYPE mood ADD VALUE 'b';",
            "INSERT INTO t VALUES ('b');",
            "ALTER TYPE mood ADD VALUE 'c'; INSERT INTO t VALUES ('c');",
            "CREATE TABLE u (id int);",
        ]);
        let plan = Plan::new(false, false, 0, &files);
        assert_eq!(
            plan.steps,
            [
                Transaction(1..=2),
                Transaction(3..=3),
                Outside(4),
                Transaction(5..=5)
            ]
        );
    }
}
