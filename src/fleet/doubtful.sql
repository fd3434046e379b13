-- Who of a window of the fleet is not plainly at head? Few columns, each worked out once a row; the census then
-- judges the few. Those that plainly lag are marked with a plus and told as in `lagging.sql`, in one text, which takes
-- half as long as JSON: nobody has to judge them. Where the window is full it ends with a row of the registry, so its
-- order is that of the ids and costs no sort.
--   $1 the head's digest  $2 the id after which it begins, if any  $3 the digests before the head's
SELECT pg_catalog.count(*) AS seen, pg_catalog.count(t.id) FILTER (WHERE t.state <> 'orphan') AS known,
       CASE WHEN pg_catalog.count(*) = {size} THEN (
           SELECT r.{id}::text FROM {registry} r WHERE {filter} AND {after} ORDER BY r.{id} OFFSET {size} - 1 LIMIT 1
       ) END AS last,
       pg_catalog.array_agg(
           CASE WHEN t.digest = ANY ($3) AND {lags} AND {fits}
                THEN pg_catalog.concat('+', n.oid, ' ', t.digest, ' ', pg_catalog.char_length(t.schema), ' ',
                                       t.schema, t.tenant_id)
                ELSE '?' || r.{id}::text END)
           FILTER (WHERE (t.state = 'current' AND t.digest = $1 AND {fits}) IS NOT TRUE) AS ids
FROM (SELECT r.* FROM {registry} r WHERE {filter} AND {after} ORDER BY r.{id} LIMIT {size}) r
LEFT JOIN tenantd.tenant t ON t.tenant_id = r.{id}::text
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.namespace
{stamps}
