-- What the login trigger asks for each row that the application writes: one probe of a table that is normally empty.
-- Not SECURITY DEFINER, and so without a SET that costs each call: everybody may read who lags, and everything is named in full,
-- because the search path is the application's. Who is not known yet is left to the insert trigger and the sweep.
CREATE FUNCTION tenantd.lags(p_tenant text) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
    RETURN EXISTS (SELECT FROM tenantd.behind b WHERE b.tenant_id OPERATOR(pg_catalog.=) p_tenant);
END $$;
GRANT SELECT ON tenantd.behind TO PUBLIC;
GRANT EXECUTE ON FUNCTION tenantd.lags TO PUBLIC;
