//! A file that cannot run in one transaction: its statements one by one, journalled before and after.
//!
//! ```text
//! enter: session lock, journal ─> for each statement that is left ─> record, journal away ─> leave
//!                                  │ may run in a transaction: statement and journal commit together
//!                                  └ may not: begun ─ leftovers dropped ─ statement ─ index valid? ─ done
//! ```
//!
//! So each statement takes effect once, whatever was killed on the way: of one that was begun and not seen
//! to end, the catalog tells whether it did. The lock is the one that every apply takes, but the session's:
//! it must outlast transactions, and a lock that is held by an open transaction would make a concurrent
//! build wait for itself. See `migrations/control/0004_outside.sql`.

use futures::{StreamExt as _, pin_mut};
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};
use tracing::debug;

use super::{
    apply::{ApplyError, apply},
    message::Message,
    work::Work,
};
use crate::{
    failpoint,
    migrations::{Alone, Migration, check::Statement},
    pg::ident::{Ident, Literal, Nullable, text_array},
};

/// How long the remains of a build that failed may take to drop; if they take longer, the next attempt does it.
const TIDY: &str = "5s";

/// Runs the statements of `file` that are not done yet, and records it. The connection must be a session of
/// its own for the time: no transaction pooler. After an error it must not be used again.
///
/// # Errors
/// At the first statement that fails; what is done stays done, and is not repeated.
pub async fn run(client: &Client, work: Work<'_>, file: &Migration) -> Result<(), ApplyError> {
    let digests = digests(file);
    let (done, mut before) = enter(client, work, file, &digests).await?;
    for (index, statement) in file.statements.iter().enumerate().skip(done) {
        let index_built = match &statement.alone {
            Some(Alone::BuildIndex(name)) => Some(name.as_str()),
            _ => None,
        };
        let journal = format!(
            "SELECT tenantd.outside_done({}, {}, {}, {})",
            Literal(&work.tenant.schema),
            index + 1,
            Literal(&digests[index + 1]),
            Nullable(index_built),
        );
        match &statement.alone {
            None => {
                let message = Message::statement(work, file, index, &journal);
                let sent = apply(client, &message).await;
                sent.map_err(|error| at(error, file, statement))?;
            }
            Some(alone) => {
                let one = One {
                    client,
                    work,
                    file,
                    statement,
                    alone,
                };
                one.run(before).await?;
                let message = Message::guarded(work, &journal);
                apply(client, &message).await?;
            }
        }
        before = Before::default();
    }
    let finish = format!(
        "SELECT tenantd.outside_finish({}, {})",
        Literal(&work.tenant.id),
        Literal(&work.tenant.schema)
    );
    apply(client, &Message::recorded(work, file, &finish)).await?;
    session(
        client,
        "SELECT pg_catalog.pg_advisory_unlock_all(); RESET ALL; RESET SESSION AUTHORIZATION",
    )
    .await
}

/// What an earlier attempt left in the journal of the next statement.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// It was begun and not seen to end.
    begun: bool,
    /// The index that it builds or drops was there already.
    existed: bool,
}

/// How many statements are done, and what is known of the next one.
async fn enter(
    client: &Client,
    work: Work<'_>,
    file: &Migration,
    digests: &[String],
) -> Result<(usize, Before), ApplyError> {
    let enter = format!(
        "SELECT done, begun, existed FROM tenantd.outside_enter({}, {}, {}, {}, {})",
        Literal(&work.tenant.schema),
        work.tenant.namespace.unwrap_or(0),
        Literal(&file.version),
        text_array(digests.iter().map(String::as_str)),
        Literal(&work.settings.instance),
    );
    let message = Message::guarded(work, &enter);
    let stream = client.simple_query_raw(&message.sql).await;
    let stream = stream.map_err(ApplyError::without_place)?;
    pin_mut!(stream);
    let mut found = (0, Before::default());
    while let Some(reply) = stream.next().await {
        // The last row of the message is the answer.
        if let SimpleQueryMessage::Row(row) = reply.map_err(ApplyError::without_place)? {
            let done = row.get(0).and_then(|text| text.parse().ok());
            let holds = |column| row.len() > 2 && row.get(column) == Some("t");
            let before = Before {
                begun: holds(1),
                existed: holds(2),
            };
            found = (done.unwrap_or(0), before);
        }
    }
    Ok(found)
}

/// A statement that refuses a transaction.
struct One<'a> {
    client: &'a Client,
    work: Work<'a>,
    file: &'a Migration,
    statement: &'a Statement,
    alone: &'a Alone,
}

