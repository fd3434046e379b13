-- The schema of a table that the configuration names without one: the first on the search path of our role's.
-- Our sessions begin with another path, so it is read where ALTER ROLE and ALTER DATABASE keep it.
--   $1 the table  $2 the path of our sessions; where it is another, a pooler or the operator wanted that one
WITH setting AS (
    SELECT CASE pg_catalog.current_setting('search_path') WHEN $2 THEN coalesce((
        SELECT pg_catalog.substr(c.setting, 13)
        FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS c (setting)
        WHERE pg_catalog.starts_with(c.setting, 'search_path=')
          AND s.setdatabase IN (0::oid, (SELECT d.oid FROM pg_catalog.pg_database d
                                         WHERE d.datname = pg_catalog.current_database()))
          AND s.setrole IN (0::oid, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = SESSION_USER))
        ORDER BY s.setrole = 0::oid, s.setdatabase = 0::oid
        LIMIT 1), '"$user", public') ELSE pg_catalog.current_setting('search_path') END AS path
), entries AS (
    SELECT m.position,
           CASE WHEN m.name[1] = '$user' THEN SESSION_USER::text
                ELSE coalesce(pg_catalog.replace(m.name[1], '""', '"'), pg_catalog.lower(m.name[2])) END AS schema
    FROM setting, pg_catalog.regexp_matches(path, '"((?:[^"]|"")*)"|([^",\s]+)', 'g')
        WITH ORDINALITY AS m (name, position)
)
SELECT n.nspname::text
FROM entries e JOIN pg_catalog.pg_namespace n ON n.nspname = e.schema::name
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $1::name
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
ORDER BY e.position LIMIT 1
