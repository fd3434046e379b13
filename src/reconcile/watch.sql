-- One look at the session that holds a schema's guard. Behind a transaction pooler nobody knows beforehand
-- which one that will be.
--   $1 the schema  $2 the class of the lock that names the file
WITH ours AS (
    SELECT l.pid FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended('tenantd:' || $1, 0)
    LIMIT 1
)
SELECT (SELECT pg_catalog.format('process %s (%s, user %s), in a transaction %s', a.pid,
            coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename,
            coalesce('for ' || pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start)::text,
                     'of unknown age (GRANT pg_read_all_stats shows it)'))
        FROM pg_catalog.pg_stat_activity a
        WHERE a.pid = ANY (pg_catalog.pg_blocking_pids(ours.pid)) ORDER BY a.xact_start LIMIT 1),
       EXISTS (SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
               WHERE l.pid = ours.pid AND l.granted AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm')
                 AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')),
       (SELECT a.xact_start::text FROM pg_catalog.pg_stat_activity a WHERE a.pid = ours.pid),
       (SELECT l.objid::int FROM pg_catalog.pg_locks l WHERE l.pid = ours.pid AND l.locktype = 'advisory'
        AND l.classid = $2::oid AND l.objsubid = 2 AND l.granted LIMIT 1)
FROM ours
