-- Which of these tenants plainly lag: filled by us, in this very schema, and at a version before the head's. Few
-- columns and no judgement, for a rollout; who is not among them is judged by the census. That the schema holds tables
-- is left to whoever goes on (`tenantd.guard_all`). Looked up one by one: for some hundred the planner would rather
-- read the whole ledger.
--   $1 which tenants  $2 the digests before the head's
SELECT t.tenant_id, t.schema, t.namespace, t.digest
FROM {registry} r
CROSS JOIN LATERAL (SELECT * FROM tenantd.tenant t WHERE t.tenant_id = r.{id}::text OFFSET 0) t
CROSS JOIN LATERAL (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = t.namespace OFFSET 0) n
CROSS JOIN LATERAL (
    SELECT s.description FROM pg_catalog.pg_description s
    WHERE s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = t.namespace AND s.objsubid = 0
    OFFSET 0) s
WHERE {filter} AND t.digest = ANY ($2) AND {lags} AND t.schema = {schema} AND n.nspname = t.schema::name
  AND pg_catalog.right(s.description, 32) = t.digest
