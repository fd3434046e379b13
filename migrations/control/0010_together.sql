-- The two ends of a transaction that takes several tenants forward by the same file: a guard and a record for all
-- of them at once, because two calls a tenant cost more than a short file does. Any doubt ends the transaction;
-- each tenant is then worked on alone, by `guard` and `record`.

-- SQLSTATEs as there: TD001 busy, TD002 stale, TD003 astray.
-- p_relations, p_types: the tenant's own that the file changes by names without a schema, see `tenantd.inside`.
CREATE FUNCTION tenantd.guard_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_digest text, p_relations text[], p_types text[])
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_schema  text;
    v_problem text;
BEGIN
    SELECT s INTO v_schema FROM unnest(p_schemas) s
    WHERE NOT pg_try_advisory_xact_lock(hashtextextended('tenantd:' || s, 0)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', v_schema USING ERRCODE = 'TD001';
    END IF;
    -- A statement of its own: its snapshot must be younger than the locks. That the schemas hold tables was presumed.
    SELECT format(p.problem, g.schema) INTO v_problem
    FROM ROWS FROM (unnest(p_tenants), unnest(p_schemas), unnest(p_namespaces)) AS g (tenant_id, schema, namespace)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN NOT EXISTS (
            SELECT FROM tenantd.tenant t
            WHERE t.tenant_id = g.tenant_id AND t.schema = g.schema AND t.digest = p_digest AND t.held_by IS NULL
        ) OR NOT EXISTS (
            SELECT FROM pg_namespace n
            WHERE n.oid = g.namespace AND n.nspname = g.schema AND has_schema_privilege(n.oid, 'USAGE')
        ) THEN 'the ledger of schema "%s" has changed since the plan was made'
        WHEN NOT EXISTS (
            SELECT FROM pg_class c
            WHERE c.relname = ANY (p_relations::name[]) AND c.relnamespace = g.namespace AND c.relkind IN ('r', 'p')
        ) AND NOT EXISTS (
            SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = g.namespace
              AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p')
        ) THEN 'there are no tables in schema "%s"'
        WHEN EXISTS (SELECT FROM unnest(p_relations) r WHERE to_regclass(format('%I.%I', g.schema, r)) IS NULL)
          OR EXISTS (SELECT FROM unnest(p_types) t WHERE to_regtype(format('%I.%I', g.schema, t)) IS NULL)
        THEN 'schema "%s" lacks what the file changes'
    END AS problem OFFSET 0) p
    WHERE p.problem IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%', v_problem USING ERRCODE = 'TD002';
    END IF;
    PERFORM set_config('tenantd.guard', p_digest, true);
END $$;

CREATE FUNCTION tenantd.record_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_before text,
    p_version text, p_checksum text, p_ordinal integer, p_digest text, p_at_head boolean, p_instance text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_recorded bigint;
    v_stamps   text;
BEGIN
    IF current_setting('tenantd.guard', true) IS DISTINCT FROM p_before THEN
        RAISE EXCEPTION 'the migration left its transaction' USING ERRCODE = 'TD003';
    END IF;
    WITH recorded AS (
        UPDATE tenantd.tenant t
        SET namespace = g.namespace, version = p_version, digest = p_digest,
            state = CASE WHEN p_at_head THEN 'current' ELSE 'behind' END,
            migrated_at = clock_timestamp(), attempts = 0, next_attempt = NULL, error = NULL,
            error_sqlstate = NULL, error_version = NULL, error_at = NULL, error_head = NULL
        FROM ROWS FROM (unnest(p_tenants), unnest(p_schemas), unnest(p_namespaces)) AS g (tenant_id, schema, namespace)
        JOIN pg_namespace n ON n.oid = g.namespace AND n.nspname = g.schema
        WHERE t.tenant_id = g.tenant_id AND t.schema = g.schema AND t.digest = p_before
        RETURNING t.id
    ), applied AS (
        INSERT INTO tenantd.applied (tenant, version, checksum, ordinal, duration_ms, instance)
        SELECT r.id, p_version, p_checksum, p_ordinal,
               1000 * EXTRACT(epoch FROM clock_timestamp() - now()) / cardinality(p_tenants), p_instance
        FROM recorded r
    )
    SELECT count(*) INTO v_recorded FROM recorded;
    IF v_recorded <> cardinality(p_tenants) THEN
        RAISE EXCEPTION 'the ledger or a schema has changed since the plan was made' USING ERRCODE = 'TD002';
    END IF;

    -- A stamp as it should be stands alone, or is the last line below what the owner wrote.
    SELECT string_agg(format(E'COMMENT ON SCHEMA %I IS %L', g.schema, o.text || format('tenantd: %s %s', p_version, p_digest)), ';')
    INTO v_stamps
    FROM ROWS FROM (unnest(p_schemas), unnest(p_namespaces)) AS g (schema, namespace)
    LEFT JOIN pg_description d
           ON d.objoid = g.namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0
    CROSS JOIN LATERAL (SELECT CASE
        WHEN d.description LIKE 'tenantd: %' AND right(d.description, 32) = p_before AND strpos(d.description, E'\n') = 0 THEN ''
        ELSE coalesce(nullif(regexp_replace(d.description, '(^|\n)tenantd: \S+ [0-9a-f]{32}$', ''), '') || E'\n', '')
    END AS text) o;
    EXECUTE v_stamps;
    IF p_at_head THEN
        -- Another daemon may have released a newer head meanwhile.
        DELETE FROM tenantd.behind b USING tenantd.head h
        WHERE b.tenant_id = ANY (p_tenants) AND h.digest = p_digest;
    END IF;
END $$;

REVOKE ALL ON FUNCTION tenantd.guard_all, tenantd.record_all FROM PUBLIC;
