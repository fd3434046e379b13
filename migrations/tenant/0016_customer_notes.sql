-- Free notes about a customer, newest first.

CREATE TABLE customer_notes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    author      text NOT NULL,
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT customer_notes_body_not_blank CHECK (btrim(body) <> '')
);

CREATE INDEX customer_notes_customer_id_idx ON customer_notes (customer_id, created_at DESC);

COMMENT ON TABLE customer_notes IS 'What the staff want to remember about a customer.';
