-- A tenant that plainly is new: it is built while the fleet is paused too. Planning the census would take longer than all
-- it reads.
--   $1 which tenant
SELECT r.{id}::text AS id, {schema} AS schema, {name} AS name
FROM {registry} r
WHERE {filter} AND tenantd.name_problem({schema}) IS NULL
  AND pg_catalog.to_regnamespace(pg_catalog.quote_ident({schema})) IS NULL
  AND NOT EXISTS (SELECT FROM tenantd.tenant t WHERE t.tenant_id = r.{id}::text OR t.schema = {schema})
  AND NOT EXISTS (SELECT FROM tenantd.breaker WHERE opened_at IS NOT NULL)
LIMIT 1
