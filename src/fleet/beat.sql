-- One heartbeat: says that the daemon runs, takes or keeps the lead, and tells what changed meanwhile.
-- The lead is a lease by the database's clock. It goes to who has loaded the released head, if anybody has.
--   $1 instance  $2 host  $3 pid  $4 version  $5 digest of the loaded head  $6 timeline of the server
--   $7 seconds a heartbeat counts  $8 seconds of the lease  $9 what to notify ourselves of
WITH old AS (
    DELETE FROM tenantd.instance WHERE heartbeat_at < pg_catalog.now() - interval '1 day' AND id <> $1
), beat AS (
    INSERT INTO tenantd.instance (id, host, pid, version, head) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = pg_catalog.now(), head = excluded.head
), lead AS (
    INSERT INTO tenantd.lead AS l (instance, expires_at)
    SELECT $1, pg_catalog.clock_timestamp() + $8 * interval '1 second'
    WHERE NOT EXISTS (
        SELECT FROM tenantd.head h JOIN tenantd.instance i ON i.head = h.digest
        WHERE h.digest <> $5 AND i.id <> $1 AND i.heartbeat_at > pg_catalog.now() - $7 * interval '1 second')
    ON CONFLICT (one) DO UPDATE SET instance = excluded.instance, expires_at = excluded.expires_at
    WHERE l.instance = excluded.instance OR l.expires_at < pg_catalog.clock_timestamp()
    RETURNING 1
), promoted AS (
    UPDATE tenantd.server SET timeline = $6 WHERE timeline < $6
), queue AS MATERIALIZED (
    SELECT pg_catalog.pg_notification_queue_usage() AS usage
)
SELECT (SELECT pg_catalog.max(version) FROM tenantd.control),
       EXISTS (SELECT FROM lead),
       coalesce((SELECT pg_catalog.date_part('epoch', l.expires_at - pg_catalog.clock_timestamp())
                 FROM tenantd.lead l), 0),
       q.usage,
       CASE WHEN q.usage < 0.5 THEN pg_catalog.pg_notify('tenantd_beat', $9) END,
       ARRAY(SELECT b.digest FROM tenantd.breaker b WHERE b.opened_at IS NOT NULL),
       (SELECT h.digest FROM tenantd.head h),
       EXISTS (SELECT FROM tenantd.head h JOIN tenantd.instance i ON i.head = h.digest
               WHERE i.id <> $1 AND i.heartbeat_at > pg_catalog.now() - $7 * interval '1 second'),
       EXISTS (SELECT FROM tenantd.head h JOIN tenantd.migration m ON m.ordinal < h.ordinal WHERE m.digest = $5),
       (SELECT r.max_rate FROM tenantd.rollout r),
       EXISTS (SELECT FROM tenantd.rollout r WHERE r.paused_at IS NOT NULL)
FROM queue q
