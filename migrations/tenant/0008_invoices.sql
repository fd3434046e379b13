-- Invoices and their lines. An invoice belongs to an order, or stands alone.

CREATE TABLE invoices (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_number text NOT NULL,
    customer_id    bigint NOT NULL REFERENCES customers (id),
    order_id       bigint REFERENCES orders (id),
    currency_code  text NOT NULL DEFAULT 'EUR' REFERENCES currencies (code),
    issued_on      date NOT NULL DEFAULT CURRENT_DATE,
    due_on         date NOT NULL,
    sent_at        timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT invoices_invoice_number_key UNIQUE (invoice_number),
    CONSTRAINT invoices_invoice_number_form CHECK (invoice_number ~ '^[0-9]{4}-[0-9]{5}$'),
    CONSTRAINT invoices_due_after_issue CHECK (due_on >= issued_on)
);

CREATE INDEX invoices_customer_id_idx ON invoices (customer_id);
CREATE INDEX invoices_order_id_idx ON invoices (order_id);
CREATE INDEX invoices_unsent_idx ON invoices (issued_on) WHERE sent_at IS NULL;

CREATE TRIGGER invoices_touch_updated_at BEFORE UPDATE ON invoices
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE TABLE invoice_lines (
    invoice_id  bigint NOT NULL REFERENCES invoices (id) ON DELETE CASCADE,
    line_no     integer NOT NULL,
    description text NOT NULL,
    amount      numeric(14, 2) NOT NULL,
    PRIMARY KEY (invoice_id, line_no)
);

COMMENT ON COLUMN invoices.invoice_number IS 'Year and running number, for instance 2025-00042.';
COMMENT ON COLUMN invoice_lines.amount IS 'With tax. Below zero for a discount.';
