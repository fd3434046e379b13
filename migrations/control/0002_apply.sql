-- The two ends of every apply: a guard that the plan still holds, and the record of what was done.
-- Neither function may have a SET clause: each must see the session as the migration files left it.

-- SQLSTATEs of our own: TD001 busy (somebody else works on the schema), TD002 stale (the ledger no
-- longer says what the plan was made from), TD003 astray (not where, who or in what the files should be).
CREATE FUNCTION tenantd.guard(p_tenant text, p_schema text, p_digest text, p_namespace oid, p_here text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    t tenantd.tenant;
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('tenantd:' || p_schema, 0)) THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', p_schema USING ERRCODE = 'TD001';
    END IF;
    -- A statement of its own: its snapshot must be younger than the lock.
    SELECT * INTO t FROM tenantd.tenant WHERE tenant_id = p_tenant;
    IF t.digest IS DISTINCT FROM p_digest OR t.held_by IS NOT NULL OR EXISTS (
        SELECT FROM tenantd.tenant o WHERE o.schema = p_schema AND o.tenant_id IS DISTINCT FROM p_tenant)
    THEN
        RAISE EXCEPTION 'the ledger of schema "%" has changed since the plan was made', p_schema
            USING ERRCODE = 'TD002';
    END IF;
    IF p_namespace IS DISTINCT FROM (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = p_schema::name) THEN
        RAISE EXCEPTION 'schema "%" was created, dropped or replaced since the plan was made', p_schema
            USING ERRCODE = 'TD002';
    END IF;
    IF p_namespace IS NOT NULL AND p_here IS DISTINCT FROM p_schema THEN
        RAISE EXCEPTION 'cannot work in schema "%": the search path leads to "%"', p_schema, p_here
            USING ERRCODE = 'TD003',
                  HINT = pg_catalog.format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', p_schema, CURRENT_USER);
    END IF;
    -- Gone after a COMMIT: its absence tells `record` that the files left their transaction.
    PERFORM pg_catalog.set_config('tenantd.guard', p_schema, true);
END $$;

