-- Spares: schemas filled ahead of need. A spare is a row of tenantd.tenant without tenant_id, with a row here. So a
-- claim renames a schema and changes one row of the ledger; what was applied stays where it is.

CREATE TABLE tenantd.spare (
    tenant   bigint PRIMARY KEY,    -- tenantd.tenant.id
    schema   text NOT NULL,
    made     text NOT NULL,         -- with which owner, roles and search path
    rows     bigint NOT NULL,       -- that its tables held when the files had run
    holds    text,                  -- a table of it whose rows hold its name
    checked  text                   -- the digest at which its name was looked for in it, and not found
);

-- Sets, by digest, whose schemas keep their name as text: a renamed one would differ from a fresh one.
CREATE TABLE tenantd.spare_refused (
    digest    text PRIMARY KEY,
    why       text NOT NULL,
    found_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- A spare goes by its schema's name as tenant_id while a transaction works on it, so that `guard` and `record` know
-- it; nobody else ever sees that. Its row here is locked, which keeps it from being claimed.
CREATE FUNCTION tenantd.spare_open(p_schema text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE tenantd.spare SET checked = NULL WHERE schema = p_schema;
    UPDATE tenantd.tenant t SET tenant_id = p_schema
    FROM tenantd.spare s WHERE s.tenant = t.id AND t.schema = p_schema AND t.tenant_id IS NULL
$$;

-- What the tables of a schema hold: how many rows, and which table has this text in one.
CREATE FUNCTION tenantd.spare_rows(p_schema text, OUT rows bigint, OUT holds text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_table text;
    v_rows  bigint;
    v_with  bigint;
BEGIN
    rows := 0;
    FOR v_table IN
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = p_schema::name AND (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated)
    LOOP
        EXECUTE format('SELECT count(*), count(*) FILTER (WHERE strpos((x.*)::text, $1) > 0) FROM %I.%I x', p_schema, v_table)
        INTO v_rows, v_with USING p_schema;
        rows := rows + v_rows;
        IF v_with > 0 THEN
            holds := v_table;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION tenantd.spare_close(p_schema text, p_made text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH t AS (UPDATE tenantd.tenant SET tenant_id = NULL WHERE tenant_id = p_schema RETURNING id)
    INSERT INTO tenantd.spare AS s (tenant, schema, made, rows, holds)
    SELECT t.id, p_schema, p_made, r.rows, r.holds FROM t, tenantd.spare_rows(p_schema) r
    ON CONFLICT (tenant) DO UPDATE SET rows = excluded.rows, holds = excluded.holds, checked = NULL
$$;

-- Gives a tenant that nobody has seen yet a spare at the released head; which one. Null where there is none or any
-- doubt: whoever asks then looks and builds as usual. Nothing here waits for anybody.
-- p_guarded: that the caller's statement has the guard of p_schema; what is looked at here is then younger.
-- Of few and small statements: a rename makes every session plan all of its statements anew.
CREATE FUNCTION tenantd.spare_claim(
    p_tenant text, p_schema text, p_name text, p_digest text, p_made text, p_guarded boolean)
RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
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
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE tenantd.tenant SET tenant_id = p_tenant, schema = p_schema, name = p_name, state = 'current'
    WHERE id = v_id AND tenant_id IS NULL AND digest = p_digest AND namespace = to_regnamespace(v_spare)
      AND (SELECT d.description FROM pg_description d
           WHERE d.objoid = namespace AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0) LIKE '%tenantd: % ' || p_digest
      AND pg_try_advisory_xact_lock(hashtextextended('tenantd:' || v_spare, 0));
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    DELETE FROM tenantd.spare WHERE tenant = v_id;
    EXECUTE format('ALTER SCHEMA %I RENAME TO %I', v_spare, p_schema);
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('tenant_ready', p_tenant);
    END IF;
    RETURN v_spare;
END $$;

-- Removes a spare; says what became of it. One with rows that the files did not put there is somebody's: it stays,
-- as the remains of a lost schema do.
CREATE FUNCTION tenantd.spare_drop(p_schema text) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    v_id        bigint;
    v_namespace oid;
    v_rows      bigint;
BEGIN
    SELECT t.id, t.namespace, s.rows INTO v_id, v_namespace, v_rows
    FROM tenantd.spare s JOIN tenantd.tenant t ON t.id = s.tenant
    WHERE t.schema = p_schema AND t.tenant_id IS NULL
    FOR UPDATE OF s, t SKIP LOCKED;
    IF NOT FOUND OR NOT pg_try_advisory_xact_lock(hashtextextended('tenantd:' || p_schema, 0)) THEN
        RETURN 'left spare ' || p_schema || ': somebody works on it';
    END IF;
    DELETE FROM tenantd.spare WHERE tenant = v_id;
    IF v_namespace IS DISTINCT FROM (SELECT oid FROM pg_namespace WHERE nspname = p_schema::name) THEN
        DELETE FROM tenantd.applied WHERE tenant = v_id;
        DELETE FROM tenantd.tenant WHERE id = v_id;
        RETURN 'forgot spare ' || p_schema || ': its schema is gone';
    END IF;
    IF (tenantd.spare_rows(p_schema)).rows <> v_rows THEN
        UPDATE tenantd.tenant SET state = 'orphan' WHERE id = v_id;
        RETURN 'kept schema ' || p_schema || ', a spare no longer: somebody has put rows into it or removed some';
    END IF;
    EXECUTE format('DROP SCHEMA %I CASCADE', p_schema);
    DELETE FROM tenantd.applied WHERE tenant = v_id;
    DELETE FROM tenantd.tenant WHERE id = v_id;
    RETURN 'dropped spare ' || p_schema;
END $$;

REVOKE ALL ON FUNCTION tenantd.spare_open, tenantd.spare_rows, tenantd.spare_close, tenantd.spare_claim, tenantd.spare_drop FROM PUBLIC;
