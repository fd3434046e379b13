-- What a schema is, line by line, independent of its name, of oids and of the order of columns.
-- The caller puts the schema first on the search path, and the pretty forms are asked for: so names print without it.
-- Some servers write an option pg_attver on every column, different in each table: it says nothing.
--   $1 the schema's oid
WITH relations AS (
    SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
           c.relispartition, c.relpartbound, c.relreplident
    FROM pg_catalog.pg_class c WHERE c.relnamespace = $1
)
SELECT pg_catalog.format('%s %I%s%s%s%s%s%s', CASE r.relkind
           WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
           WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE r.relkind::text END, r.relname,
           CASE WHEN r.relpersistence = 'u' THEN ' unlogged' END,
           CASE WHEN r.relrowsecurity THEN ' row security' END,
           CASE WHEN r.relforcerowsecurity THEN ' forced' END,
           ' with ' || r.reloptions::text,
           CASE WHEN r.relkind = 'p' THEN ' by ' || pg_catalog.pg_get_partkeydef(r.oid) END,
           CASE WHEN r.relreplident NOT IN ('d', 'n') THEN ' replica identity ' || r.relreplident::text END) AS line
FROM relations r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
UNION ALL
SELECT pg_catalog.format('partition %I %s of %s', r.relname, pg_catalog.pg_get_expr(r.relpartbound, r.oid, true), h.inhparent::pg_catalog.regclass)
FROM relations r JOIN pg_catalog.pg_inherits h ON h.inhrelid = r.oid WHERE r.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT pg_catalog.format('column %I.%I %s%s%s%s%s%s%s', r.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attnotnull THEN ' not null' END,
           CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text END,
           CASE WHEN a.attgenerated <> '' THEN ' generated' END,
           ' collate ' || CASE WHEN a.attcollation NOT IN ('0', '100', '950') THEN a.attcollation::pg_catalog.regcollation::text END,
           ' with ' || (SELECT pg_catalog.string_agg(o, ',' ORDER BY o) FROM pg_catalog.unnest(a.attoptions) o WHERE o NOT LIKE 'pg_attver=%'),
           ' default ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid, true))
FROM relations r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT pg_catalog.format('index %s%s', pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), CASE WHEN NOT i.indisvalid THEN ' INVALID' END)
FROM relations r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid
UNION ALL
SELECT pg_catalog.format('constraint %s.%I %s%s', coalesce(r.relname, 'domain'), k.conname, pg_catalog.pg_get_constraintdef(k.oid, true),
           CASE WHEN NOT k.convalidated THEN ' not valid' END)
FROM pg_catalog.pg_constraint k LEFT JOIN relations r ON r.oid = k.conrelid
WHERE k.connamespace = $1 AND k.contype <> 'n'
UNION ALL
SELECT pg_catalog.format('trigger %s %s', pg_catalog.pg_get_triggerdef(t.oid, true), t.tgenabled)
FROM relations r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL
SELECT pg_catalog.format('%s %I as %s', CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, r.relname,
           pg_catalog.pg_get_viewdef(r.oid, true))
FROM relations r WHERE r.relkind IN ('v', 'm')
UNION ALL
SELECT pg_catalog.format('rule %s', pg_catalog.pg_get_ruledef(w.oid, true))
FROM relations r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT pg_catalog.format('policy %I.%I %s %s using %s check %s', r.relname, p.polname, p.polcmd, p.polpermissive,
           pg_catalog.pg_get_expr(p.polqual, p.polrelid, true), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid, true))
FROM relations r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
UNION ALL
SELECT pg_catalog.format('sequence %I %s start %s by %s min %s max %s cache %s cycle %s', r.relname,
           pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
FROM relations r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
UNION ALL
SELECT CASE WHEN p.prokind = 'a' THEN pg_catalog.format('aggregate %s', p.oid::pg_catalog.regprocedure)
            -- The one form that always says the schema, in its first line.
            ELSE pg_catalog.overlay(f.def, '', pg_catalog.strpos(f.def, f.own), pg_catalog.length(f.own)) END
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (SELECT CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid) END AS def,
                           pg_catalog.quote_ident(n.nspname) || '.' AS own) f
WHERE p.pronamespace = $1
UNION ALL
SELECT pg_catalog.format('statistics %I on %s', x.stxname, pg_catalog.pg_get_statisticsobjdef_columns(x.oid))
FROM pg_catalog.pg_statistic_ext x WHERE x.stxnamespace = $1
UNION ALL
SELECT pg_catalog.format('enum %I (%s)', t.typname, (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
           FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
FROM pg_catalog.pg_type t WHERE t.typnamespace = $1 AND t.typtype = 'e'
UNION ALL
SELECT pg_catalog.format('domain %I %s%s default %s', t.typname, pg_catalog.format_type(t.typbasetype, t.typtypmod),
           CASE WHEN t.typnotnull THEN ' not null' END, t.typdefault)
FROM pg_catalog.pg_type t WHERE t.typnamespace = $1 AND t.typtype = 'd'
UNION ALL
SELECT pg_catalog.format('comment on %s %s: %s', CASE WHEN d.objsubid = 0 THEN 'relation' ELSE 'column' END,
           pg_catalog.concat_ws('.', r.relname, a.attname), d.description)
FROM relations r
JOIN pg_catalog.pg_description d ON d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = r.oid
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum = d.objsubid AND d.objsubid > 0
ORDER BY 1
