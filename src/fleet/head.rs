//! The released head: which set the fleet is to have, and up to which version. It is moved by who loads a set
//! (`mode = "auto"`) or by a person (`tenantd release`); the rows of `tenantd.migration` are the list it stands in.

use std::future::ready;

use tokio::join;
use tokio_postgres::{
    Client, Transaction,
    types::{ToSql, Type},
};

use super::{census::Release, instances::HEARTBEAT_COUNTS};
use crate::{
    error::{During, Result},
    migrations::{Migration, MigrationSet},
};

/// The released head, as a loaded set sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// How many files of the set are part of what is released; `None`: not even the first.
    pub common: Option<usize>,
}

/// What is released, compared with this set. `None`: nothing ever was.
///
/// # Errors
/// When the database does not answer.
pub async fn released(client: &Client, set: &MigrationSet) -> Result<Option<Released>> {
    let rows = client
        .query_typed(
            "SELECT h.version, h.digest,
                    (SELECT pg_catalog.max(pg_catalog.array_position($1, m.digest))
                     FROM tenantd.migration m WHERE m.ordinal <= h.ordinal)
             FROM tenantd.head h",
            &[(&column(set.files(), |f| &f.digest), Type::TEXT_ARRAY)],
        )
        .await
        .during("ask for the released head")?;
    Ok(rows.first().map(|row| Released {
        version: row.get(0),
        digest: row.get(1),
        common: row
            .get::<_, Option<i32>>(2)
            .map(|common| common.unsigned_abs() as usize),
    }))
}

/// Publishes the loaded set and releases its head; or returns why not: a daemon that runs has released a head
/// that goes on from this one. Taking it back is then not ours to decide. `meanwhile` is done beside it where files are
/// new: to write down who lags takes the server a while.
///
/// # Errors
/// When the database does not answer.
pub async fn publish(
    client: &mut Client,
    release: &Release,
    by: &str,
    meanwhile: impl Future<Output = ()>,
) -> Result<Option<String>> {
    let what = what(release);
    let head = release.head();
    let transaction = begin(client, &what).await?;
    let newer = transaction
        .query_typed(
            include_str!("newer.sql"),
            &[
                (&head.digest, Type::TEXT),
                (&ordinal(release), Type::INT4),
                (&by, Type::TEXT),
                (&HEARTBEAT_COUNTS.as_secs_f64(), Type::FLOAT8),
            ],
        )
        .await
        .during(what.clone())?;
    if let Some(row) = newer.first() {
        let (version, host, pid): (&str, &str, i32) = (row.get(0), row.get(1), row.get(2));
        return Ok(Some(format!(
            "the released head stays {version}, which {host} (process {pid}) has loaded; here it is {}",
            head.version
        )));
    }
    replace(&transaction, release, by, &what, meanwhile).await?;
    transaction.commit().await.during(what)?;
    Ok(None)
}

/// Releases the head of a set where nothing was released before: there is nothing to stay at. Whether it was so.
///
/// # Errors
/// When the database does not answer.
pub async fn first(client: &mut Client, release: &Release, by: &str) -> Result<bool> {
    let what = what(release);
    let transaction = begin(client, &what).await?;
    if released(transaction.client(), &release.set)
        .await?
        .is_some()
    {
        return Ok(false);
    }
    replace(&transaction, release, by, &what, ready(())).await?;
    transaction.commit().await.during(what)?;
    Ok(true)
}

/// Releases the head of `release` on a person's word. Without `force` only forwards: what is released now must
/// be part of it. What stands in the way instead, if anything.
///
/// # Errors
/// When the database does not answer.
pub async fn release(
    client: &mut Client,
    release: &Release,
    by: &str,
    force: bool,
) -> Result<Option<Released>> {
    let what = what(release);
    let transaction = begin(client, &what).await?;
    let now = released(transaction.client(), &release.set).await?;
    if let Some(now) =
        now.filter(|now| !force && !release.has_any(std::slice::from_ref(&now.digest)))
    {
        return Ok(Some(now));
    }
    replace(&transaction, release, by, &what, ready(())).await?;
    transaction.commit().await.during(what)?;
    Ok(None)
}

fn what(release: &Release) -> String {
    format!("publish migration set {}", release.head().version)
}

fn ordinal(release: &Release) -> i32 {
    i32::try_from(release.head).unwrap_or(i32::MAX)
}

fn column(files: &[Migration], field: fn(&Migration) -> &str) -> Vec<&str> {
    files.iter().map(field).collect()
}

/// Two starters take turns; readers never wait.
async fn begin<'a>(client: &'a mut Client, what: &str) -> Result<Transaction<'a>> {
    let transaction = client.transaction().await.during(what)?;
    transaction
        .batch_execute("LOCK TABLE tenantd.migration IN SHARE ROW EXCLUSIVE MODE")
        .await
        .during(what)?;
    Ok(transaction)
}

/// Puts the set in the place of what was released; rows are replaced only where they differ.
async fn replace(
    transaction: &Transaction<'_>,
    release: &Release,
    by: &str,
    what: &str,
    meanwhile: impl Future<Output = ()>,
) -> Result<()> {
    let files = release.set.files();
    let ordinals: Vec<i32> = (1..).take(files.len()).collect();
    transaction
        .execute_typed(
            "DELETE FROM tenantd.migration WHERE digest <> ALL ($1)",
            &[(&column(files, |f| &f.digest), Type::TEXT_ARRAY)],
        )
        .await
        .during(what)?;
    let new = transaction
        .execute_typed(
            "INSERT INTO tenantd.migration (ordinal, version, name, checksum, digest)
             SELECT * FROM ROWS FROM (
                 pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]),
                 pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[]))
             ON CONFLICT DO NOTHING",
            &[
                (&ordinals, Type::INT4_ARRAY),
                (&column(files, |f| &f.version), Type::TEXT_ARRAY),
                (&column(files, |f| &f.name), Type::TEXT_ARRAY),
                (&column(files, |f| &f.checksum), Type::TEXT_ARRAY),
                (&column(files, |f| &f.digest), Type::TEXT_ARRAY),
            ],
        )
        .await
        .during(what)?;
    transaction
        .batch_execute("LOCK TABLE tenantd.behind IN SHARE ROW EXCLUSIVE MODE")
        .await
        .during(what)?;
    let (head, ordinal) = (release.head(), ordinal(release));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&ordinal, Type::INT4),
        (&head.version, Type::TEXT),
        (&head.digest, Type::TEXT),
        (&by, Type::TEXT),
    ];
    let releasing = transaction.execute_typed(include_str!("release.sql"), &parameters);
    let released = match new {
        0 => releasing.await,
        _ => join!(releasing, meanwhile).0,
    };
    released.during(what).map(drop)
}
