-- What took longest in a claim of a spare was planning: a rename makes every session plan all of its statements anew.

-- As in version 2, but bound to operators when it is created, not when it is called. So it needs no search path of its
-- own, and the planner puts it in the caller's place. And `$user` is a role's name in any search path, quoted or not.
CREATE OR REPLACE FUNCTION tenantd.name_problem(p_schema text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_schema IS NULL OR p_schema = '' THEN 'the schema name is empty'
    WHEN octet_length(p_schema) > 63 THEN 'the schema name has ' || octet_length(p_schema)::text || ' bytes; PostgreSQL keeps 63'
    WHEN p_schema ~ '[[:cntrl:]]' THEN 'the schema name holds a control character'
    WHEN lower(p_schema) LIKE 'pg\_%' OR lower(p_schema) IN ('public', 'information_schema', 'tenantd', '$user')
    THEN 'the schema name "' || p_schema || '" is reserved'
END;

-- As in version 12, of one statement less, and planned once, by a rehearsal (`rehearse` in `src/fleet/spare.rs`).
-- Gives a tenant that nobody has seen yet a spare at the released head; which one. Null where there is none or any
-- doubt: whoever asks then looks and builds as usual. Nothing here waits for anybody.
-- p_guarded: that the caller's statement has the guard of p_schema; what is looked at here is then younger. False in a
-- rehearsal, where the statements are planned and find nothing.
CREATE OR REPLACE FUNCTION tenantd.spare_claim(
    p_tenant text, p_schema text, p_name text, p_digest text, p_made text, p_guarded boolean)
RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_id    bigint;
    v_spare text;
BEGIN
    SELECT s.tenant, s.schema INTO v_id, v_spare FROM tenantd.spare s
    WHERE p_guarded AND s.made = p_made AND s.checked = p_digest
      AND tenantd.name_problem(p_schema) IS NULL
      AND to_regnamespace(quote_ident(p_schema)) IS NULL
      AND NOT EXISTS (SELECT FROM tenantd.tenant o WHERE o.tenant_id = p_tenant)
      AND EXISTS (SELECT FROM tenantd.head h WHERE h.digest = p_digest)
    LIMIT 1
    FOR UPDATE SKIP LOCKED;
    -- A statement of its own: its snapshot must be younger than that lock. Without a spare, of no row.
    WITH claimed AS (
        UPDATE tenantd.tenant SET tenant_id = p_tenant, schema = p_schema, name = p_name, state = 'current'
        WHERE id = v_id AND tenant_id IS NULL AND digest = p_digest AND namespace = to_regnamespace(v_spare)
          AND (SELECT d.description FROM pg_description d
               WHERE d.objoid = namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0) LIKE '%tenantd: % ' || p_digest
          AND pg_try_advisory_xact_lock(hashtextextended('tenantd:' || v_spare, 0))
        RETURNING id
    )
    DELETE FROM tenantd.spare s USING claimed c WHERE s.tenant = c.id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format('ALTER SCHEMA %I RENAME TO %I', v_spare, p_schema);
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('tenant_ready', p_tenant);
    END IF;
    RETURN v_spare;
END $$;
