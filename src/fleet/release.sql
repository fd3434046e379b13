-- Releases a version to the fleet and tells the triggers at once who lags behind it. Nobody else writes
-- `tenantd.behind` meanwhile, so that rows need not be inserted on trial, which takes twice as long; and who is in it
-- already is found by reading it once, not by a probe a tenant, which meets the dead rows of the release before.
--   $1 ordinal  $2 version  $3 digest  $4 by whom
WITH released AS (
    INSERT INTO tenantd.head AS h (ordinal, version, digest, released_by) VALUES ($1, $2, $3, $4)
    ON CONFLICT (one) DO UPDATE
    SET ordinal = excluded.ordinal, version = excluded.version, digest = excluded.digest,
        released_at = pg_catalog.now(), released_by = excluded.released_by
    WHERE h.digest <> excluded.digest
    RETURNING digest
), caught_up AS (
    DELETE FROM tenantd.behind b USING tenantd.tenant t, released r
    WHERE t.tenant_id = b.tenant_id AND t.digest = r.digest
), lagging AS (
    INSERT INTO tenantd.behind (tenant_id)
    SELECT t.tenant_id FROM tenantd.tenant t, released r
    WHERE t.tenant_id IS NOT NULL AND t.digest <> r.digest AND t.held_by IS NULL
      AND t.state IN ('current', 'behind', 'quarantined')
    EXCEPT SELECT b.tenant_id FROM tenantd.behind b
)
SELECT pg_catalog.setval('tenantd.any_behind', 1) FROM released
