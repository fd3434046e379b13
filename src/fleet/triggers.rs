//! The triggers on the application's tables. They sit on the customer's write path: the silent path is
//! one call of `tenantd.wakes` or, for logins, one look at a sequence, and the noisy path cannot fail the statement.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState, types::Type};

use super::{
    registry::{columns, located, quoted_table},
    turn,
};
use crate::{
    config::{Config, QualifiedName},
    error::{During, Error, Result, explain},
    pg::ident::{Ident, Literal},
};

/// How a line about a trigger begins that could not be dropped.
pub(super) const NOT_DROPPED: &str = "not dropped";

/// Waits for the table: short at first, so that the application never queues behind us for long.
const LADDER: [u64; 6] = [100, 200, 400, 800, 1000, 1000];

/// One trigger, as it should be.
#[derive(Debug)]
pub(super) struct Trigger {
    name: &'static str,
    channel: &'static str,
    table: QualifiedName,
    column: String,
    events: String,
}

/// How a trigger is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// As it should be.
    Right,
    /// With another definition.
    Different,
    /// Disabled, or only for what a replication applies.
    Silent,
    /// Not at all.
    Gone,
}

/// The triggers that this configuration asks for, their tables and columns looked up. Says which tables can have none.
pub(super) async fn configured(client: &Client, config: &Config) -> Result<Vec<Trigger>> {
    let (fitting, others) = wanted(client, config).await?;
    for trigger in others {
        tracing::warn!(
            "{} is no table, so it gets no trigger: NOTIFY {} from the application, or wait for the sweep",
            trigger.table,
            trigger.channel
        );
    }
    Ok(fitting)
}

/// A sentence for each trigger that does not fire as it should.
///
/// # Errors
/// When the database does not answer.
pub async fn missing(client: &Client, config: &Config) -> Result<Vec<String>> {
    let wanted = match wanted(client, config).await {
        Ok((wanted, _)) => wanted,
        Err(Error::Refused(why)) => return Ok(vec![why]),
        Err(error) => return Err(error),
    };
    let mut missing = Vec::new();
    for trigger in wanted {
        let (name, table) = (trigger.name, &trigger.table);
        let whose = format!("trigger {name} on {table}");
        missing.extend(match trigger.found(client).await? {
            Found::Right => None,
            Found::Gone => Some(format!(
                "{whose} is gone, so what it tells of waits for the sweep: run `tenantd install`"
            )),
            Found::Different => Some(format!(
                "{whose} is another one than this configuration asks for: run `tenantd install`"
            )),
            Found::Silent => Some(format!(
                "{whose} is disabled, so what it tells of waits for the sweep: ALTER TABLE {} ENABLE TRIGGER {name}",
                quoted_table(table)
            )),
        });
    }
    Ok(missing)
}

/// Those on tables, and those on what can have none.
async fn wanted(client: &Client, config: &Config) -> Result<(Vec<Trigger>, Vec<Trigger>)> {
    let mut triggers = vec![Trigger {
        name: "tenantd_inserted",
        channel: "tenant_inserted",
        table: config.registry.table.clone(),
        column: config.registry.id_column.clone(),
        events: "INSERT".into(),
    }];
    if let (Some(table), Some(column)) = (&config.logins.table, &config.logins.tenant_column) {
        let updates: Vec<_> = config
            .logins
            .update_columns
            .iter()
            .map(|c| Ident(c).to_string())
            .collect();
        let update = if updates.is_empty() {
            String::new()
        } else {
            format!(" OR UPDATE OF {}", updates.join(", "))
        };
        triggers.push(Trigger {
            name: "tenantd_login",
            channel: "dashboard_login",
            table: table.clone(),
            column: column.clone(),
            events: format!("INSERT{update}"),
        });
    }
    let (mut fitting, mut others) = (Vec::new(), Vec::new());
    for mut trigger in triggers {
        trigger.table = located(client, &trigger.table).await?;
        let known = columns(client, &trigger.table).await?;
        let updates = config
            .logins
            .update_columns
            .iter()
            .filter(|_| trigger.is_login());
        for wanted in std::iter::once(&trigger.column).chain(updates) {
            if !known.iter().any(|(name, _)| name == wanted) {
                let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Error::Refused(format!(
                    "table {} has no column \"{wanted}\"; it has {}",
                    trigger.table,
                    names.join(", ")
                )));
            }
        }
        match is_table(client, &trigger.table).await? {
            true => fitting.push(trigger),
            false => others.push(trigger),
        }
    }
    Ok((fitting, others))
}

