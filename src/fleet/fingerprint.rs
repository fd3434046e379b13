//! The fingerprint: what a schema's catalog says it is, and how that differs from another's.

use std::collections::BTreeSet;

use tokio_postgres::{Client, GenericClient, types::Type};

use crate::{
    error::{During, Result},
    pg::ident,
};

const READ: &str = "read the catalog of a schema";

/// What a schema is, a line an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeSet<String>);

/// How a schema differs from a fresh one: lines only one of them has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the tenant's schema, not in a fresh one.
    pub extra: Vec<String>,
    /// In a fresh schema, not in the tenant's.
    pub missing: Vec<String>,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.extra.is_empty() && self.missing.is_empty()
    }

    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.extra.len() + self.missing.len()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self
            .missing
            .iter()
            .map(|line| ('-', line))
            .chain(self.extra.iter().map(|line| ('+', line)));
        for (sign, line) in lines {
            writeln!(f, "  {sign} {}", line.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl Fingerprint {
    /// Of an existing schema.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn of(
        client: &mut Client,
        schema: &str,
        namespace: u32,
        search_path: &[String],
    ) -> Result<Self> {
        let transaction = client.transaction().await.during(READ)?;
        let found = read(&transaction, schema, namespace, search_path).await?;
        transaction.rollback().await.during(READ)?;
        Ok(found)
    }

    /// A line that holds this text, if one does.
    pub fn line_with(&self, text: &str) -> Option<&str> {
        let mut lines = self.0.iter().map(String::as_str);
        lines.find(|line| line.contains(text))
    }

    /// What this schema and a fresh one do not share.
    pub fn difference(&self, fresh: &Self) -> Difference {
        Difference {
            extra: self.0.difference(&fresh.0).cloned().collect(),
            missing: fresh.0.difference(&self.0).cloned().collect(),
        }
    }
}

/// The lines of one schema, inside a transaction.
pub(super) async fn read(
    client: &impl GenericClient,
    schema: &str,
    namespace: u32,
    search_path: &[String],
) -> Result<Fingerprint> {
    let path = ident::search_path(schema, search_path);
    client
        .batch_execute(&format!("SET LOCAL search_path = {path}"))
        .await
        .during(READ)?;
    let rows = client
        .query_typed(include_str!("fingerprint.sql"), &[(&namespace, Type::OID)])
        .await
        .during(READ)?;
    Ok(Fingerprint(rows.iter().map(|row| row.get(0)).collect()))
}
