-- Whether the lock of a schema's guard is free, which ends with this statement; and who has it.
--   $1 the schema
SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('tenantd:' || $1, 0)),
       (SELECT pg_catalog.format('process %s of the server (%s, user %s)', l.pid,
                                 coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(a.usename, '?'))
        FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid()
          AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
          AND (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended('tenantd:' || $1, 0)
        LIMIT 1)
