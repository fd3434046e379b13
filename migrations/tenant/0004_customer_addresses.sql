-- Any number of addresses for a customer, at most one default of each kind.

CREATE TABLE customer_addresses (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  bigint NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    kind         text NOT NULL,
    street       text NOT NULL,
    postal_code  text NOT NULL,
    city         text NOT NULL,
    country_code text NOT NULL,
    is_default   boolean NOT NULL DEFAULT false,
    CONSTRAINT customer_addresses_kind_known CHECK (kind IN ('billing', 'shipping')),
    CONSTRAINT customer_addresses_country_iso CHECK (country_code ~ '^[A-Z]{2}$')
);

CREATE INDEX customer_addresses_customer_id_idx ON customer_addresses (customer_id);
CREATE UNIQUE INDEX customer_addresses_one_default_idx
    ON customer_addresses (customer_id, kind) WHERE is_default;

COMMENT ON INDEX customer_addresses_one_default_idx IS 'At most one default address of each kind.';
