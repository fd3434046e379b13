//! The control schema: `tenantd install` and `uninstall`, and what a daemon demands of it.

use tokio_postgres::{Client, error::SqlState, types::Type};

use super::{registry, server, spare, triggers, turn};
use crate::{
    config::Config,
    error::{During, Error, Result},
    pg::{
        ident::{Ident, Literal},
        server::Version,
    },
};

/// The versions of the control schema, oldest first.
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (
        1,
        "ledger",
        include_str!("../../migrations/control/0001_ledger.sql"),
    ),
    (
        2,
        "apply",
        include_str!("../../migrations/control/0002_apply.sql"),
    ),
    (
        3,
        "application",
        include_str!("../../migrations/control/0003_application.sql"),
    ),
    (
        4,
        "outside",
        include_str!("../../migrations/control/0004_outside.sql"),
    ),
    (
        5,
        "verified",
        include_str!("../../migrations/control/0005_verified.sql"),
    ),
    (
        6,
        "server",
        include_str!("../../migrations/control/0006_server.sql"),
    ),
    (
        7,
        "breaker",
        include_str!("../../migrations/control/0007_breaker.sql"),
    ),
    (
        8,
        "search_path",
        include_str!("../../migrations/control/0008_search_path.sql"),
    ),
    (
        9,
        "inside",
        include_str!("../../migrations/control/0009_inside.sql"),
    ),
    (
        10,
        "together",
        include_str!("../../migrations/control/0010_together.sql"),
    ),
    (
        11,
        "rollout",
        include_str!("../../migrations/control/0011_rollout.sql"),
    ),
    (
        12,
        "spares",
        include_str!("../../migrations/control/0012_spares.sql"),
    ),
    (
        13,
        "behind",
        include_str!("../../migrations/control/0013_behind.sql"),
    ),
    (
        14,
        "guard_all",
        include_str!("../../migrations/control/0014_guard_all.sql"),
    ),
    (
        15,
        "spare_claim",
        include_str!("../../migrations/control/0015_spare_claim.sql"),
    ),
    (
        16,
        "together",
        include_str!("../../migrations/control/0016_together.sql"),
    ),
    (
        17,
        "any_behind",
        include_str!("../../migrations/control/0017_any_behind.sql"),
    ),
    (
        18,
        "fewer_plans",
        include_str!("../../migrations/control/0018_fewer_plans.sql"),
    ),
    (
        19,
        "by_index",
        include_str!("../../migrations/control/0019_by_index.sql"),
    ),
    (
        20,
        "fewer_joins",
        include_str!("../../migrations/control/0020_fewer_joins.sql"),
    ),
];

/// Version of the control schema that this program works with.
pub const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Makes sure that the server and the control schema are ones this program was written for.
///
/// # Errors
/// When the server is too old, or the control schema missing, older or newer, with the command that mends it.
pub async fn require(client: &Client) -> Result<()> {
    Version::of(client).await?;
    match installed(client).await? {
        VERSION => Ok(()),
        0 => Err(Error::Refused(
            "the schema tenantd is not installed in this database: run `tenantd install`".into(),
        )),
        older if older < VERSION => Err(Error::Refused(format!(
            "the schema tenantd is at version {older}, this program needs {VERSION}: run `tenantd install`, again with \
             `--role ROLE` where the daemon has a role of its own"
        ))),
        newer => Err(newer_than_we_know(newer)),
    }
}

/// The error of an older program in a newer control schema.
pub fn newer_than_we_know(installed: i32) -> Error {
    Error::Newer {
        installed,
        known: VERSION,
    }
}

/// The installed version; 0 when there is none.
async fn installed(client: &Client) -> Result<i32> {
    let rows = client
        .query_typed(
            "SELECT coalesce(pg_catalog.max(version), 0) FROM tenantd.control",
            &[],
        )
        .await;
    match rows {
        Ok(rows) => Ok(rows[0].get(0)),
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME)
            ) =>
        {
            Ok(0)
        }
        Err(source) => Err(Error::Postgres {
            operation: "read the version of the schema tenantd".into(),
            source,
        }),
    }
}

