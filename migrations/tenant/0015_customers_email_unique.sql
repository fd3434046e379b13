-- Two customers may not share an e-mail address; upper and lower case are the same.
-- Fails with 23505 for a tenant that has duplicates: see README.md for finding them.

CREATE UNIQUE INDEX customers_lower_email_key ON customers (lower(email));

COMMENT ON INDEX customers_lower_email_key IS 'One customer for each e-mail address, whatever its case.';
