-- The two ends of a shared transaction anew. The update of the ledger's rows is the guard: it finds them as the plan
-- presumed or not, and nobody looks a second time. What was seen some seconds ago is enough to make a plan of.
DROP FUNCTION tenantd.guard_all(text[], text[], oid[], text, text[], text[]);
DROP FUNCTION tenantd.record_all(
    text[], text[], oid[], text, text, text, integer, text, boolean, text);

-- SQLSTATEs as for `guard`: TD001 busy, TD002 stale; the field SCHEMA tells whose.
-- p_role: who runs the file, null: the caller. p_relations, p_types: the tenant's own that the file changes by names without a schema, see `tenantd.inside`.
CREATE FUNCTION tenantd.guard_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_before text,
    p_version text, p_digest text, p_at_head boolean, p_role name, p_relations text[], p_types text[])
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_relations name[] := ARRAY(SELECT DISTINCT r::name FROM unnest(p_relations) r);
    v_ids       bigint[];
    v_schemas   text[];
    v_schema    text;
    v_problem   text[];
BEGIN
    SELECT s INTO v_schema FROM unnest(p_schemas) s
    WHERE NOT pg_try_advisory_xact_lock(hashtextextended('tenantd:' || s, 0)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', v_schema
            USING ERRCODE = 'TD001', SCHEMA = v_schema;
    END IF;
    -- A statement of its own: its snapshot must be younger than the locks.
    WITH recorded AS (
        UPDATE tenantd.tenant t
        SET namespace = g.namespace, version = p_version, digest = p_digest,
            state = CASE WHEN p_at_head THEN 'current' ELSE 'behind' END,
            migrated_at = clock_timestamp(), attempts = 0, next_attempt = NULL, error = NULL,
            error_sqlstate = NULL, error_version = NULL, error_at = NULL, error_head = NULL
        FROM ROWS FROM (unnest(p_tenants), unnest(p_schemas), unnest(p_namespaces)) AS g (tenant_id, schema, namespace)
        WHERE t.tenant_id = g.tenant_id AND t.schema = g.schema AND t.digest = p_before
          AND t.attempts = 0 AND t.held_by IS NULL
        RETURNING t.id, t.schema, t.namespace
    ), judged AS (
        SELECT r.id, r.schema, CASE
            -- A name that is looked up by the search path, and is passed over there without the privilege.
            WHEN r.namespace::regnamespace::text <> quote_ident(r.schema)
              OR has_schema_privilege(coalesce(p_role, CURRENT_USER), r.namespace, 'USAGE') IS NOT TRUE
            THEN 'schema "%s" is not the one that the plan was made for, or may not be used'
            WHEN c.tables = 0 AND NOT EXISTS (
                SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
                WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = r.namespace
                  AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p')
            ) THEN 'there are no tables in schema "%s"'
            WHEN c.found < cardinality(v_relations)
              OR EXISTS (SELECT FROM unnest(p_types) t WHERE to_regtype(format('%I.%I', r.schema, t)) IS NULL)
            THEN 'schema "%s" lacks what the file changes'
        END AS problem
        FROM recorded r CROSS JOIN LATERAL (
            SELECT count(*) AS found, count(*) FILTER (WHERE c.relkind IN ('r', 'p')) AS tables
            FROM pg_class c WHERE c.relname = ANY (v_relations) AND c.relnamespace = r.namespace
        ) c
        OFFSET 0
    )
    SELECT array_agg(j.id), array_agg(j.schema),
           min(ARRAY[j.schema, format(j.problem, j.schema)]) FILTER (WHERE j.problem IS NOT NULL)
    INTO v_ids, v_schemas, v_problem
    FROM judged j;
    IF v_problem IS NULL AND coalesce(cardinality(v_ids), 0) < cardinality(p_schemas) THEN
        SELECT ARRAY[s, format('the ledger of schema "%s" has changed since the plan was made', s)] INTO v_problem
        FROM unnest(p_schemas) s WHERE (s = ANY (v_schemas)) IS NOT TRUE LIMIT 1;
        v_problem := coalesce(v_problem, ARRAY['', 'a schema is meant twice']);
    ELSIF EXISTS (SELECT FROM tenantd.rollout WHERE paused_at IS NOT NULL)
       OR EXISTS (SELECT FROM tenantd.breaker WHERE opened_at IS NOT NULL AND digest = p_digest) THEN
        v_problem := ARRAY['', 'the rollout has been stopped since the plan was made'];
    END IF;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', v_problem[2] USING ERRCODE = 'TD002', SCHEMA = v_problem[1];
    END IF;
    PERFORM set_config('tenantd.guard', v_ids::text, true);
END $$;

CREATE FUNCTION tenantd.record_all(
    p_tenants text[], p_schemas text[], p_namespaces oid[], p_before text,
    p_version text, p_checksum text, p_ordinal integer, p_digest text, p_at_head boolean, p_instance text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_ids    text := nullif(current_setting('tenantd.guard', true), '');
    v_stamps text;
    v_schema text;
BEGIN
    IF v_ids IS NULL THEN
        RAISE EXCEPTION 'the migration left its transaction' USING ERRCODE = 'TD003';
    END IF;
    INSERT INTO tenantd.applied (tenant, version, checksum, ordinal, duration_ms, instance)
    SELECT i, p_version, p_checksum, p_ordinal,
           1000 * EXTRACT(epoch FROM clock_timestamp() - now()) / cardinality(p_tenants), p_instance
    FROM unnest(v_ids::bigint[]) i;

    -- A stamp as it should be stands alone, or is the last line below what the owner wrote. There may be none.
    SELECT string_agg(format('COMMENT ON SCHEMA %I IS %L', g.schema, o.text || format('tenantd: %s %s', p_version, p_digest)), ';'),
           max(g.schema) FILTER (WHERE o.text IS NULL)
    INTO v_stamps, v_schema
    FROM ROWS FROM (unnest(p_schemas), unnest(p_namespaces)) AS g (schema, namespace)
    LEFT JOIN pg_description d
           ON d.objoid = g.namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0
    CROSS JOIN LATERAL (SELECT CASE
        WHEN d.description LIKE 'tenantd: %' AND right(d.description, 32) = p_before AND strpos(d.description, E'\n') = 0 THEN ''
        WHEN d.description !~ '(^|\n)tenantd: \S+ [0-9a-f]{32}$' THEN d.description || E'\n'
        WHEN right(d.description, 32) = p_before THEN regexp_replace(d.description, '(^|\n)tenantd: \S+ [0-9a-f]{32}$', '\1')
        WHEN d.description IS NULL THEN ''
    END AS text) o;
    IF v_schema IS NOT NULL THEN
        RAISE EXCEPTION 'the stamp of schema "%" has changed since the plan was made', v_schema
            USING ERRCODE = 'TD002', SCHEMA = v_schema;
    END IF;
    EXECUTE v_stamps;
    IF p_at_head THEN
        -- Another daemon may have released a newer head meanwhile.
        DELETE FROM tenantd.behind b USING tenantd.head h
        WHERE b.tenant_id = ANY (p_tenants) AND h.digest = p_digest;
    END IF;
END $$;

REVOKE ALL ON FUNCTION tenantd.guard_all, tenantd.record_all FROM PUBLIC;

-- As in version 15, but a search path knows `$user` in this case only: other names of these letters are nobody's.
CREATE OR REPLACE FUNCTION tenantd.name_problem(p_schema text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_schema IS NULL OR p_schema = '' THEN 'the schema name is empty'
    WHEN octet_length(p_schema) > 63 THEN 'the schema name has ' || octet_length(p_schema)::text || ' bytes; PostgreSQL keeps 63'
    WHEN p_schema ~ '[[:cntrl:]]' THEN 'the schema name holds a control character'
    WHEN lower(p_schema) LIKE 'pg\_%' OR lower(p_schema) IN ('public', 'information_schema', 'tenantd') OR p_schema = '$user'
    THEN 'the schema name "' || p_schema || '" is reserved'
END;