/// Installs or upgrades the control schema and the triggers; returns what it did, a line each.
///
/// # Errors
/// When the installed version is newer, or a statement is refused; each step is a transaction.
pub async fn install(
    client: &mut Client,
    config: &Config,
    role: Option<&str>,
) -> Result<Vec<String>> {
    let version = Version::of(client).await?;
    let mut done = upgrade(client).await?;
    if let Some(role) = role {
        for (what, sql) in grants(client, config, role).await? {
            client.batch_execute(&sql).await.during(what)?;
        }
        done.push(format!("granted role {role} what the daemon needs"));
        let refused = if grants_parameters(version) {
            let granted = client.batch_execute(&grant_deadlock_timeout(role)).await;
            granted.err().map(|error| crate::error::explain(&error))
        } else {
            Some(NO_PARAMETERS.into())
        };
        if let Some(why) = refused {
            done.push(format!(
                "not granted: SET ON PARAMETER deadlock_timeout ({why}); a deadlock with a migration may then end the application's statement"
            ));
        }
    }
    for trigger in triggers::configured(client, config).await? {
        done.extend(trigger.install(client).await?);
    }
    if server::accept(client).await? {
        done.push("accepted this server as the ledger's, in place of the one before".into());
    }
    if done.is_empty() {
        done.push("nothing to do: everything is installed".into());
    }
    Ok(done)
}

/// The SQL that `install` would run on this database.
///
/// # Errors
/// When the database cannot be asked.
pub async fn install_sql(client: &Client, config: &Config, role: Option<&str>) -> Result<String> {
    let version = Version::of(client).await?;
    let installed = installed(client).await?;
    let mut sql = String::new();
    for (version, name, text) in MIGRATIONS.iter().filter(|m| m.0 > installed) {
        sql.push_str(&format!("-- control schema, version {version}: {name}\n"));
        if *version == 1 {
            sql.push_str(FOUNDATION);
        }
        sql.push_str(text);
        sql.push_str(&format!(
            "\nINSERT INTO tenantd.control (version, name) VALUES ({version}, {});\n",
            Literal(name)
        ));
    }
    if let Some(role) = role {
        for (what, grant) in grants(client, config, role).await? {
            sql.push_str(&format!("-- {what}\n{grant};\n"));
        }
        sql.push_str("-- let migrations be the victims of deadlocks; needs a superuser\n");
        sql.push_str(&if grants_parameters(version) {
            format!("{};\n", grant_deadlock_timeout(role))
        } else {
            format!("-- not possible: {NO_PARAMETERS}\n")
        });
    }
    for trigger in triggers::configured(client, config).await? {
        if !trigger.is_installed(client).await? {
            sql.push_str(&trigger.sql());
        }
    }
    Ok(sql)
}

const FOUNDATION: &str = "CREATE SCHEMA IF NOT EXISTS tenantd;
CREATE TABLE IF NOT EXISTS tenantd.control (
    version integer PRIMARY KEY, name text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.now(), installed_by name NOT NULL DEFAULT SESSION_USER);
";

/// Applies what is missing, in one transaction. Several starters take turns.
async fn upgrade(client: &mut Client) -> Result<Vec<String>> {
    let what = || "install the schema tenantd".to_owned();
    let start = tokio::time::Instant::now();
    loop {
        let transaction = client.transaction().await.during(what())?;
        if !turn::taken(&transaction, &what()).await? {
            transaction.rollback().await.during(what())?;
            turn::pause(start).await?;
            continue;
        }
        transaction.batch_execute(FOUNDATION).await.during(what())?;
        let rows = transaction
            .query_typed(
                "SELECT coalesce(pg_catalog.max(version), 0) FROM tenantd.control",
                &[],
            )
            .await
            .during(what())?;
        let installed: i32 = rows[0].get(0);
        if installed > VERSION {
            return Err(newer_than_we_know(installed));
        }
        let mut done = Vec::new();
        for (version, name, sql) in MIGRATIONS.iter().filter(|m| m.0 > installed) {
            let what = || format!("install version {version} ({name}) of the schema tenantd");
            transaction.batch_execute(sql).await.during(what())?;
            transaction
                .execute_typed(
                    "INSERT INTO tenantd.control (version, name) VALUES ($1, $2)",
                    &[(version, Type::INT4), (name, Type::TEXT)],
                )
                .await
                .during(what())?;
            done.push(format!(
                "installed version {version} ({name}) of the schema tenantd"
            ));
        }
        transaction.commit().await.during(what())?;
        return Ok(done);
    }
}

const NO_PARAMETERS: &str = "PostgreSQL 14 has no privileges for parameters";

fn grants_parameters(version: Version) -> bool {
    version.major() >= 15
}

fn grant_deadlock_timeout(role: &str) -> String {
    format!("GRANT SET ON PARAMETER deadlock_timeout TO {}", Ident(role))
}

