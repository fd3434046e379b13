-- The ledger: what each tenant schema has, what it should have, and what went wrong.

-- One row a schema. Rows are keyed by a surrogate id, so that a rename or a rebuild updates one row;
-- `namespace` is the pg_namespace oid, so that DROP and CREATE under the same name is noticed.
CREATE TABLE tenantd.tenant (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       text UNIQUE,            -- null: the remains of a lost schema that was rebuilt
    schema          text UNIQUE,            -- null: refused, because the name cannot be used
    name            text,
    namespace       oid,
    version         text,                   -- null: never filled by tenantd
    digest          text,                   -- of the ordered list of version and checksum
    state           text NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt    timestamptz,
    error           text,
    error_sqlstate  text,
    error_version   text,
    error_at        timestamptz,
    error_head      text,                   -- the head it failed against: another head releases a quarantine
    migrated_at     timestamptz,
    held_by         text,
    held_why        text,
    held_at         timestamptz,
    CONSTRAINT tenant_version_and_digest CHECK ((version IS NULL) = (digest IS NULL)),
    CONSTRAINT tenant_state CHECK (state IN (
        'current', 'ahead', 'unprovisioned', 'empty', 'behind', 'blocked', 'failed', 'quarantined',
        'modified', 'untracked', 'lost', 'restored', 'held', 'refused', 'orphan'))
) WITH (fillfactor = 70);

-- What was applied, when, by whom. Rows are added by the transaction that did the work.
CREATE TABLE tenantd.applied (
    tenant       bigint NOT NULL,           -- tenantd.tenant.id; no foreign key: it would cost each apply a lookup a file
    version      text NOT NULL,
    checksum     text NOT NULL,
    ordinal      integer NOT NULL,
    applied_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    duration_ms  double precision,          -- of the transaction that carried the file; null when adopted
    how          text NOT NULL DEFAULT 'applied' CHECK (how IN ('applied', 'adopted')),
    instance     text NOT NULL,
    role         name NOT NULL DEFAULT CURRENT_USER,
    PRIMARY KEY (tenant, version)
);

-- The set that was loaded last, and the version of it that is released to the fleet.
CREATE TABLE tenantd.migration (
    ordinal   integer PRIMARY KEY,
    version   text NOT NULL UNIQUE,
    name      text NOT NULL,
    checksum  text NOT NULL,
    digest    text NOT NULL UNIQUE          -- of the list up to and including this version
);
CREATE TABLE tenantd.head (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    ordinal      integer NOT NULL,
    version      text NOT NULL,
    digest       text NOT NULL,
    released_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    released_by  text NOT NULL
);

-- The tenants a login would help. Normally empty: it is what the triggers read on the application's
-- write path, so later versions of this schema never lock it and never rename its column.
CREATE TABLE tenantd.behind (
    tenant_id text PRIMARY KEY
);

-- What the command line or the application asked for. NOTIFY only hints at it.
CREATE TABLE tenantd.request (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('sweep', 'migrate')),
    tenant_id     text,
    requested_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    requested_by  name NOT NULL DEFAULT SESSION_USER,
    taken_at      timestamptz,
    taken_by      text,
    CONSTRAINT request_tenant CHECK ((kind = 'migrate') = (tenant_id IS NOT NULL))
);
CREATE INDEX request_open ON tenantd.request (id) WHERE taken_at IS NULL;

-- The daemons that run, by their heartbeats.
CREATE TABLE tenantd.instance (
    id            text PRIMARY KEY,
    host          text NOT NULL,
    pid           integer NOT NULL,
    version       text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    heartbeat_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
