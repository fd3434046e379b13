-- How many sessions of others wait for a lock that a session of ours holds or waits for.
WITH ours AS MATERIALIZED (
    SELECT a.pid FROM pg_catalog.pg_stat_activity a
    WHERE a.datname = pg_catalog.current_database() AND a.usename = SESSION_USER
      AND a.application_name ~ '/(work|cli)$'
)
SELECT pg_catalog.count(DISTINCT l.pid)
FROM pg_catalog.pg_locks l
WHERE NOT l.granted AND l.pid NOT IN (SELECT pid FROM ours)
  AND EXISTS (SELECT FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) b (pid) WHERE b.pid IN (SELECT pid FROM ours))
