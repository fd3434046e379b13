//! The fingerprint: what a schema's catalog says it is, and how that differs from a fresh build.

use std::collections::BTreeSet;

use tokio_postgres::{Client, GenericClient, types::Type};

use crate::{
    error::{During, Result},
    migrations::Migration,
    pg::ident::{self, Ident},
};

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

/// Compares a schema with a fresh build of these files. The fresh one is built in a transaction that is
/// rolled back: nothing of it is ever seen by others.
///
/// # Errors
/// When the files do not apply to an empty schema, or the database does not answer.
pub async fn compare(
    client: &mut Client,
    schema: &str,
    namespace: u32,
    files: &[Migration],
    role: Option<&str>,
    search_path: &[String],
) -> Result<Difference> {
    let transaction = client.transaction().await.during("compare schemas")?;
    let found = of(&transaction, schema, namespace, search_path).await?;
    let scratch = format!("tenantd_scratch_{}", uuid::Uuid::new_v4().simple());
    let what = || "build a fresh schema to compare with".to_owned();
    let mut sql = format!(
        "SET LOCAL lock_timeout = '1s'; CREATE SCHEMA {name}; SET LOCAL search_path = {path};",
        name = Ident(&scratch),
        path = ident::search_path(&scratch, search_path)
    );
    if let Some(role) = role {
        sql.push_str(&format!(
            "GRANT ALL ON SCHEMA {} TO {role}; SET LOCAL ROLE {role};",
            Ident(&scratch),
            role = Ident(role)
        ));
    }
    for file in files {
        sql.push_str(file.in_transaction().0);
        sql.push_str("\n;\n");
    }
    sql.push_str("RESET ROLE;");
    transaction.batch_execute(&sql).await.during(what())?;
    let oid = transaction
        .query_typed(
            "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::name",
            &[(&scratch, Type::TEXT)],
        )
        .await
        .during(what())?[0]
        .get(0);
    let expected = of(&transaction, &scratch, oid, search_path).await?;
    transaction.rollback().await.during("compare schemas")?;
    Ok(Difference {
        extra: found.difference(&expected).cloned().collect(),
        missing: expected.difference(&found).cloned().collect(),
    })
}

/// The lines of one schema.
async fn of(
    client: &impl GenericClient,
    schema: &str,
    namespace: u32,
    search_path: &[String],
) -> Result<BTreeSet<String>> {
    let what = || format!("read the catalog of schema {schema}");
    client
        .batch_execute(&format!(
            "SET LOCAL search_path = {}",
            ident::search_path(schema, search_path)
        ))
        .await
        .during(what())?;
    let rows = client
        .query_typed(include_str!("fingerprint.sql"), &[(&namespace, Type::OID)])
        .await
        .during(what())?;
    let own = format!("{}.", Ident(schema));
    let bare = format!("{schema}.");
    Ok(rows
        .iter()
        .map(|row| row.get::<_, String>(0).replace(&own, "").replace(&bare, ""))
        .collect())
}
