-- What the tenant sells, sorted into categories that may be nested.

CREATE TABLE product_categories (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent_id bigint REFERENCES product_categories (id),
    name      text NOT NULL,
    CONSTRAINT product_categories_name_key UNIQUE (name),
    CONSTRAINT product_categories_not_own_parent CHECK (parent_id <> id)
);

CREATE INDEX product_categories_parent_id_idx ON product_categories (parent_id);

CREATE TABLE products (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    category_id   bigint REFERENCES product_categories (id) ON DELETE SET NULL,
    sku           text NOT NULL,
    name          text NOT NULL,
    unit_price    numeric(12, 2) NOT NULL,
    currency_code text NOT NULL DEFAULT 'EUR' REFERENCES currencies (code),
    tax_rate_code text NOT NULL DEFAULT 'standard' REFERENCES tax_rates (code),
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT products_sku_key UNIQUE (sku),
    CONSTRAINT products_unit_price_not_negative CHECK (unit_price >= 0)
);

CREATE INDEX products_category_id_idx ON products (category_id);
CREATE INDEX products_lower_name_idx ON products (lower(name));

COMMENT ON COLUMN products.sku IS 'Stock keeping unit: the number printed on the box.';
COMMENT ON INDEX products_lower_name_idx IS 'Serves the search box, which ignores case.';
