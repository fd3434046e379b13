//! The registry: the application's table of tenants, and the SQL that reads it.

use tokio_postgres::{Client, types::Type};

use crate::{
    config,
    error::{During, Error, Result},
    pg::{
        LOOKS_IN,
        ident::{Ident, Literal},
    },
};

/// The longest tenant id that is looked at, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Where the tenants are listed, with every name checked against the catalog.
#[derive(Debug, Clone)]
pub struct Registry {
    id_type: String,
    id: String,
    name: String,
    schema: String,
    table: String,
    filter: String,
    located: config::QualifiedName,
}

/// Which tenants a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// The next so many after the id in `$5`, or the first where there is none; in the order of their ids.
    Window(u32),
    /// Those whose ids are in this parameter.
    Among(&'static str),
    /// The one whose id is `$3`.
    One,
    /// Those whose ids or schemas are in `$5`: what people type.
    Names,
}

impl Registry {
    /// Looks the configured names up in the catalog.
    ///
    /// # Errors
    /// When the table or a column does not exist, naming those that do.
    pub async fn open(client: &Client, config: &config::Registry) -> Result<Self> {
        let located = located(client, &config.table).await?;
        let table = quoted_table(&located);
        let columns = columns(client, &config.table).await?;
        let column =
            |name: &str, key: &str| {
                columns.iter().find(|(column, _)| column == name).ok_or_else(|| {
                let known: Vec<_> = columns.iter().map(|(column, _)| column.as_str()).collect();
                Error::Refused(format!(
                    "the registry {} has no column \"{name}\": set registry.{key} to one of {}",
                    config.table,
                    known.join(", ")
                ))
            })
            };
        let id_type = column(&config.id_column, "id_column")?.1.clone();
        let name = match &config.name_column {
            Some(name) => {
                column(name, "name_column")?;
                format!("r.{}::text", Ident(name))
            }
            None => "NULL::text".to_owned(),
        };
        let id = Ident(&config.id_column).to_string();
        let schema = match &config.schema_column {
            Some(schema) => {
                column(schema, "schema_column")?;
                format!("r.{}::text", Ident(schema))
            }
            None => from_template(&config.schema_template, &id),
        };
        let filter = config.filter.clone().unwrap_or_else(|| "true".to_owned());
        let registry = Self {
            id_type,
            id,
            name,
            schema,
            table,
            filter,
            located,
        };
        registry.probe(client).await?;
        Ok(registry)
    }

    /// Reads one row, so that a missing privilege or a broken filter is met at start.
    async fn probe(&self, client: &Client) -> Result<()> {
        let sql = format!(
            "SELECT FROM {} r WHERE {} LIMIT 1",
            self.table,
            self.filter(Scope::All)
        );
        client
            .simple_query(&sql)
            .await
            .during(format!("read the registry {}", self.table))?;
        Ok(())
    }

    /// Fills the names of this registry into a query over it.
    pub(super) fn render(&self, sql: &str, scope: Scope) -> String {
        sql.replace("{id}", &self.id)
            .replace("{name}", &self.name)
            .replace("{schema}", &self.schema)
            .replace("{registry}", &self.table)
            .replace("{filter}", &self.filter(scope))
    }

    /// The table, with its schema.
    pub fn table(&self) -> &config::QualifiedName {
        &self.located
    }

    /// A query that yields every tenant's id as text.
    pub fn ids(&self) -> String {
        self.render(
            "SELECT r.{id}::text FROM {registry} r WHERE {filter}",
            Scope::All,
        )
    }

    /// A condition: the id is greater than the one in this parameter, an array that may be empty. By the column
    /// itself, so that its index gives the rows in order.
    pub(super) fn after(&self, parameter: &str) -> String {
        let Self { id, id_type, .. } = self;
        format!(
            "(pg_catalog.cardinality({parameter}::text[]) = 0 OR r.{id} > ({parameter}::text[])[1]::{id_type})"
        )
    }

