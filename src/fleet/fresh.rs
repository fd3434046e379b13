//! A fresh schema to compare with: built from the files, read, and gone.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, GenericClient, types::Type};

use super::fingerprint::{self, Fingerprint};
use crate::{
    config,
    error::{During, Error, Result},
    migrations::{
        Migration, Plan, Step,
        check::{Known, Names},
    },
    pg::{
        Pool,
        ident::{self, Ident},
        pool::Held,
    },
};

const BUILD: &str = "build a fresh schema to compare with";
/// What a fresh schema is called while it is there; followed by the time and something random.
const SCRATCH: &str = "tenantd_scratch_";
/// For all of it. What its files lock of shared tables is locked until its end, and nobody watches it.
const LIMIT: Duration = Duration::from_secs(30);
/// For one lock. Less than the server waits before it looks for a deadlock, so that the victim is us.
const LOCK: Duration = Duration::from_millis(500);

impl Fingerprint {
    /// Of a fresh build of these files, as [`Self::fresh`]. What the files leave in the session is unknown, so
    /// the connection is closed whatever becomes of it.
    ///
    /// # Errors
    /// As there, and when it takes too long.
    pub async fn built(
        pool: &Pool,
        files: &[Migration],
        migrations: &config::Migrations,
    ) -> Result<Self> {
        let build = async {
            let mut connection = Held::new(pool.get().await?);
            let role = migrations.role.as_deref();
            Self::fresh(&mut connection, files, role, &migrations.search_path).await
        };
        timeout(LIMIT, build).await.unwrap_or_else(|_| {
            Err(Error::Timeout {
                operation: BUILD.into(),
                limit: LIMIT,
            })
        })
    }

    /// Of a fresh build of these files. It is built in a transaction that is rolled back: nothing of it is
    /// ever seen by others. Only a set that needs commits in between, for the values of an enum, is built
    /// in a schema that is there for the moment, and dropped; nothing is committed that is not in it.
    ///
    /// # Errors
    /// When the files do not apply to an empty schema or write elsewhere between commits, or the database does
    /// not answer.
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
                .batch_execute(&(create + &build.text(&pieces(files))))
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
}

/// What is to be looked up, and the text behind it.
type Piece<'a> = (Option<&'a Names>, &'a str);

/// A fresh schema while it is there.
struct Build<'a> {
    scratch: &'a str,
    role: Option<&'a str>,
    search_path: &'a [String],
}

impl Build<'_> {
    /// These texts, run in the schema and as the role. Settings end with the transaction.
    fn text(&self, pieces: &[Piece<'_>]) -> String {
        let name = Ident(self.scratch);
        let mut sql = format!(
            "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; SET LOCAL standard_conforming_strings = on; \
             SET LOCAL search_path = {};",
            LOCK.as_millis(),
            LIMIT.as_millis(),
            ident::search_path(self.scratch, self.search_path)
        );
        if let Some(role) = self.role {
            let role = Ident(role);
            sql.push_str(&format!(
                "GRANT ALL ON SCHEMA {name} TO {role}; SET LOCAL ROLE {role};"
            ));
        }
        for (names, text) in pieces {
            if let Some(names) = names {
                sql.push_str(&names.look_up(self.scratch));
                sql.push(';');
            }
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
            let parts: Vec<Vec<Piece<'_>>> = match step {
                Step::Transaction(_) => vec![pieces(files)],
                Step::Outside(_) => statements(&files[0]),
            };
            for part in parts {
                let transaction = client.transaction().await.during(BUILD)?;
                let sql = self.text(&part);
                transaction.batch_execute(&sql).await.during(BUILD)?;
                self.stayed_inside(&transaction, files).await?;
                transaction.commit().await.during(BUILD)?;
            }
        }
        let transaction = client.transaction().await.during(BUILD)?;
        self.read(&transaction).await
    }

    /// What was written elsewhere, the tenants have written once already: it must not be committed again.
    async fn stayed_inside(&self, client: &impl GenericClient, files: &[Migration]) -> Result<()> {
        let opaque = files.iter().any(|file| file.opaque);
        let rows = client
            .query_typed(
                include_str!("wrote_outside.sql"),
                &[(&self.scratch, Type::TEXT), (&opaque, Type::BOOL)],
            )
            .await
            .during(BUILD)?;
        let Some(table) = rows.first().map(|row| row.get::<_, &str>(0)) else {
            return Ok(());
        };
        let versions: Vec<_> = files.iter().map(|file| file.version.as_str()).collect();
        Err(Error::Refused(format!(
            "no fresh schema can be built to compare with: version {} writes to {table}, and would again, because the \
             set uses enum values that it adds and so has to be committed in between",
            versions.join(" or ")
        )))
    }

    async fn read(&self, client: &impl GenericClient) -> Result<Fingerprint> {
        let rows = client
            .query_typed(
                "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name",
                &[(&self.scratch, Type::TEXT)],
            )
            .await
            .during(BUILD)?;
        fingerprint::read(client, self.scratch, rows[0].get(0), self.search_path).await
    }
}

/// All of these files, for one transaction.
fn pieces(files: &[Migration]) -> Vec<Piece<'_>> {
    let mut known = Known::default();
    let pieces = files.iter().flat_map(|file| file.pieces(&mut known));
    pieces.map(|piece| (piece.names, piece.sql)).collect()
}

/// The statements of a file, one by one.
fn statements(file: &Migration) -> Vec<Vec<Piece<'_>>> {
    let (sql, statements) = file.in_transaction();
    let alone = statements.iter().map(|it| {
        let names = (!it.changes.is_empty()).then_some(&it.changes);
        vec![(names, &sql[it.offset..it.end])]
    });
    alone.collect()
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
