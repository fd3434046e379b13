-- CREATE SCHEMA and a rename have all sessions plan all their statements anew: after them, planning takes longer than
-- what is planned.

-- As in version 2, without obj_description, which is planned in each call.
CREATE OR REPLACE FUNCTION tenantd.stamp(p_schema text, p_version text, p_digest text)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_stamp text;
BEGIN
    SELECT format('COMMENT ON SCHEMA %I IS %L', p_schema, coalesce(
               nullif(regexp_replace(d.description, '(^|\n)tenantd: \S+ [0-9a-f]{32}$', ''), '') || E'\n', '')
               || format('tenantd: %s %s', p_version, p_digest)) INTO v_stamp
    FROM pg_namespace n
    LEFT JOIN pg_description d ON d.objoid = n.oid AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0
    WHERE n.nspname = p_schema::name;
    EXECUTE v_stamp;
END $$;

-- As in version 15, but with the guard in it, and such that a rehearsal reaches, and so plans, all statements but the
-- rename; that comes last, because whatever the session had planned is planned anew behind it.
-- Gives a tenant that nobody has seen yet a spare at the released head; which one. Null where there is none or any
-- doubt: whoever asks then looks and builds as usual. Nothing here waits for anybody.
DROP FUNCTION tenantd.spare_claim(text, text, text, text, text, boolean);
CREATE FUNCTION tenantd.spare_claim(p_tenant text, p_schema text, p_name text, p_digest text, p_made text)
RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_id     bigint;
    v_spare  text;
    v_rename text;
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('tenantd:' || p_schema, 0)) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    -- Statements of their own: the snapshot of each must be younger than the lock before it.
    SELECT s.tenant, s.schema INTO v_id, v_spare FROM tenantd.spare s
    WHERE s.made = p_made AND s.checked = p_digest
      AND tenantd.name_problem(p_schema) IS NULL
      AND to_regnamespace(quote_ident(p_schema)) IS NULL
      AND NOT EXISTS (SELECT FROM tenantd.tenant o WHERE o.tenant_id = p_tenant)
      AND EXISTS (SELECT FROM tenantd.head h WHERE h.digest = p_digest)
    LIMIT 1
    FOR UPDATE SKIP LOCKED;
    -- Without a spare, of no row.
    WITH claimed AS (
        UPDATE tenantd.tenant SET tenant_id = p_tenant, schema = p_schema, name = p_name, state = 'current'
        WHERE id = v_id AND tenant_id IS NULL AND digest = p_digest AND namespace = to_regnamespace(v_spare)
          AND (SELECT d.description FROM pg_description d
               WHERE d.objoid = namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0) LIKE '%tenantd: % ' || p_digest
          AND pg_try_advisory_xact_lock(hashtextextended('tenantd:' || v_spare, 0))
        RETURNING id
    )
    DELETE FROM tenantd.spare s USING claimed c WHERE s.tenant = c.id
    RETURNING format('ALTER SCHEMA %I RENAME TO %I', v_spare, p_schema) INTO v_rename;
    PERFORM pg_notify('tenant_ready', p_tenant) WHERE v_rename IS NOT NULL AND pg_notification_queue_usage() < 0.5;
    IF v_rename IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE v_rename;
    RETURN v_spare;
END $$;
REVOKE ALL ON FUNCTION tenantd.spare_claim FROM PUBLIC;
