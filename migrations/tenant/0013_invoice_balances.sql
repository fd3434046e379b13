-- What is still to be paid on each invoice, as a view, and an order's sum with tax, as a function.

CREATE VIEW invoice_balances AS
SELECT invoices.id AS invoice_id,
       invoices.invoice_number,
       customers.display_name AS customer_name,
       invoices.due_on,
       invoices.currency_code,
       lines.total,
       paid.total AS paid,
       lines.total - paid.total AS balance
FROM invoices
JOIN customers ON customers.id = invoices.customer_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS total
    FROM invoice_lines
    WHERE invoice_lines.invoice_id = invoices.id
) AS lines
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS total
    FROM payments
    WHERE payments.invoice_id = invoices.id
) AS paid;

-- The body is an expression, not a string: its tables are looked up now, in this
-- schema, and stay the same whatever path the caller has.
CREATE FUNCTION order_gross_total(wanted_order_id bigint) RETURNS numeric
LANGUAGE sql STABLE
RETURN (
    SELECT coalesce(sum(round(net_total * (1 + tax_percent / 100), 2)), 0)
    FROM order_lines
    WHERE order_lines.order_id = wanted_order_id
);

COMMENT ON VIEW invoice_balances IS 'Total, paid amount and balance of each invoice.';
COMMENT ON FUNCTION order_gross_total(bigint) IS 'Sum of an order with tax, each line rounded to cents.';
