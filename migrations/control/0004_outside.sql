-- Files that cannot run in one transaction: their statements run one by one, journalled before and after.

-- A row a schema, there only while such a file is under way. Statements that may run in a transaction
-- are counted in it; of the others it is written down first that they are begun.
CREATE TABLE tenantd.outside (
    schema      text PRIMARY KEY,
    namespace   oid NOT NULL,
    version     text NOT NULL,
    done        integer NOT NULL DEFAULT 0,
    digest      text NOT NULL,              -- of the texts of what is done: the file may have changed since
    begun       boolean NOT NULL DEFAULT false,
    existed     boolean NOT NULL DEFAULT false, -- the index it builds or drops was there, and valid, when it was begun
    instance    text NOT NULL,
    pid         integer NOT NULL DEFAULT pg_catalog.pg_backend_pid(),
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- Called behind `guard`. Takes the same lock for the session, because it must outlast the transactions, and
-- says how far the file came before. p_digests: after none of its statements, after the first, and so on.
-- TD004: what was done before is not how the file begins now.
CREATE FUNCTION tenantd.outside_enter(
    p_schema text, p_namespace oid, p_version text, p_digests text[], p_instance text,
    OUT done integer, OUT begun boolean, OUT existed boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    o tenantd.outside;
BEGIN
    IF NOT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('tenantd:' || p_schema, 0)) THEN
        RAISE EXCEPTION 'schema "%" is being worked on by another session', p_schema USING ERRCODE = 'TD001';
    END IF;
    -- Nothing was done for it, or for a schema that is gone: no reason to stop.
    DELETE FROM tenantd.outside x
    WHERE x.schema = p_schema AND (x.namespace <> p_namespace OR x.version <> p_version AND x.done = 0 AND NOT x.begun);
    INSERT INTO tenantd.outside (schema, namespace, version, digest, instance)
    VALUES (p_schema, p_namespace, p_version, p_digests[1], p_instance)
    ON CONFLICT DO NOTHING;
    SELECT * INTO o FROM tenantd.outside x WHERE x.schema = p_schema;
    IF o.version <> p_version OR o.digest IS DISTINCT FROM p_digests[o.done + 1] THEN
        RAISE EXCEPTION 'version % was begun in schema "%" with other statements: % of them are done',
            o.version, p_schema, o.done USING ERRCODE = 'TD004',
            HINT = pg_catalog.format('put the file back as it was; or bring the schema by hand to where it was before '
                'that version, then DELETE FROM tenantd.outside WHERE schema = %L', p_schema);
    END IF;
    done := o.done;
    begun := o.begun;
    existed := o.existed;
END $$;

-- Before a statement that refuses a transaction; p_index: the index it builds or drops. One that was there
-- before is never taken for its work.
CREATE FUNCTION tenantd.outside_begin(p_schema text, p_index text) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE tenantd.outside SET begun = true, pid = pg_catalog.pg_backend_pid(), existed = EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
        WHERE n.nspname = p_schema::name AND c.relname = p_index::name AND i.indisvalid)
    WHERE schema = p_schema
$$;

-- It failed, and is known to have failed.
CREATE FUNCTION tenantd.outside_failed(p_schema text) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE tenantd.outside SET begun = false WHERE schema = p_schema
$$;

-- After a statement; p_index: an index that it must have left valid.
CREATE FUNCTION tenantd.outside_done(p_schema text, p_done integer, p_digest text, p_index text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_valid boolean;
BEGIN
    IF p_index IS NOT NULL THEN
        SELECT i.indisvalid INTO v_valid
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
        WHERE n.nspname = p_schema::name AND c.relname = p_index::name;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'schema "%" has no index "%" after its build', p_schema, p_index USING ERRCODE = 'TD003',
                HINT = 'the table may be in another schema of the search path, or the name be taken by something else';
        ELSIF NOT v_valid THEN
            RAISE EXCEPTION 'index "%" is not valid after its build', p_index USING ERRCODE = 'TD002';
        END IF;
    END IF;
    UPDATE tenantd.outside SET done = p_done, digest = p_digest, begun = false
    WHERE schema = p_schema AND done = p_done - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the journal of schema "%" has changed meanwhile', p_schema USING ERRCODE = 'TD002';
    END IF;
END $$;

-- In the transaction that records the file, behind `record`: the time it took is that since it was begun.
CREATE FUNCTION tenantd.outside_finish(p_tenant text, p_schema text) RETURNS void LANGUAGE sql VOLATILE AS $$
    WITH o AS (DELETE FROM tenantd.outside WHERE schema = p_schema RETURNING *)
    UPDATE tenantd.applied a
    SET duration_ms = 1000 * EXTRACT(epoch FROM pg_catalog.clock_timestamp() - o.started_at)
    FROM o, tenantd.tenant t
    WHERE t.tenant_id = p_tenant AND a.tenant = t.id AND a.version = o.version
$$;

REVOKE ALL ON FUNCTION tenantd.outside_enter, tenantd.outside_begin, tenantd.outside_failed, tenantd.outside_done, tenantd.outside_finish FROM PUBLIC;