/// What a daemon's role needs beyond membership in the owning roles.
async fn grants(client: &Client, config: &Config, role: &str) -> Result<Vec<(String, String)>> {
    let role = Ident(role);
    let located = registry::located(client, &config.registry.table).await?;
    let table = registry::quoted_table(&located);
    let schema = located.schema.as_deref().unwrap_or("public");
    let mut grants = vec![
        (
            "grant the ledger",
            format!(
                "REVOKE ALL ON ALL TABLES IN SCHEMA tenantd FROM {role}; GRANT USAGE ON SCHEMA tenantd TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tenantd TO {role}; REVOKE INSERT, UPDATE, DELETE ON tenantd.control FROM {role}; GRANT SELECT, UPDATE ON SEQUENCE tenantd.any_behind TO {role}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenantd TO {role}"
            ),
        ),
        (
            "grant the registry",
            format!(
                "GRANT USAGE ON SCHEMA {} TO {role}; GRANT SELECT ON {table} TO {role}",
                Ident(schema)
            ),
        ),
        (
            "grant new schemas",
            format!(
                "DO $$ BEGIN EXECUTE pg_catalog.format('GRANT CREATE ON DATABASE %I TO %I', pg_catalog.current_database(), {}); END $$",
                Literal(role.0)
            ),
        ),
    ];
    for owner in config
        .schema
        .owner
        .iter()
        .chain(&config.migrations.role)
        .filter(|owner| *owner != role.0)
    {
        grants.push((
            "grant the owning role",
            format!("GRANT {} TO {role}", Ident(owner)),
        ));
    }
    Ok(grants
        .into_iter()
        .map(|(what, sql)| (what.to_owned(), sql))
        .collect())
}

/// Removes the triggers and the spares, and with `purge` the ledger too. Returns what it did, a line each.
///
/// # Errors
/// When a statement is refused for another reason than ownership of a trigger's table.
pub async fn uninstall(client: &mut Client, purge: bool) -> Result<Vec<String>> {
    let mut done = triggers::remove(client).await?;
    done.extend(spare::remove_all(client).await?);
    if purge {
        let left = done
            .iter()
            .any(|line| line.starts_with(triggers::NOT_DROPPED));
        if left {
            done.push("the schema tenantd stays, because a trigger still calls it: drop the trigger first".into());
        } else {
            client
                .batch_execute("DROP SCHEMA IF EXISTS tenantd CASCADE")
                .await
                .during("drop the schema tenantd")?;
            done.push("dropped the schema tenantd: the ledger is gone".into());
        }
    } else {
        done.push(
            "the ledger stays in the schema tenantd; remove it with `tenantd uninstall --purge`"
                .into(),
        );
    }
    done.extend(left_granted(client).await?.into_iter().map(|(role, sql)| {
        format!("still granted: SET ON PARAMETER deadlock_timeout to role {role}; if nothing else needs it, a superuser runs: {sql}")
    }));
    Ok(done)
}

/// Who may set deadlock_timeout, and how to take that back. The grant belongs to the whole server, where another
/// database may need it, so it is told and not revoked.
async fn left_granted(client: &Client) -> Result<Vec<(String, String)>> {
    let rows = client
        .query_typed(
            "SELECT pg_catalog.to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL",
            &[],
        )
        .await
        .during("look for what is granted")?;
    if !rows[0].get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query_typed(
            "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a
             JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
             WHERE p.parname = 'deadlock_timeout' AND a.privilege_type = 'SET' AND NOT r.rolsuper ORDER BY 1",
            &[],
        )
        .await
        .during("look for what is granted")?;
    Ok(rows
        .iter()
        .map(|row| {
            let role: String = row.get(0);
            let sql = format!(
                "REVOKE SET ON PARAMETER deadlock_timeout FROM {}",
                Ident(&role)
            );
            (role, sql)
        })
        .collect())
}

/// The SQL that `uninstall` would run.
///
/// # Errors
/// When the database cannot be asked.
pub async fn uninstall_sql(client: &Client, purge: bool) -> Result<String> {
    let mut sql = String::new();
    for (_, drop) in triggers::installed(client).await? {
        sql.push_str(&format!("{drop};\n"));
    }
    for schema in spare::all(client).await? {
        sql.push_str(&format!(
            "SELECT tenantd.spare_drop({});\n",
            Literal(&schema)
        ));
    }
    if purge {
        sql.push_str("DROP SCHEMA IF EXISTS tenantd CASCADE;\n");
    }
    for (_, revoke) in left_granted(client).await? {
        sql.push_str(&format!("-- if nothing else needs it: {revoke};\n"));
    }
    Ok(sql)
}
