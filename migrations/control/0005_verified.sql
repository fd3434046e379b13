-- What comparing a tenant's catalog with that of a fresh schema said, the last time. A row a tenant.
CREATE TABLE tenantd.verified (
    tenant       bigint PRIMARY KEY,        -- tenantd.tenant.id
    version      text NOT NULL,             -- what it was compared at
    verified_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    difference   text                       -- null: none
);
