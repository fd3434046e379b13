-- A table outside of a schema in which this transaction has written rows, by its locks and what is counted of it.
-- Behind code that cannot be read, a table that it altered, too; what is readable is looked up before it runs.
--   $1 the schema  $2 whether the code can not be read
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p')
  AND n.nspname NOT IN ($1, 'pg_catalog', 'pg_toast')
  AND ($2 AND l.mode = 'AccessExclusiveLock'
       OR l.mode = 'RowExclusiveLock' AND (
           pg_catalog.current_setting('track_counts') = 'off'
           OR pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
              + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) > 0))
LIMIT 1