CREATE FUNCTION tenantd.record(
    p_tenant text, p_schema text, p_name text, p_namespace oid,
    p_versions text[], p_checksums text[], p_ordinals integer[], p_digest text,
    p_here text, p_search_path text, p_user text, p_expected_path text, p_expected_user text,
    p_look boolean,     -- the files hold code that cannot be judged by reading it: look at what it did
    p_at_head boolean, p_notify boolean, p_instance text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_key       bigint;
    v_namespace oid := (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = p_schema::name);
    v_outside   text;
    v_home      oid;
    v_before    refcursor := 'tenantd_before';
    v_version   text := p_versions[pg_catalog.cardinality(p_versions)];
BEGIN
    IF pg_catalog.current_setting('tenantd.guard', true) IS DISTINCT FROM p_schema THEN
        RAISE EXCEPTION 'the migration left its transaction' USING ERRCODE = 'TD003';
    END IF;
    IF p_here IS DISTINCT FROM p_schema OR p_search_path IS DISTINCT FROM p_expected_path
       OR p_user IS DISTINCT FROM p_expected_user OR (p_namespace IS NOT NULL AND p_namespace <> v_namespace)
    THEN
        RAISE EXCEPTION 'the migration ended astray: schema "%", search_path %, role "%"',
            p_here, p_search_path, p_user USING ERRCODE = 'TD003',
            DETAIL = pg_catalog.format('expected schema "%s", search_path %s, role "%s"',
                                       p_schema, p_expected_path, p_expected_user);
    END IF;
    IF p_look THEN
        SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO v_outside
        FROM pg_catalog.pg_locks l
        JOIN pg_catalog.pg_class c ON c.oid = l.relation
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
          AND c.relnamespace <> v_namespace AND n.nspname NOT IN ('pg_toast', 'pg_catalog')
        LIMIT 1;
        IF NOT FOUND THEN
            -- What was dropped is in no catalog any more; the cursor still sees the names of before.
            LOOP
                FETCH v_before INTO v_home, v_outside;
                EXIT WHEN NOT FOUND OR v_home <> v_namespace;
            END LOOP;
        END IF;
        IF v_outside IS NULL THEN
            -- Functions and schemas are made without a lock that shows; their catalog rows are of this transaction.
            SELECT o.what INTO v_outside FROM (
                SELECT 'function ' || p.oid::pg_catalog.regprocedure::text AS what FROM pg_catalog.pg_proc p
                WHERE p.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid AND p.pronamespace <> v_namespace
                UNION ALL
                SELECT 'schema ' || n.nspname FROM pg_catalog.pg_namespace n
                WHERE n.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid AND n.oid <> v_namespace
            ) o LIMIT 1;
        END IF;
        IF v_outside IS NOT NULL THEN
            RAISE EXCEPTION 'the migration created, altered or dropped % outside its schema', v_outside
                USING ERRCODE = 'TD003';
        END IF;
        CLOSE v_before;
    END IF;

    INSERT INTO tenantd.tenant AS t (tenant_id, schema, name, namespace, version, digest, state, migrated_at)
    VALUES (p_tenant, p_schema, p_name, v_namespace, v_version, p_digest,
            CASE WHEN p_at_head THEN 'current' ELSE 'behind' END, pg_catalog.clock_timestamp())
    ON CONFLICT (tenant_id) DO UPDATE SET
        schema = excluded.schema, name = excluded.name, namespace = excluded.namespace,
        version = excluded.version, digest = excluded.digest, state = excluded.state,
        migrated_at = excluded.migrated_at, attempts = 0, next_attempt = NULL, error = NULL,
        error_sqlstate = NULL, error_version = NULL, error_at = NULL, error_head = NULL
    RETURNING id INTO v_key;

    INSERT INTO tenantd.applied (tenant, version, checksum, ordinal, duration_ms, instance)
    SELECT v_key, f.version, f.checksum, f.ordinal,
           1000 * EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.now()), p_instance
    FROM ROWS FROM (pg_catalog.unnest(p_versions), pg_catalog.unnest(p_checksums), pg_catalog.unnest(p_ordinals))
         AS f (version, checksum, ordinal);

    PERFORM tenantd.stamp(p_schema, v_version, p_digest);
    IF p_at_head THEN
        -- Another daemon may have released a newer head meanwhile.
        DELETE FROM tenantd.behind b USING tenantd.head h WHERE b.tenant_id = p_tenant AND h.digest = p_digest;
        IF p_notify AND pg_catalog.pg_notification_queue_usage() < 0.5 THEN
            PERFORM pg_catalog.pg_notify('tenant_ready', p_tenant);
        END IF;
    END IF;
END $$;

-- Writes version and digest as the last line of the schema's comment and keeps the owner's text.
-- The line travels with pg_dump, copies and renames, so a restored schema is recognised.
CREATE FUNCTION tenantd.stamp(p_schema text, p_version text, p_digest text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_text text := pg_catalog.regexp_replace(
        coalesce(pg_catalog.obj_description(
            (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = p_schema::name), 'pg_namespace'), ''),
        '(^|\n)tenantd: \S+ [0-9a-f]{32}$', '');
BEGIN
    EXECUTE pg_catalog.format('COMMENT ON SCHEMA %I IS %L', p_schema,
        v_text || CASE WHEN v_text = '' THEN '' ELSE E'\n' END
               || pg_catalog.format('tenantd: %s %s', p_version, p_digest));
END $$;

-- Why a name cannot be a tenant's schema; null when it can.
CREATE FUNCTION tenantd.name_problem(p_schema text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_schema IS NULL OR p_schema = '' THEN 'the schema name is empty'
        WHEN pg_catalog.octet_length(p_schema) > 63 THEN
            'the schema name has ' || pg_catalog.octet_length(p_schema) || ' bytes; PostgreSQL keeps 63'
        WHEN p_schema ~ '[[:cntrl:]]' THEN 'the schema name holds a control character'
        WHEN pg_catalog.lower(p_schema) LIKE 'pg\_%'
          OR pg_catalog.lower(p_schema) IN ('public', 'information_schema', 'tenantd') THEN
            'the schema name "' || p_schema || '" is reserved'
    END
$$;
