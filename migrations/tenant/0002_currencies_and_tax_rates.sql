-- Two lookup tables and the rows every tenant starts with.
-- Later files rely on the currency EUR and the tax rate "standard".

CREATE TABLE currencies (
    code         text PRIMARY KEY,
    name         text NOT NULL,
    minor_digits smallint NOT NULL DEFAULT 2,
    CONSTRAINT currencies_code_iso CHECK (code ~ '^[A-Z]{3}$'),
    CONSTRAINT currencies_minor_digits_range CHECK (minor_digits BETWEEN 0 AND 4)
);

CREATE TABLE tax_rates (
    code    text PRIMARY KEY,
    percent numeric(5, 2) NOT NULL,
    CONSTRAINT tax_rates_percent_range CHECK (percent >= 0 AND percent <= 100)
);

INSERT INTO currencies (code, name, minor_digits) VALUES
    ('CHF', 'Swiss franc', 2),
    ('EUR', 'Euro', 2),
    ('GBP', 'Pound sterling', 2),
    ('JPY', 'Yen', 0),
    ('USD', 'US dollar', 2);

INSERT INTO tax_rates (code, percent) VALUES
    ('none', 0),
    ('reduced', 7),
    ('standard', 19);

COMMENT ON TABLE currencies IS 'Currencies this tenant may trade in, by ISO 4217 code.';
COMMENT ON COLUMN currencies.minor_digits IS 'Digits after the decimal point when an amount is shown.';
COMMENT ON TABLE tax_rates IS 'Sales tax in percent, by a short name.';
