-- How far the rollout is, by the ledger alone: one pass over one row a tenant. Nobody has to have looked at a tenant
-- since the head was released: a current one with another digest lags.
SELECT pg_catalog.count(*) FILTER (
           WHERE t.digest IS DISTINCT FROM h.digest AND t.held_by IS NULL
             AND t.state IN ('current', 'unprovisioned', 'empty', 'behind', 'blocked', 'failed')),
       -- Over the last ten seconds, or since it began.
       (pg_catalog.count(*) FILTER (WHERE t.migrated_at > h.since) / greatest(1, EXTRACT(epoch FROM
           pg_catalog.clock_timestamp() - pg_catalog.min(t.migrated_at) FILTER (WHERE t.migrated_at > h.since))))::float8,
       h.version, r.max_rate,
       pg_catalog.to_char(r.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), r.paused_by, r.paused_why
FROM (SELECT) one
LEFT JOIN (SELECT version, digest, greatest(released_at, pg_catalog.now() - interval '10 seconds') AS since
           FROM tenantd.head) h ON true
LEFT JOIN tenantd.rollout r ON true
LEFT JOIN tenantd.tenant t ON t.tenant_id IS NOT NULL AND t.state <> 'orphan'
GROUP BY h.version, r.max_rate, r.paused_at, r.paused_by, r.paused_why
