-- One window of the fleet: what it holds in numbers, where it ends, and the tenants of it that were asked for.
-- A row without a tenant tells the numbers where nobody was.
SELECT w.seen, w.last, w.counts, d.*
FROM (
    SELECT (SELECT pg_catalog.count(*) FROM registry) AS seen,
           (SELECT r.tenant_id FROM registry r ORDER BY r.native DESC LIMIT 1) AS last,
           (SELECT pg_catalog.json_object_agg(c.state, pg_catalog.json_build_array(c.tenants, c.existing, c.filled))::text
            FROM (SELECT state, pg_catalog.count(*) AS tenants, pg_catalog.count(namespace) AS existing,
                         pg_catalog.count(*) FILTER (WHERE has_tables) AS filled
                  FROM judged GROUP BY state) c) AS counts
) w LEFT JOIN ({tenants} WHERE {which}) d ON true
ORDER BY d.native
