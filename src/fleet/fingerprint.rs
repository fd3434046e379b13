//! The fingerprint: what a schema's catalog says it is, and how that differs from a fresh build.

use std::collections::BTreeSet;

use tokio_postgres::{Client, GenericClient, types::Type};

use crate::{
    error::{During, Result},
    migrations::{Migration, Plan, Step},
    pg::ident::{self, Ident},
};

const BUILD: &str = "build a fresh schema to compare with";
const READ: &str = "read the catalog of a schema";
/// What a fresh schema is called while it is there; followed by the time and something random.
const SCRATCH: &str = "tenantd_scratch_";

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

    /// Of a fresh build of these files. It is built in a transaction that is rolled back: nothing of it is
    /// ever seen by others. Only a set that needs commits in between, for the values of an enum, is built
    /// in a schema that is there for the moment, and dropped.
    ///
    /// # Errors
    /// When the files do not apply to an empty schema, or the database does not answer.
    pub async fn fresh(
        client: &mut Client,
        files: &[Migration],
        role: Option<&str>,
        search_path: &[String],
    ) -> Result<Self> {
        sweep_scratch(client).await?;
        let scratch = format!("{SCRATCH}{}_{}", now(), uuid::Uuid::new_v4().simple());
        let scratch = &scratch[..scratch.len().min(63)];
        let build = Build {
            scratch,
            role,
            search_path,
        };
        let plan = Plan::new(false, false, 0, files);
        if let [Step::Transaction(_)] = plan.steps.as_slice() {
            let transaction = client.transaction().await.during(BUILD)?;
            let create = format!("CREATE SCHEMA {};", Ident(scratch));
            transaction
                .batch_execute(&(create + &build.text(&texts(files))))
                .await
                .during(BUILD)?;
            let fresh = build.read(&transaction).await?;
            transaction.rollback().await.during(BUILD)?;
            return Ok(fresh);
        }
        let fresh = build.committed(client, &plan, files).await;
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", Ident(scratch));
        client.batch_execute(&drop).await.during(BUILD)?;
        fresh
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

/// A fresh schema while it is there.
struct Build<'a> {
    scratch: &'a str,
    role: Option<&'a str>,
    search_path: &'a [String],
}

impl Build<'_> {
    /// These texts, run in the schema and as the role. Settings end with the transaction.
    fn text(&self, texts: &[&str]) -> String {
        let name = Ident(self.scratch);
        let mut sql = format!(
            "SET LOCAL lock_timeout = '1s'; SET LOCAL search_path = {};",
            ident::search_path(self.scratch, self.search_path)
        );
        if let Some(role) = self.role {
            let role = Ident(role);
            sql.push_str(&format!(
                "GRANT ALL ON SCHEMA {name} TO {role}; SET LOCAL ROLE {role};"
            ));
        }
        for text in texts {
            sql.push_str(text);
            sql.push_str("\n;\n");
        }
        sql.push_str("RESET ROLE;");
        sql
    }

    async fn committed(
        &self,
        client: &mut Client,
        plan: &Plan,
        files: &[Migration],
    ) -> Result<Fingerprint> {
        let create = format!("CREATE SCHEMA {}", Ident(self.scratch));
        client.batch_execute(&create).await.during(BUILD)?;
        for step in &plan.steps {
            let files = step.files(files);
            let parts: Vec<Vec<&str>> = match step {
                Step::Transaction(_) => vec![texts(files)],
                Step::Outside(_) => {
                    let file = &files[0];
                    let text = |it: &crate::migrations::check::Statement| {
                        vec![&file.sql[it.offset..it.end]]
                    };
                    file.statements.iter().map(text).collect()
                }
            };
            for part in parts {
                let transaction = client.transaction().await.during(BUILD)?;
                let sql = self.text(&part);
                transaction.batch_execute(&sql).await.during(BUILD)?;
                transaction.commit().await.during(BUILD)?;
            }
        }
        let transaction = client.transaction().await.during(BUILD)?;
        self.read(&transaction).await
    }

    async fn read(&self, client: &impl GenericClient) -> Result<Fingerprint> {
        let rows = client
            .query_typed(
                "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name",
                &[(&self.scratch, Type::TEXT)],
            )
            .await
            .during(BUILD)?;
        read(client, self.scratch, rows[0].get(0), self.search_path).await
    }
}

fn texts(files: &[Migration]) -> Vec<&str> {
    files.iter().map(|file| file.in_transaction().0).collect()
}

/// The lines of one schema, inside a transaction.
async fn read(
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

/// Seconds since the epoch.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Drops what a process that was killed left behind more than an hour ago.
async fn sweep_scratch(client: &Client) -> Result<()> {
    let rows = client
        .query_typed(
            "SELECT nspname::text FROM pg_catalog.pg_namespace
             WHERE nspname ~ $1 AND pg_catalog.substring(nspname, '[0-9]+')::bigint < $2::bigint - 3600",
            &[
                (&format!("^{SCRATCH}[0-9]{{10}}_[0-9a-f]+$"), Type::TEXT),
                (&i64::try_from(now()).unwrap_or(i64::MAX), Type::INT8),
            ],
        )
        .await
        .during(BUILD)?;
    for row in rows {
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", Ident(row.get(0)));
        client.batch_execute(&drop).await.during(BUILD)?;
    }
    Ok(())
}
