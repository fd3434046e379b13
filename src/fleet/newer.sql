-- The released head, if it goes on from this one and a daemon that runs has loaded it.
--   $1 digest and $2 ordinal of this head  $3 who asks  $4 seconds a heartbeat counts
SELECT h.version, i.host, i.pid
FROM tenantd.head h JOIN tenantd.instance i ON i.head = h.digest
WHERE h.ordinal > $2 AND EXISTS (SELECT FROM tenantd.migration m WHERE m.digest = $1)
  AND i.id <> $3 AND i.heartbeat_at > pg_catalog.now() - $4 * interval '1 second'
LIMIT 1
