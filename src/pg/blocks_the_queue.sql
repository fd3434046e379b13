-- Who may keep the notification queue from being emptied. The server does not tell who listens: a session that
-- is in a transaction since long, best one whose last statement was a LISTEN; or one that reads nothing.
SELECT pg_catalog.format('process %s (%s, user %s, database %s), %s', a.pid,
           coalesce(nullif(a.application_name, ''), 'unnamed'), a.usename, a.datname,
           CASE WHEN a.wait_event = 'ClientWrite' THEN 'which does not read what is sent to it'
                ELSE 'in a transaction since ' || pg_catalog.date_trunc('seconds', a.xact_start)::text END)
FROM pg_catalog.pg_stat_activity a
WHERE a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend'
  -- An idle session in a transaction is reading notifications right now.
  AND (a.xact_start IS NOT NULL AND a.state <> 'idle' OR a.wait_event = 'ClientWrite')
ORDER BY a.wait_event IS NOT DISTINCT FROM 'ClientWrite' DESC, a.query ~* '\mlisten\M' DESC, a.xact_start
LIMIT 1
