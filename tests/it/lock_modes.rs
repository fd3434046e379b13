//! The locks that `migrate --dry-run` tells of are those that a server takes.
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::fs;

use crate::support::{app::repository, database::TestDb};

const FIXTURE: &str = "
    CREATE TABLE items (id bigint PRIMARY KEY, a int);
    CREATE TABLE orders (id int PRIMARY KEY);
    ALTER TABLE items ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
    CREATE TABLE parted (k int) PARTITION BY LIST (k);
    CREATE TABLE part PARTITION OF parted FOR VALUES IN (1);
    CREATE TABLE mother (k int);
    CREATE TABLE loose (k int);
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER there BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE VIEW seen AS SELECT id FROM items;
    CREATE MATERIALIZED VIEW sums AS SELECT id FROM orders;
    CREATE UNIQUE INDEX sums_id ON sums (id);";

/// The strongest lock on each of the tables and views of before, but reads: `SHARE on items`.
const LOCKS: &str = "
    SELECT coalesce(string_agg(mode || ' on ' || name, ', ' ORDER BY mode || ' on ' || name), '') FROM (
        SELECT DISTINCT ON (t.name) t.name, m.mode FROM pg_locks l
        JOIN fixture t ON t.oid = l.relation
        JOIN (VALUES (1, 'RowShareLock', 'ROW SHARE'), (2, 'RowExclusiveLock', 'ROW EXCLUSIVE'),
                     (3, 'ShareUpdateExclusiveLock', 'SHARE UPDATE EXCLUSIVE'), (4, 'ShareLock', 'SHARE'),
                     (5, 'ShareRowExclusiveLock', 'SHARE ROW EXCLUSIVE'), (6, 'ExclusiveLock', 'EXCLUSIVE'),
                     (7, 'AccessExclusiveLock', 'ACCESS EXCLUSIVE')) AS m (n, lock, mode) ON m.lock = l.mode
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
        ORDER BY t.name, m.n DESC) strongest";

#[tokio::test]
async fn a_server_takes_the_locks_that_the_table_says() {
    let db = TestDb::new("lock_modes").await;
    let sql = db.connect().await;
    sql.batch_execute(FIXTURE).await.unwrap();
    sql.batch_execute(
        "CREATE TABLE fixture AS SELECT oid, relname::text AS name FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')",
    )
    .await
    .unwrap();
    let cases = fs::read_to_string(repository("src/migrations/check/tests/locks.txt")).unwrap();
    let (mut looked, mut wrong) = (0, Vec::new());
    for line in cases.lines().filter(|line| !line.starts_with(['#', '-'])) {
        let (expected, statement) = line.split_once(": ").unwrap();
        let mut expected: Vec<_> = expected.split(", ").collect();
        expected.sort_unstable();
        sql.batch_execute("BEGIN").await.unwrap();
        sql.batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let taken: String = sql.query_one(LOCKS, &[]).await.unwrap().get(0);
        sql.batch_execute("ROLLBACK").await.unwrap();
        looked += 1;
        if taken != expected.join(", ") {
            wrong.push(format!("{statement}: {taken}"));
        }
    }
    assert!(looked > 40, "{looked}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
