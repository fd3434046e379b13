-- A plan that may not read a table whole and has to is as dear as a server can say, and so is compiled: 50 ms for each
-- tenant, in sessions that a pooler has made and that lack our settings.
ALTER FUNCTION tenantd.guard_all SET jit = off;
ALTER FUNCTION tenantd.record_all SET jit = off;

-- What comes behind CREATE SCHEMA is planned anew for each new tenant, which takes longer than to run it.

-- As in version 18, without a join: the schema's oid is looked up where the server keeps it.
CREATE OR REPLACE FUNCTION tenantd.stamp(p_schema text, p_version text, p_digest text)
RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_before text;
BEGIN
    SELECT d.description INTO v_before FROM pg_description d
    WHERE d.objoid = to_regnamespace(quote_ident(p_schema)) AND d.classoid = 'pg_namespace'::regclass AND d.objsubid = 0;
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', p_schema, coalesce(
        nullif(regexp_replace(v_before, '(^|\n)tenantd: \S+ [0-9a-f]{32}$', ''), '') || E'\n', '')
        || format('tenantd: %s %s', p_version, p_digest));
END $$;

-- As in version 2, but `tenantd.behind` is only written to while anybody may be in it, see version 17.
CREATE OR REPLACE FUNCTION tenantd.record(
    p_tenant text, p_schema text, p_name text, p_namespace oid, p_versions text[], p_checksums text[],
    p_ordinals int[], p_digest text, p_here text, p_search_path text, p_user text, p_expected_path text,
    p_expected_user text, p_look boolean, p_at_head boolean, p_notify boolean, p_instance text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_key       bigint;
    v_namespace oid := pg_catalog.to_regnamespace(pg_catalog.quote_ident(p_schema));
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
        IF pg_catalog.pg_sequence_last_value('tenantd.any_behind') IS NOT NULL THEN
            -- Another daemon may have released a newer head meanwhile.
            DELETE FROM tenantd.behind b USING tenantd.head h WHERE b.tenant_id = p_tenant AND h.digest = p_digest;
        END IF;
        IF p_notify AND pg_catalog.pg_notification_queue_usage() < 0.5 THEN
            PERFORM pg_catalog.pg_notify('tenant_ready', p_tenant);
        END IF;
    END IF;
END $$;
