-- Keep the tax percentage in the order line, so that a new rate leaves old orders alone.
-- Existing lines are filled from their product.

ALTER TABLE order_lines ADD COLUMN tax_percent numeric(5, 2);

UPDATE order_lines
SET tax_percent = tax_rates.percent
FROM products
JOIN tax_rates ON tax_rates.code = products.tax_rate_code
WHERE products.id = order_lines.product_id;

ALTER TABLE order_lines
    ALTER COLUMN tax_percent SET NOT NULL,
    ADD CONSTRAINT order_lines_tax_percent_range CHECK (tax_percent >= 0 AND tax_percent <= 100);

COMMENT ON COLUMN order_lines.tax_percent IS 'Tax rate when the line was written.';
