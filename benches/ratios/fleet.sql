-- The ledger of tenants 2 to {size}: what it says of tenant 1, with the names and oids of each.
BEGIN;
SET LOCAL synchronous_commit = off;
SET LOCAL session_replication_role = replica;
INSERT INTO public.tenants SELECT g, 'tenant ' || g FROM generate_series(2, {size}) g;
INSERT INTO tenantd.tenant (tenant_id, schema, name, namespace, version, digest, state, migrated_at)
SELECT g::text, 'tenant_' || g, t.name, n.oid, t.version, t.digest, t.state, t.migrated_at
FROM generate_series(2, {size}) g
JOIN pg_namespace n ON n.nspname = 'tenant_' || g
JOIN tenantd.tenant t ON t.tenant_id = '1';
INSERT INTO tenantd.applied (tenant, version, checksum, ordinal, duration_ms, instance)
SELECT t.id, a.version, a.checksum, a.ordinal, a.duration_ms, a.instance
FROM tenantd.tenant t, tenantd.applied a JOIN tenantd.tenant o ON o.id = a.tenant
WHERE o.tenant_id = '1' AND t.tenant_id <> '1';
COMMIT;
