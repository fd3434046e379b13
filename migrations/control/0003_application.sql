-- What applications call and join: ready(), login(), the status view.

-- Whether a login or an insert of this tenant should wake the daemon: the tenant lags, or nobody has
-- seen it yet. It runs in the WHEN clause of the triggers, for each row the application writes, so it
-- is two index probes and nothing that can fail. SECURITY DEFINER: the application has no right on the ledger.
CREATE FUNCTION tenantd.wakes(p_tenant text) RETURNS boolean
LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM tenantd.behind WHERE tenant_id = p_tenant)
        OR NOT EXISTS (SELECT FROM tenantd.tenant WHERE tenant_id = p_tenant AND state <> 'orphan');
END $$;

-- Whether the tenant's schema can serve code that needs at least this version (default: the released head).
CREATE FUNCTION tenantd.ready(tenant text, at_least text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((
        SELECT CASE
            WHEN t.state IN ('unprovisioned', 'empty', 'lost', 'restored', 'refused', 'orphan') THEN false
            WHEN t.state IN ('ahead', 'untracked') THEN true
            WHEN t.digest = h.digest AND at_least IS NULL THEN true
            ELSE EXISTS (SELECT FROM tenantd.applied a
                         WHERE a.tenant = t.id AND a.version = coalesce(at_least, h.version))
        END
        FROM tenantd.tenant t, tenantd.head h
        WHERE t.tenant_id = ready.tenant), false)
$$;

-- ready(), and a wakeup where one helps. For applications that call us instead of installing the login trigger.
CREATE FUNCTION tenantd.login(tenant text, at_least text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF tenantd.ready(tenant, at_least) THEN
        RETURN true;
    END IF;
    IF octet_length(tenant) <= 256 AND tenantd.wakes(tenant) AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('dashboard_login', tenant);
    END IF;
    RETURN false;
END $$;

-- For those who joined on a status column. It reads the ledger only: a view on the application's own
-- table would keep the application from altering it.
CREATE VIEW tenantd.status AS
SELECT t.tenant_id AS id, t.name, t.schema,
       CASE WHEN t.held_by IS NOT NULL THEN 'held'
            WHEN t.state = 'current' AND t.digest <> h.digest THEN 'behind'
            ELSE t.state END AS state,
       t.version, t.error
FROM tenantd.tenant t LEFT JOIN tenantd.head h ON true
WHERE t.tenant_id IS NOT NULL AND t.state <> 'orphan';

REVOKE ALL ON FUNCTION tenantd.guard, tenantd.record, tenantd.stamp FROM PUBLIC;
GRANT USAGE ON SCHEMA tenantd TO PUBLIC;
GRANT EXECUTE ON FUNCTION tenantd.wakes, tenantd.ready, tenantd.login TO PUBLIC;
