-- What a head check asks at the least: registry, catalog and ledger side by side, only rows in doubt.
SELECT r.id
FROM public.tenants r
LEFT JOIN tenantd.tenant t ON t.tenant_id = r.id::text
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = ('tenant_' || r.id)::name
WHERE NOT coalesce(t.state = 'current' AND t.digest = (SELECT digest FROM tenantd.head)
                   AND n.oid = t.namespace AND t.schema = 'tenant_' || r.id, false)
