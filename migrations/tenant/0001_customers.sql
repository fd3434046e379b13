-- The people and companies this tenant sells to.
-- E-mail addresses are not unique yet: 0015 makes them so.

CREATE TABLE customers (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    phone      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT customers_name_not_blank CHECK (btrim(name) <> ''),
    CONSTRAINT customers_email_has_at CHECK (position('@' in email) > 1)
);

CREATE INDEX customers_name_idx ON customers (name);

COMMENT ON TABLE customers IS 'One row for each person or company that buys.';
COMMENT ON COLUMN customers.email IS 'As the customer typed it; compare it in lower case.';
