-- The states of tenants: registry, catalog and ledger side by side. Every question about the fleet
-- (sweeps, one tenant, status) is this text with another tail, so that a state means the same
-- everywhere. In braces: names from the configuration, quoted.
--   $1 the head's digest   $2 digests, $3 versions, $4 checksums of the set, in order   $5 which tenants
WITH registry AS (
    SELECT r.{id} AS native, r.{id}::text AS tenant_id, {name} AS name, {schema} AS schema
    FROM {registry} r
    WHERE {filter}
), seen AS (
    SELECT r.native, r.tenant_id, r.name, r.schema, t.id AS key, n.oid AS namespace, t.namespace AS known_namespace,
           t.schema AS known_schema, t.state AS known_state, t.name AS known_name,
           t.version, t.digest, t.attempts, t.next_attempt, t.error, t.error_sqlstate, t.error_version, t.error_at,
           t.error_head, t.migrated_at, t.held_by, t.held_why,
           CASE WHEN t.schema IS DISTINCT FROM r.schema THEN coalesce(
               tenantd.name_problem(r.schema),
               (SELECT pg_catalog.format('schema "%s" belongs to tenant %s', r.schema, o.tenant_id)
                FROM tenantd.tenant o WHERE o.schema = r.schema)) END AS problem,
           n.oid IS NOT NULL AND coalesce((
               -- By pg_depend, because pg_class has no index by schema: a probe a schema,
               -- half the time of one grouped read of pg_class over 10 000 schemas.
               SELECT true FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
               WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid
                 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p')
               LIMIT 1), false) AS has_tables,
           CASE WHEN pg_catalog.right(s.description, 32) = t.digest THEN t.digest
                ELSE pg_catalog.substring(s.description, 'tenantd: \S+ ([0-9a-f]{32})$') END AS stamp,
           CASE WHEN t.digest IS NULL THEN 0
                WHEN t.digest = $1 THEN pg_catalog.array_position($2, $1)
                ELSE pg_catalog.array_position($2, t.digest) END AS ordinal
    FROM registry r
    LEFT JOIN LATERAL (SELECT * FROM tenantd.tenant t WHERE t.tenant_id = r.tenant_id {probe}) t ON true
    LEFT JOIN LATERAL (SELECT n.oid FROM pg_catalog.pg_namespace n
                       WHERE n.nspname = r.schema::name AND pg_catalog.octet_length(r.schema) <= 63 {probe}) n ON true
    LEFT JOIN pg_catalog.pg_description s
           ON s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = n.oid AND s.objsubid = 0
    OFFSET 0 -- each column is worked out once a row, not once a use
), judged AS (
    SELECT s.*,
        CASE
            WHEN problem IS NOT NULL THEN 'refused'
            WHEN held_by IS NOT NULL THEN 'held'
            -- Never filled by us: what is there is somebody else's, or nothing.
            WHEN digest IS NULL AND stamp IS NOT NULL THEN 'restored'
            WHEN digest IS NULL AND has_tables THEN 'untracked'
            WHEN digest IS NULL AND known_state IN ('blocked', 'failed') THEN known_state
            WHEN digest IS NULL AND known_state = 'quarantined' AND error_head = $1 THEN 'quarantined'
            WHEN digest IS NULL THEN CASE WHEN namespace IS NULL THEN 'unprovisioned' ELSE 'empty' END
            -- Filled by us: its tables must be there, and be those we recorded.
            WHEN NOT has_tables THEN 'lost'
            WHEN (namespace <> known_namespace OR stamp IS NOT NULL) AND stamp IS DISTINCT FROM digest THEN 'restored'
            WHEN digest = $1 THEN 'current'
            WHEN ordinal > pg_catalog.array_position($2, $1) THEN 'ahead'
            WHEN ordinal IS NULL THEN (
                -- The ledger's list is no prefix of the set. It runs ahead when all of the set was
                -- applied before anything the set lacks; otherwise the set's past was changed.
                SELECT CASE WHEN pg_catalog.count(f.version) = pg_catalog.cardinality($3)
                             AND pg_catalog.max(a.ordinal) FILTER (WHERE f.version IS NOT NULL)
                               < pg_catalog.min(a.ordinal) FILTER (WHERE f.version IS NULL)
                            THEN 'ahead' ELSE 'modified' END
                FROM tenantd.applied a
                LEFT JOIN ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS f (version, checksum)
                       ON f.version = a.version AND f.checksum = a.checksum
                WHERE a.tenant = s.key)
            WHEN known_state IN ('blocked', 'failed') THEN known_state
            WHEN known_state = 'quarantined' AND error_head = $1 THEN 'quarantined'
            ELSE 'behind'
        END AS state
    FROM seen s
    OFFSET 0
)
