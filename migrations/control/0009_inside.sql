-- Names without a schema lead to the tenant's own objects, or nowhere.

-- Called right before a statement that changes these relations and types, by whoever runs the file. p_path: the
-- search path as that session sees it. A name that is nowhere is left to the statement, to complain of or to skip.
-- Each name is looked up with a schema, in the cache of the catalog: the index of a catalog begins with the name,
-- which ten thousand tenants share.
CREATE FUNCTION tenantd.inside(p_schema text, p_path name[], p_relations text[], p_types text[])
RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_place text;
BEGIN
    SELECT o.place INTO v_place FROM (
        SELECT format('%I.%I', s.name, r.name) AS place FROM unnest(p_relations) AS r (name), unnest(p_path) AS s (name)
        WHERE to_regclass(format('%I.%I', p_schema, r.name)) IS NULL
          AND to_regclass(format('%I.%I', s.name, r.name)) IS NOT NULL
        UNION ALL
        SELECT format('%I.%I', s.name, t.name) FROM unnest(p_types) AS t (name), unnest(p_path) AS s (name)
        WHERE to_regtype(format('%I.%I', p_schema, t.name)) IS NULL
          AND to_regtype(format('%I.%I', s.name, t.name)) IS NOT NULL
    ) o LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the migration would change %, because schema "%" has none of that name', v_place, p_schema
            USING ERRCODE = 'TD003';
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION tenantd.inside TO PUBLIC;
