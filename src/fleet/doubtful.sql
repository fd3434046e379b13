-- Who of a window of the fleet is not plainly at head? Few columns, each worked out once a row; the census then
-- judges the few. Those that plainly lag are marked with a plus: nobody has to judge them. The window ends with a row
-- of the registry, so its order is that of the ids and costs no sort.
--   $1 the head's digest  $2 the id after which it begins, if any  $3 the digests before the head's
WITH edge AS MATERIALIZED (
    SELECT (SELECT r.{id} FROM {registry} r WHERE {filter} AND {after} ORDER BY r.{id} OFFSET {size} - 1 LIMIT 1) AS last
)
SELECT pg_catalog.count(*) AS seen, (SELECT e.last::text FROM edge e) AS last,
       pg_catalog.array_agg(
           CASE WHEN t.digest = ANY ($3) AND {lags} AND {fits} THEN '+' ELSE '?' END || r.{id}::text)
           FILTER (WHERE (t.state = 'current' AND t.digest = $1 AND {fits}) IS NOT TRUE) AS ids
FROM {registry} r
LEFT JOIN tenantd.tenant t ON t.tenant_id = r.{id}::text
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.namespace
{stamps}
WHERE {filter} AND {after} AND ((SELECT e.last FROM edge e) IS NULL OR r.{id} <= (SELECT e.last FROM edge e))
