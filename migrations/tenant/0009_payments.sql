-- Payment methods with their first rows, and payments that settle invoices.

CREATE TABLE payment_methods (
    code      text PRIMARY KEY,
    name      text NOT NULL,
    is_active boolean NOT NULL DEFAULT true
);

INSERT INTO payment_methods (code, name) VALUES
    ('card', 'Card'),
    ('cash', 'Cash'),
    ('transfer', 'Bank transfer');

CREATE TABLE payments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_id  bigint NOT NULL REFERENCES invoices (id),
    method_code text NOT NULL REFERENCES payment_methods (code),
    reference   text,
    amount      numeric(14, 2) NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT payments_method_reference_key UNIQUE (method_code, reference),
    CONSTRAINT payments_amount_positive CHECK (amount > 0)
);

CREATE INDEX payments_invoice_id_idx ON payments (invoice_id);

COMMENT ON COLUMN payments.reference IS 'Number given by the bank or card company; stops us booking it twice.';