impl One<'_> {
    /// Runs it, unless it was begun before and the catalog says that it came to its end.
    async fn run(&self, before: Before) -> Result<(), ApplyError> {
        if before.begun && self.came_to_its_end(before.existed).await? {
            debug!(
                tenant.schema = self.work.tenant.schema,
                migration.version = self.file.version,
                "statement on line {} had come to its end before",
                self.statement.line
            );
            return Ok(());
        }
        let schema = Literal(&self.work.tenant.schema);
        let index = match self.alone {
            Alone::BuildIndex(name) | Alone::DropIndex(name) => Some(name.as_str()),
            Alone::Reindex | Alone::Vacuum => None,
        };
        let begin = format!(
            "SELECT tenantd.outside_begin({schema}, {})",
            Nullable(index)
        );
        let message = Message::before(self.work, self.file, self.statement, &begin);
        apply(self.client, &message).await?;
        self.settings().await?;
        self.drop_leftovers().await?;
        let _ = failpoint::pass("outside.begun").await;
        let text = &self.file.sql[self.statement.offset..self.statement.end];
        let result = session(self.client, text).await;
        if result.is_err() && self.client.simple_query("").await.is_ok() {
            // What a failed build leaves behind slows every write down, so it goes now if it can.
            let _ = session(
                self.client,
                &format!("SELECT pg_catalog.set_config('statement_timeout', '{TIDY}', false)"),
            )
            .await;
            let _ = self.drop_leftovers().await;
            let _ = session(
                self.client,
                &format!(
                    "SELECT pg_catalog.set_config('role', 'none', false); SELECT tenantd.outside_failed({schema})"
                ),
            )
            .await;
        }
        let _ = failpoint::pass("outside.ended").await;
        result.map_err(|error| ApplyError {
            alone: true,
            ..at(error, self.file, self.statement)
        })?;
        session(
            self.client,
            "SELECT pg_catalog.set_config('role', 'none', false)",
        )
        .await
    }

    /// Of an index that was begun to be built or dropped: whether that was done.
    async fn came_to_its_end(&self, existed: bool) -> Result<bool, ApplyError> {
        let (name, there) = match self.alone {
            Alone::BuildIndex(name) if !existed => (name, true),
            Alone::DropIndex(name) if existed => (name, false),
            _ => return Ok(false),
        };
        let rows = self
            .client
            .query_typed(
                "SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                 WHERE c.relnamespace = $1 AND c.relname = $2::text::name",
                &[
                    (&self.work.tenant.namespace, Type::OID),
                    (name, Type::TEXT),
                ],
            )
            .await
            .map_err(ApplyError::without_place)?;
        Ok(match rows.first() {
            Some(row) => there && row.get(0),
            None => !there,
        })
    }

    /// Settings of the session, because there is no transaction: until `run` leaves, or the connection ends.
    async fn settings(&self) -> Result<(), ApplyError> {
        let work = self.work;
        // A concurrent build waits for snapshots as for locks: only its own deadline ends it. It stands in
        // nobody's way meanwhile.
        let lock_timeout = match self.alone {
            Alone::Vacuum => work.envelope.lock_timeout.as_millis(),
            _ => 0,
        };
        let role = work.settings.role.as_deref().unwrap_or("none");
        session(
            self.client,
            &format!(
                "SELECT pg_catalog.set_config('search_path', {path}, false), \
                 pg_catalog.set_config('lock_timeout', '{lock_timeout}ms', false), \
                 pg_catalog.set_config('statement_timeout', '{statement}ms', false), \
                 pg_catalog.set_config('standard_conforming_strings', 'on', false), \
                 pg_catalog.set_config('role', {role}, false)",
                path = Literal(&work.search_path()),
                statement = work.statement_timeout(std::slice::from_ref(self.file)),
                role = Literal(role),
            ),
        )
        .await
    }

    /// Drops the invalid indexes that an earlier attempt left behind, unless somebody builds them right now.
    /// REINDEX leaves copies of the TOAST tables' indexes too, in a schema of the server's.
    async fn drop_leftovers(&self) -> Result<(), ApplyError> {
        if failpoint::off("outside.leftovers") {
            return Ok(());
        }
        let (name, copies) = match self.alone {
            Alone::BuildIndex(name) => (Some(name), false),
            Alone::Reindex => (None, true),
            Alone::DropIndex(_) | Alone::Vacuum => return Ok(()),
        };
        let rows = self
            .client
            .query_typed(
                "SELECT c.relnamespace::pg_catalog.regnamespace::text, c.relname::text
                 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                 WHERE NOT i.indisvalid AND c.relkind = 'i'
                   AND (c.relnamespace = $1 AND c.relname = $2::text::name
                        OR $3 AND c.relname::text ~ '_cc(new|old)[0-9]*$' AND EXISTS (
                            SELECT FROM pg_catalog.pg_class t
                            WHERE t.relnamespace = $1 AND i.indrelid IN (t.oid, t.reltoastrelid)))
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid)",
                &[
                    (&self.work.tenant.namespace, Type::OID),
                    (&name, Type::TEXT),
                    (&copies, Type::BOOL),
                ],
            )
            .await
            .map_err(ApplyError::without_place)?;
        for row in rows {
            let (schema, index): (&str, &str) = (row.get(0), row.get(1));
            let drop = format!("DROP INDEX CONCURRENTLY {schema}.{}", Ident(index));
            let dropped = session(self.client, &drop).await;
            dropped.map_err(|error| at(error, self.file, self.statement))?;
        }
        Ok(())
    }
}

/// A statement in the session, in no transaction of ours.
async fn session(client: &Client, sql: &str) -> Result<(), ApplyError> {
    let sent = client.simple_query(sql).await;
    sent.map(drop).map_err(ApplyError::without_place)
}

/// The error of a statement, with its place.
fn at(error: ApplyError, file: &Migration, statement: &Statement) -> ApplyError {
    ApplyError {
        place: error.place.or(Some((file.ordinal, statement.line))),
        ..error
    }
}

/// What was done is known by its text: a digest after none of the statements, after the first, and so on.
fn digests(file: &Migration) -> Vec<String> {
    let mut hash = Sha256::new();
    let mut digests = vec![String::new()];
    for statement in &file.statements {
        hash.update(&file.sql[statement.offset..statement.end]);
        hash.update([0]);
        let digest = hash.clone().finalize();
        digests.push(
            digest[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        );
    }
    digests
}
