-- What a full sweep asks at the least: the same, with the tables of every schema counted and its stamp read.
SELECT count(*), count(n.oid), count(*) FILTER (WHERE c.tables > 0),
       count(*) FILTER (WHERE NOT coalesce(t.state = 'current' AND t.digest = (SELECT digest FROM tenantd.head)
                        AND n.oid = t.namespace AND t.schema = 'tenant_' || r.id AND c.tables > 0
                        AND pg_catalog.right(s.description, 32) = t.digest, false))
FROM public.tenants r
LEFT JOIN tenantd.tenant t ON t.tenant_id = r.id::text
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = ('tenant_' || r.id)::name
LEFT JOIN pg_catalog.pg_description s
       ON s.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND s.objoid = n.oid AND s.objsubid = 0
LEFT JOIN (SELECT relnamespace, count(*) AS tables FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') GROUP BY 1) c
       ON c.relnamespace = n.oid
