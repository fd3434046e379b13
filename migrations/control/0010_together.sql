-- The two ends of a transaction that takes several tenants forward by the same file: a guard and a record for all
-- of them at once, because two calls a tenant cost more than a short file does. Any doubt ends the transaction;
-- each tenant is then worked on alone, by `guard` and `record`.

-- SQLSTATEs as there: TD001 busy, TD002 stale, TD003 astray.
-- p_relations, p_types: the tenant's own that the file changes by names without a schema, see `tenantd.inside`.
CREATE FUNCTION tenantd.guard_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_digest text, p_relations text[], p_types text[])
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema text;
BEGIN
    SELECT s INTO v_schema FROM unnest(p_schemas) s
    WHERE NOT pg_try_advisory_xact_lock(hashtextextended('tenantd:' || s, 0)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', v_schema USING ERRCODE = 'TD001';
    END IF;
    -- A statement of its own: its snapshot must be younger than the locks.
    SELECT g.schema INTO v_schema
    FROM ROWS FROM (unnest(p_tenants), unnest(p_schemas), unnest(p_namespaces)) AS g (tenant_id, schema, namespace)
    WHERE NOT EXISTS (
        SELECT FROM tenantd.tenant t JOIN pg_namespace n ON n.oid = g.namespace
        WHERE t.tenant_id = g.tenant_id AND t.schema = g.schema AND t.digest = p_digest AND t.held_by IS NULL
          AND n.nspname = g.schema AND has_schema_privilege(n.oid, 'USAGE'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the ledger of schema "%" has changed since the plan was made', v_schema
            USING ERRCODE = 'TD002';
    END IF;
    SELECT format('%I.%I', s, o.name) INTO v_schema FROM unnest(p_schemas) s, (
        SELECT r AS name, false AS type FROM unnest(p_relations) r UNION ALL SELECT t, true FROM unnest(p_types) t) o
    WHERE CASE WHEN o.type THEN to_regtype(format('%I.%I', s, o.name))::oid
               ELSE to_regclass(format('%I.%I', s, o.name))::oid END IS NULL
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no %', v_schema USING ERRCODE = 'TD002';
    END IF;
    PERFORM set_config('tenantd.guard', p_digest, true);
END $$;

CREATE FUNCTION tenantd.record_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_before text,
    p_version text, p_checksum text, p_ordinal integer, p_digest text, p_at_head boolean, p_instance text)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_recorded bigint;
    v_schema   record;
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

    FOR v_schema IN
        SELECT g.schema AS name, regexp_replace(coalesce(d.description, ''), '(^|\n)tenantd: \S+ [0-9a-f]{32}$', '') AS text
        FROM ROWS FROM (unnest(p_schemas), unnest(p_namespaces)) AS g (schema, namespace)
        LEFT JOIN pg_description d
               ON d.objoid = g.namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0
    LOOP
        EXECUTE format('COMMENT ON SCHEMA %I IS %L', v_schema.name,
            v_schema.text || CASE WHEN v_schema.text = '' THEN '' ELSE E'\n' END
                          || format('tenantd: %s %s', p_version, p_digest));
    END LOOP;
    IF p_at_head THEN
        -- Another daemon may have released a newer head meanwhile.
        DELETE FROM tenantd.behind b USING tenantd.head h
        WHERE b.tenant_id = ANY (p_tenants) AND h.digest = p_digest;
    END IF;
END $$;

REVOKE ALL ON FUNCTION tenantd.guard_all, tenantd.record_all FROM PUBLIC;
