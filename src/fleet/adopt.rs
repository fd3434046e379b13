//! Adoption: taking a schema into the ledger at a version, on a person's word.

use tokio_postgres::{Client, types::Type};

use super::{
    census::Release,
    fingerprint::{Difference, Fingerprint},
    state::State,
    tenant::Tenant,
};
use crate::{
    config,
    error::{During, Error, Result},
    migrations::Migration,
    pg::Pool,
};

/// What adopting a tenant would record, after comparing its catalog.
#[derive(Debug)]
pub struct Adoption<'a> {
    /// The files it counts as applied.
    pub files: &'a [Migration],
    /// How the schema differs from a fresh build of them.
    pub difference: Difference,
}

/// Looks at a tenant that waits for adoption. `version`: what it is said to be at; by default its stamp
/// for a restored schema, the ledger's version for a modified one, the released head for an untracked one.
///
/// # Errors
/// When the tenant is in no state to adopt, or the version is not in the set.
pub async fn examine<'a>(
    pool: &Pool,
    release: &'a Release,
    tenant: &Tenant,
    version: Option<&str>,
    migrations: &config::Migrations,
) -> Result<Adoption<'a>> {
    let refuse = |why: String| {
        Err(Error::Refused(format!(
            "cannot adopt tenant {}: {why}",
            tenant.id
        )))
    };
    let Some(namespace) = tenant.namespace.filter(|_| tenant.has_tables) else {
        return refuse(format!("schema {} holds no tables", tenant.schema));
    };
    let set = &release.set;
    let file = match (version, tenant.state) {
        (_, state) if !matches!(state, State::Untracked | State::Restored | State::Modified) => {
            return refuse(format!(
                "its state is {state}; adopt takes untracked, restored and modified ones"
            ));
        }
        (Some(version), _) => set.find(version),
        (None, State::Restored) => set
            .files()
            .iter()
            .find(|file| Some(&file.digest) == tenant.stamp.as_ref()),
        (None, State::Modified) => tenant
            .version
            .as_deref()
            .and_then(|version| set.find(version)),
        (None, _) => Some(release.head()),
    };
    let Some(file) = file else {
        return refuse(match version {
            Some(version) => format!("the set has no version {version}"),
            None => "the set does not know the version it had: say which with `--version`".into(),
        });
    };
    let files = &set.files()[..file.ordinal];
    let path = &migrations.search_path;
    let fresh = Fingerprint::built(pool, files, migrations).await?;
    let mut client = pool.get().await?;
    let found = Fingerprint::of(&mut client, &tenant.schema, namespace, path).await?;
    let difference = found.difference(&fresh);
    Ok(Adoption { files, difference })
}

/// Records it, unless the ledger changed meanwhile.
///
/// # Errors
/// When the ledger changed since, or the database refuses.
pub async fn record(
    client: &mut Client,
    tenant: &Tenant,
    files: &[Migration],
    instance: &str,
) -> Result<()> {
    let what = || format!("adopt tenant {}", tenant.id);
    let last = files.last().expect("an adoption has files");
    let transaction = client.transaction().await.during(what())?;
    let rows = transaction
        .query_typed(
            "INSERT INTO tenantd.tenant AS t (tenant_id, schema, name, namespace, version, digest, state, migrated_at)
             VALUES ($1, $2, $3, $4, $5, $6, 'behind', pg_catalog.now())
             ON CONFLICT (tenant_id) DO UPDATE
             SET schema = excluded.schema, namespace = excluded.namespace, version = excluded.version,
                 digest = excluded.digest, state = excluded.state, attempts = 0, next_attempt = NULL,
                 error = NULL, error_sqlstate = NULL, error_version = NULL, error_at = NULL, error_head = NULL
             WHERE t.digest IS NOT DISTINCT FROM $7
             RETURNING id",
            &[
                (&tenant.id, Type::TEXT),
                (&tenant.schema, Type::TEXT),
                (&tenant.name, Type::TEXT),
                (&tenant.namespace, Type::OID),
                (&last.version, Type::TEXT),
                (&last.digest, Type::TEXT),
                (&tenant.digest, Type::TEXT),
            ],
        )
        .await
        .during(what())?;
    let Some(row) = rows.first() else {
        return Err(Error::Refused(format!(
            "{}: its ledger changed meanwhile; look again",
            what()
        )));
    };
    let key: i64 = row.get(0);
    let column = |field: fn(&Migration) -> &str| files.iter().map(field).collect::<Vec<_>>();
    let ordinals: Vec<i32> = (1..).take(files.len()).collect();
    transaction
        .execute_typed(
            "WITH others AS (
                 DELETE FROM tenantd.applied WHERE tenant = $1 AND version <> ALL ($2)
             )
             INSERT INTO tenantd.applied AS a (tenant, version, checksum, ordinal, how, instance)
             SELECT $1, f.version, f.checksum, f.ordinal, 'adopted', $5
             FROM ROWS FROM (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::int[]))
                  AS f (version, checksum, ordinal)
             ON CONFLICT (tenant, version) DO UPDATE
             SET checksum = excluded.checksum, ordinal = excluded.ordinal,
                 how = CASE WHEN a.checksum = excluded.checksum THEN a.how ELSE excluded.how END,
                 instance = CASE WHEN a.checksum = excluded.checksum THEN a.instance ELSE excluded.instance END,
                 applied_at = CASE WHEN a.checksum = excluded.checksum THEN a.applied_at ELSE excluded.applied_at END
             WHERE (a.checksum, a.ordinal) <> (excluded.checksum, excluded.ordinal)",
            &[
                (&key, Type::INT8),
                (&column(|file| &file.version), Type::TEXT_ARRAY),
                (&column(|file| &file.checksum), Type::TEXT_ARRAY),
                (&ordinals, Type::INT4_ARRAY),
                (&instance, Type::TEXT),
            ],
        )
        .await
        .during(what())?;
    transaction
        .query_typed(
            "SELECT tenantd.stamp($1, $2, $3)::text",
            &[
                (&tenant.schema, Type::TEXT),
                (&last.version, Type::TEXT),
                (&last.digest, Type::TEXT),
            ],
        )
        .await
        .during(what())?;
    transaction.commit().await.during(what())
}
