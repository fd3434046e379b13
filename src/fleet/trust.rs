//! What an operator should know of server and roles before trusting them. Nothing here is refused.

use tokio_postgres::{Client, types::Type};

use super::registry;
use crate::{
    config::Config,
    error::{During, Result},
    pg::{ident::Ident, server::Version},
};

/// A sentence for each thing that is safer otherwise: the server's minor release, what our role may do
/// beyond its work, and who may plant objects where the migration files or tenantd look for names.
///
/// # Errors
/// When the database does not answer.
pub async fn warnings(client: &Client, config: &Config) -> Result<Vec<String>> {
    let mut warnings: Vec<_> = Version::of(client).await?.warning().into_iter().collect();
    warnings.extend(powers(client).await?);
    warnings.extend(planters(client, config).await?);
    Ok(warnings)
}

/// What the role we are connected as may do and need not.
async fn powers(client: &Client) -> Result<Option<String>> {
    let rows = client
        .query_typed(
            "SELECT rolname::text, pg_catalog.concat_ws(', ',
                        CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
                        CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
                        CASE WHEN rolreplication THEN 'REPLICATION' END)
             FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER",
            &[],
        )
        .await
        .during("ask for the rights of our role")?;
    let (role, powers): (String, String) = (rows[0].get(0), rows[0].get(1));
    Ok((!powers.is_empty()).then(|| {
        format!("connected as role {role}, which has {powers}: tenantd needs none of these; make a role of its own and run `tenantd install --role`")
    }))
}

/// Who else may create objects in a schema that the files, the registry or the ledger are looked up in.
async fn planters(client: &Client, config: &Config) -> Result<Vec<String>> {
    let path = config.migrations.search_path.iter();
    let registry = registry::located(client, &config.registry.table).await?;
    let mut schemas: Vec<_> = path
        .map(String::as_str)
        .filter(|s| *s != "{schema}")
        .collect();
    schemas.extend(registry.schema.as_deref());
    schemas.push("tenantd");
    let owners = [&config.migrations.role, &config.schema.owner];
    let ours: Vec<_> = owners.into_iter().flatten().map(String::as_str).collect();
    let rows = client
        .query_typed(
            "SELECT n.nspname::text, pg_catalog.array_agg(r.rolname::text ORDER BY r.rolname)
             FROM pg_catalog.pg_namespace n
             CROSS JOIN pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
             WHERE n.nspname = ANY ($1) AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
               AND NOT coalesce(r.rolsuper OR r.rolname = CURRENT_USER OR r.rolname = ANY ($2), false)
             GROUP BY 1 ORDER BY 1",
            &[(&schemas, Type::TEXT_ARRAY), (&ours, Type::TEXT_ARRAY)],
        )
        .await
        .during("ask who may create objects in shared schemas")?;
    let sentence = |row: &tokio_postgres::Row| {
        let (schema, roles): (&str, Vec<Option<&str>>) = (row.get(0), row.get(1));
        let names = roles.iter().map(|role| match role {
            Some(role) => Ident(role).to_string(),
            None => "PUBLIC".to_owned(),
        });
        let names = names.collect::<Vec<_>>().join(", ");
        format!(
            "{names} may create objects in schema {schema}, where names of tenantd or of migration files are looked up: REVOKE CREATE ON SCHEMA {} FROM {names}",
            Ident(schema)
        )
    };
    Ok(rows.iter().map(sentence).collect())
}