async fn is_table(client: &Client, table: &QualifiedName) -> Result<bool> {
    let rows = client
        .query_typed(
            "SELECT relkind IN ('r', 'p') FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)",
            &[(&quoted_table(table), Type::TEXT)],
        )
        .await
        .during(format!("look up table {table}"))?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

impl Trigger {
    fn is_login(&self) -> bool {
        self.channel == "dashboard_login"
    }

    /// Whatever fails in it is caught.
    fn function(&self) -> String {
        let (name, channel, column) = (self.name, self.channel, Ident(&self.column));
        let function = if self.is_login() {
            // Called for each login. So it is not SECURITY DEFINER, has no SET and takes no snapshot of its own, which
            // cost more than what it reads; and all names are in full, because the search path is the application's.
            // While nobody is behind it only looks at a sequence, in a condition of its own, because one with a query
            // in it is planned. It fails where PUBLIC may not read the sequence; in a WHEN clause that would fail the
            // statement.
            // A probe, not a look whether anybody lags: after a rollout the table is empty and full of dead rows.
            format!(
                "LANGUAGE plpgsql STABLE AS $$
BEGIN
    BEGIN
        IF pg_catalog.pg_sequence_last_value('tenantd.any_behind') IS NULL THEN
            RETURN NULL;
        END IF;
        IF EXISTS (SELECT FROM tenantd.behind b
                   WHERE b.tenant_id OPERATOR(pg_catalog.=) NEW.{column}::pg_catalog.text)
           AND pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.5 THEN
            PERFORM pg_catalog.pg_notify('{channel}', NEW.{column}::pg_catalog.text);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        NULL; -- a column with another name: sweeps tell that `tenantd install` has to be run
    END;"
            )
        } else {
            // Called only where `tenantd.wakes` said yes.
            format!(
                "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.5 THEN
        BEGIN
            PERFORM pg_notify('{channel}', NEW.{column}::text);
        EXCEPTION WHEN OTHERS THEN
            PERFORM pg_notify('tenantd_wake', '');
        END;
    END IF;"
            )
        };
        // A login reads with the application's rights.
        let grant = match self.is_login() {
            true => "GRANT SELECT ON SEQUENCE tenantd.any_behind TO PUBLIC;\n",
            false => "",
        };
        format!(
            "CREATE OR REPLACE FUNCTION tenantd.{name}() RETURNS trigger
{function}
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tenantd.{name}() FROM PUBLIC;
{grant}"
        )
    }

    fn create(&self) -> String {
        let when = match self.is_login() {
            true => String::new(),
            false => format!("WHEN (tenantd.wakes(NEW.{}::text)) ", Ident(&self.column)),
        };
        format!(
            "CREATE OR REPLACE TRIGGER {name} AFTER {events} ON {table} FOR EACH ROW
{when}EXECUTE FUNCTION tenantd.{name}();
",
            name = self.name,
            events = self.events,
            table = quoted_table(&self.table),
        )
    }

    /// What tells a trigger of this definition from others.
    fn mark(&self) -> String {
        format!("tenantd {:x}", crc(&(self.function() + &self.create())))
    }

    /// All of it, also for `--dry-run`.
    pub(super) fn sql(&self) -> String {
        format!(
            "-- trigger {name} on {}\n{}{}COMMENT ON TRIGGER {name} ON {} IS {};\n",
            self.table,
            self.function(),
            self.create(),
            quoted_table(&self.table),
            Literal(&self.mark()),
            name = self.name,
        )
    }

    /// How it is there.
    async fn found(&self, client: &Client) -> Result<Found> {
        let rows = client
            .query_typed(
                "SELECT coalesce(pg_catalog.obj_description(t.oid, 'pg_trigger') = $3, false)
                        AND (NOT $4 OR coalesce(pg_catalog.has_sequence_privilege(
                            'public', pg_catalog.to_regclass('tenantd.any_behind'), 'SELECT'), false)),
                        t.tgenabled IN ('O', 'A')
                 FROM pg_catalog.pg_trigger t
                 WHERE t.tgname = $1::name AND NOT t.tgisinternal AND t.tgparentid = 0
                   AND t.tgrelid = pg_catalog.to_regclass($2)",
                &[
                    (&self.name, Type::TEXT),
                    (&quoted_table(&self.table), Type::TEXT),
                    (&self.mark(), Type::TEXT),
                    (&self.is_login(), Type::BOOL),
                ],
            )
            .await
            .during(format!("look for trigger {}", self.name))?;
        Ok(match rows.first().map(|row| (row.get(0), row.get(1))) {
            None => Found::Gone,
            Some((false, _)) => Found::Different,
            Some((true, false)) => Found::Silent,
            Some((true, true)) => Found::Right,
        })
    }

    /// Whether it is there as it should be.
    pub(super) async fn is_installed(&self, client: &Client) -> Result<bool> {
        Ok(self.found(client).await? == Found::Right)
    }

    /// Installs it where it is missing or different. Returns a line when it did.
    pub(super) async fn install(&self, client: &mut Client) -> Result<Option<String>> {
        if self.is_installed(client).await? {
            return Ok(None);
        }
        let what = format!("install trigger {} on {}", self.name, self.table);
        in_turns(client, &self.sql(), &what).await?;
        Ok(Some(format!(
            "installed trigger {} on {}",
            self.name, self.table
        )))
    }
}

/// The triggers that are there: a name for people, and the statement that drops it.
pub(super) async fn installed(client: &Client) -> Result<Vec<(String, String)>> {
    let rows = client
        .query_typed(
            "SELECT t.tgname::text, n.nspname::text, c.relname::text
             FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE t.tgname IN ('tenantd_inserted', 'tenantd_login') AND NOT t.tgisinternal AND t.tgparentid = 0",
            &[],
        )
        .await
        .during("look for triggers")?;
    let triggers = rows.iter().map(|row| {
        let (name, schema, table): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let drop = format!(
            "DROP TRIGGER {} ON {}.{}",
            Ident(name),
            Ident(schema),
            Ident(table)
        );
        (format!("trigger {name} on {schema}.{table}"), drop)
    });
    Ok(triggers.collect())
}

/// Drops every trigger of ours. One on a table we do not own is named, with the statement for its owner.
pub(super) async fn remove(client: &mut Client) -> Result<Vec<String>> {
    let mut done = Vec::new();
    for (what, drop) in installed(client).await? {
        match in_turns(client, &drop, &format!("drop {what}")).await {
            Ok(()) => done.push(format!("dropped {what}")),
            Err(Error::Postgres { source, .. })
                if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) =>
            {
                done.push(format!(
                    "{NOT_DROPPED}: {what} ({}); the table's owner runs: {drop}",
                    explain(&source)
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Runs DDL on an application's table in a transaction of its own, on the lock ladder.
async fn in_turns(client: &mut Client, sql: &str, what: &str) -> Result<()> {
    let (start, mut last) = (Instant::now(), None);
    for milliseconds in LADDER {
        let transaction = loop {
            let transaction = client.transaction().await.during(what)?;
            if turn::taken(&transaction, what).await? {
                break transaction;
            }
            transaction.rollback().await.during(what)?;
            turn::pause(start).await?;
        };
        let timed = format!("SET LOCAL lock_timeout = '{milliseconds}ms'; {sql}");
        match transaction.batch_execute(&timed).await {
            Ok(()) => return transaction.commit().await.during(what),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                transaction.rollback().await.during(what)?;
                last = Some(error);
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            }
            Err(source) => {
                return Err(Error::Postgres {
                    operation: what.to_owned(),
                    source,
                });
            }
        }
    }
    let source = last.expect("the ladder has steps");
    Err(Error::Postgres {
        operation: format!(
            "{what} (a transaction keeps the table busy: try again when it has ended)"
        ),
        source,
    })
}

/// A short identity of a definition.
fn crc(text: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(text.as_bytes());
    u64::from_be_bytes(hash[..8].try_into().expect("eight bytes"))
}
