-- What people tell all daemons: how fast a rollout goes, and whether it goes on.
CREATE TABLE tenantd.rollout (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    max_rate    integer CHECK (max_rate >= 0),  -- tenants a second, 0: no limit; null: as each daemon is configured
    paused_at   timestamptz,                    -- null: it goes on
    paused_by   text,
    paused_why  text
);
INSERT INTO tenantd.rollout DEFAULT VALUES;
