-- Versions that keep failing, and whether the fleet has stopped them.

-- Keyed by the digest of the set up to and including the version: a corrected file has another, so the
-- same version starts anew. Written by failures only, read where work is planned.
CREATE TABLE tenantd.breaker (
    digest     text PRIMARY KEY,
    version    text NOT NULL,
    file       text NOT NULL,
    tried      bigint NOT NULL,        -- tenants that tried it, as far as the daemons that saw a failure know
    places     bigint[] NOT NULL,      -- of the last five failures among those tried
    tenants    text[] NOT NULL,        -- who failed there: each counts once
    failures   bigint NOT NULL DEFAULT 1,
    error      text NOT NULL,          -- the last one
    opened_at  timestamptz             -- null: closed
);
