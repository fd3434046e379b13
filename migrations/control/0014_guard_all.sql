-- As in version 10, but the tenant's own relations that the file changes are looked up once, by their names in
-- pg_class: `to_regclass` parses each name anew and looks twice, which cost more than all else here.
CREATE OR REPLACE FUNCTION tenantd.guard_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_digest text, p_relations text[], p_types text[])
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_relations name[] := ARRAY(SELECT DISTINCT r::name FROM unnest(p_relations) r);
    v_schema    text;
    v_problem   text;
BEGIN
    SELECT s INTO v_schema FROM unnest(p_schemas) s
    WHERE NOT pg_try_advisory_xact_lock(hashtextextended('tenantd:' || s, 0)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', v_schema USING ERRCODE = 'TD001';
    END IF;
    -- A statement of its own: its snapshot must be younger than the locks. That the schemas hold tables was presumed.
    SELECT format(p.problem, g.schema) INTO v_problem
    FROM ROWS FROM (unnest(p_tenants), unnest(p_schemas), unnest(p_namespaces)) AS g (tenant_id, schema, namespace)
    CROSS JOIN LATERAL (
        SELECT count(*) AS found, count(*) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables
        FROM pg_class c WHERE c.relname = ANY (v_relations) AND c.relnamespace = g.namespace
    ) c
    CROSS JOIN LATERAL (SELECT CASE
        WHEN NOT EXISTS (
            SELECT FROM tenantd.tenant t
            WHERE t.tenant_id = g.tenant_id AND t.schema = g.schema AND t.digest = p_digest AND t.held_by IS NULL
        ) OR NOT EXISTS (
            SELECT FROM pg_namespace n
            WHERE n.oid = g.namespace AND n.nspname = g.schema AND has_schema_privilege(n.oid, 'USAGE')
        ) THEN 'the ledger of schema "%s" has changed since the plan was made'
        WHEN c.tables = 0 AND NOT EXISTS (
            SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = g.namespace
              AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p')
        ) THEN 'there are no tables in schema "%s"'
        WHEN c.found < cardinality(v_relations)
          OR EXISTS (SELECT FROM unnest(p_types) t WHERE to_regtype(format('%I.%I', g.schema, t)) IS NULL)
        THEN 'schema "%s" lacks what the file changes'
    END AS problem OFFSET 0) p
    WHERE p.problem IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%', v_problem USING ERRCODE = 'TD002';
    END IF;
    PERFORM set_config('tenantd.guard', p_digest, true);
END $$;