    fn filter(&self, scope: Scope) -> String {
        let Self {
            filter,
            id,
            id_type,
            schema,
            ..
        } = self;
        // The filter is SQL of the operator's; a line end keeps its comments from swallowing ours.
        let filter = format!("({filter}\n) AND r.{id} IS NOT NULL");
        match scope {
            Scope::All => filter,
            Scope::Window(size) => format!(
                "{filter} AND {} ORDER BY r.{id} LIMIT {size}",
                self.after("$5")
            ),
            Scope::Among(ids) => format!("{filter} AND r.{id} = ANY ({ids}::text[]::{id_type}[])"),
            Scope::One => format!("{filter} AND r.{id} = $3::text::{id_type}"),
            Scope::Names => {
                format!(
                    "{filter} AND (r.{id}::text = ANY ($5::text[]) OR {schema} = ANY ($5::text[]))"
                )
            }
        }
    }

    /// A payload as a tenant id in the form the database writes it; `None` when it cannot be one.
    pub fn parse_id(&self, payload: &str) -> Option<String> {
        if payload.is_empty() || payload.len() > MAX_ID_BYTES {
            return None;
        }
        match self.id_type.as_str() {
            "uuid" => payload.parse::<uuid::Uuid>().ok().map(|id| id.to_string()),
            "bigint" => payload.parse::<i64>().ok().map(|id| id.to_string()),
            "integer" => payload.parse::<i32>().ok().map(|id| id.to_string()),
            "smallint" => payload.parse::<i16>().ok().map(|id| id.to_string()),
            _ if payload.contains('\0') => None,
            _ => Some(payload.to_owned()),
        }
    }
}

/// The schema's name, put together from a template: cheaper for each row than searching the template.
fn from_template(template: &str, id: &str) -> String {
    let id = format!("pg_catalog.replace(r.{id}::text, '-', '_')");
    let mut parts = template.split("{id}");
    let first = Literal(parts.next().unwrap_or_default()).to_string();
    parts.fold(first, |sql, part| {
        let sql = format!("pg_catalog.textcat({sql}, {id})");
        match part {
            "" => sql,
            part => format!("pg_catalog.textcat({sql}, {})", Literal(part)),
        }
    })
}

/// The table's name in SQL.
pub fn quoted_table(table: &config::QualifiedName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", Ident(schema), Ident(&table.name)),
        None => Ident(&table.name).to_string(),
    }
}

/// A table with its schema. Where the configuration names none, that is the first one which has it on the search path
/// that tenantd's role would have: what ALTER ROLE and ALTER DATABASE set, because our sessions look in the catalog only.
///
/// # Errors
/// When the table does not exist.
pub async fn located(
    client: &Client,
    table: &config::QualifiedName,
) -> Result<config::QualifiedName> {
    if table.schema.is_some() {
        return Ok(table.clone());
    }
    let rows = client
        .query_typed(
            include_str!("located.sql"),
            &[(&table.name, Type::TEXT), (&LOOKS_IN, Type::TEXT)],
        )
        .await
        .during(format!("look up table {table}"))?;
    let Some(row) = rows.first() else {
        return Err(missing(table));
    };
    Ok(config::QualifiedName {
        schema: Some(row.get(0)),
        name: table.name.clone(),
    })
}

fn missing(table: &config::QualifiedName) -> Error {
    Error::Refused(format!(
        "there is no table {table} in this database: check database.url and the table's name"
    ))
}

/// The columns of a table with their types.
///
/// # Errors
/// When the table does not exist or may not be seen.
pub async fn columns(
    client: &Client,
    table: &config::QualifiedName,
) -> Result<Vec<(String, String)>> {
    let located = located(client, table).await?;
    let rows = client
        .query_typed(
            "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
             ORDER BY a.attnum",
            &[(&quoted_table(&located), Type::TEXT)],
        )
        .await
        .during(format!("look up table {table}"))?;
    if rows.is_empty() {
        return Err(missing(table));
    }
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
