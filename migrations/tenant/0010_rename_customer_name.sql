-- customers.name becomes display_name: legal names are to come beside it.

ALTER TABLE customers RENAME COLUMN name TO display_name;
ALTER TABLE customers RENAME CONSTRAINT customers_name_not_blank TO customers_display_name_not_blank;
ALTER INDEX customers_name_idx RENAME TO customers_display_name_idx;

COMMENT ON COLUMN customers.display_name IS 'The name shown on screens and letters.';
