-- Writes what a census page saw into the ledger: new tenants, changed states, and who a login would help.
-- Rows that a worker is finishing right now are skipped; so are rows that moved on since they were read.
--   $1 ids  $2 schemas (null: refused)  $3 names  $4 namespaces  $5 digests  $6 versions
--   $7 states as seen  $8 states as the ledger had them  $9 why refused
WITH seen AS (
    SELECT s.*, pg_catalog.row_number() OVER (PARTITION BY s.schema ORDER BY s.tenant_id) AS claim
    FROM ROWS FROM (
        pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]),
        pg_catalog.unnest($4::oid[]), pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]),
        pg_catalog.unnest($7::text[]), pg_catalog.unnest($8::text[]), pg_catalog.unnest($9::text[]))
        AS s (tenant_id, schema, name, namespace, digest, version, state, known_state, problem)
), locked AS (
    SELECT t.id, s.*
    FROM tenantd.tenant t JOIN seen s USING (tenant_id)
    WHERE t.digest IS NOT DISTINCT FROM s.digest AND t.state IS NOT DISTINCT FROM s.known_state
      AND (s.claim = 1 OR s.schema IS NULL)
      -- What is known already is not written again.
      AND (t.state <> s.state OR t.schema IS DISTINCT FROM s.schema OR t.name IS DISTINCT FROM s.name
           OR t.error IS DISTINCT FROM coalesce(s.problem, t.error)
           OR t.namespace IS DISTINCT FROM s.namespace
              AND s.state IN ('current', 'ahead', 'behind', 'blocked', 'failed', 'quarantined'))
    ORDER BY t.tenant_id
    FOR NO KEY UPDATE OF t SKIP LOCKED
), changed AS (
    UPDATE tenantd.tenant t
    SET schema = l.schema, name = l.name, state = l.state,
        -- The oid is proof of which schema we filled: followed only while the state is one we trust.
        namespace = CASE WHEN l.state IN ('current', 'ahead', 'behind', 'blocked', 'failed', 'quarantined')
                         THEN l.namespace ELSE t.namespace END,
        error = CASE WHEN l.state = 'refused' THEN l.problem
                     WHEN l.state IN ('blocked', 'failed', 'quarantined') THEN t.error END
    FROM locked l WHERE t.id = l.id
    RETURNING t.tenant_id, t.state
), added AS (
    INSERT INTO tenantd.tenant (tenant_id, schema, name, state, error)
    SELECT s.tenant_id, s.schema, s.name, s.state, s.problem
    FROM seen s WHERE s.known_state IS NULL ORDER BY s.tenant_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, state
), noted AS (
    SELECT * FROM changed UNION ALL SELECT * FROM added
), gone AS (
    DELETE FROM tenantd.behind b USING noted n
    WHERE n.tenant_id = b.tenant_id AND n.state NOT IN ('unprovisioned', 'empty', 'behind')
), helped AS (
    INSERT INTO tenantd.behind (tenant_id)
    SELECT n.tenant_id FROM noted n WHERE n.state IN ('unprovisioned', 'empty', 'behind') ORDER BY 1
    ON CONFLICT DO NOTHING
    RETURNING tenant_id
)
SELECT pg_catalog.setval('tenantd.any_behind', 1) FROM helped LIMIT 1
