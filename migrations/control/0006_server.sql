-- Which server this ledger belongs to, who leads, and which set each daemon has loaded.

-- A database that was copied to another server brings this row along: nothing is done there until
-- `tenantd install` has accepted the new place.
CREATE TABLE tenantd.server (
    one                boolean PRIMARY KEY DEFAULT true CHECK (one),
    system_identifier  bigint NOT NULL,
    timeline           integer NOT NULL         -- the newest one seen; a server with an older one was left behind
);

-- The daemon that does the periodic sweeps. By the database's clock, and only for seconds: a frozen
-- process would keep a lock, but cannot keep a lease.
CREATE TABLE tenantd.lead (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    instance    text NOT NULL,
    expires_at  timestamptz NOT NULL
);

-- Digest of the head that the daemon has loaded.
ALTER TABLE tenantd.instance ADD COLUMN head text;
