-- Who is not plainly at head? Registry, catalog names and ledger only; the census then judges the few.
--   $1 the head's digest  $2 after this id
SELECT r.{id}::text
FROM {registry} r
LEFT JOIN tenantd.tenant t ON t.tenant_id = r.{id}::text
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = {schema}::name
WHERE {filter} AND r.{id}::text COLLATE "C" > $2
  AND NOT coalesce(t.state = 'current' AND t.digest = $1 AND n.oid = t.namespace AND t.held_by IS NULL
                   AND t.schema = {schema} AND t.name IS NOT DISTINCT FROM {name}, false)
ORDER BY r.{id}::text COLLATE "C"
