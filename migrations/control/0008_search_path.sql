-- Our own functions look nothing up in the tenant's schema. The session's search path begins with it, and an
-- operator that is planted there for the very types of an expression wins over the built-in one that would need a
-- cast: it would run as us. What the files left in the session is handed over in arguments, so that a setting of the
-- function's own hides nothing.
ALTER FUNCTION tenantd.guard SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.record SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.stamp SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.name_problem SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.outside_enter SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.outside_begin SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.outside_failed SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.outside_done SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tenantd.outside_finish SET search_path = pg_catalog, pg_temp;
