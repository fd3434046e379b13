//! What would be done to one schema: pure, from what was read to an ordered list of transactions.

use super::{file::Migration, set::MigrationSet};

/// The transactions that bring one schema to a version.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the schema itself is created first.
    pub create_schema: bool,
    /// Ordinals of the files of each transaction: `first..=last`.
    pub transactions: Vec<(usize, usize)>,
}

impl Plan {
    /// Plans from `reached` (ordinal, 0 for nothing) to `target` (ordinal).
    ///
    /// A schema without tables is filled in one transaction: nobody can be using it. A schema with
    /// tables gets one transaction a file, so that no lock is held across files and each committed
    /// file is recorded.
    pub fn new(exists: bool, has_tables: bool, reached: usize, target: usize) -> Self {
        let transactions = if reached >= target {
            Vec::new()
        } else if has_tables {
            (reached + 1..=target).map(|file| (file, file)).collect()
        } else {
            vec![(reached + 1, target)]
        };
        Self {
            create_schema: !exists,
            transactions,
        }
    }

    /// The files of one of its transactions.
    pub fn files<'a>(&self, set: &'a MigrationSet, transaction: (usize, usize)) -> &'a [Migration] {
        &set.files()[transaction.0 - 1..transaction.1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_schema_is_filled_in_one_transaction() {
        let plan = Plan::new(false, false, 0, 3);
        assert_eq!(
            plan,
            Plan {
                create_schema: true,
                transactions: vec![(1, 3)]
            }
        );
    }

    #[test]
    fn a_schema_with_tables_gets_one_transaction_a_file() {
        let plan = Plan::new(true, true, 1, 3);
        assert_eq!(
            plan,
            Plan {
                create_schema: false,
                transactions: vec![(2, 2), (3, 3)]
            }
        );
    }

    #[test]
    fn nothing_is_planned_at_or_past_the_target() {
        assert!(Plan::new(true, true, 3, 3).transactions.is_empty());
        assert!(Plan::new(true, true, 4, 3).transactions.is_empty());
    }
}
