-- Who delivers our products, and under which article number.

CREATE TABLE suppliers (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text NOT NULL,
    email text,
    CONSTRAINT suppliers_name_key UNIQUE (name)
);

CREATE TABLE supplier_products (
    supplier_id    bigint NOT NULL REFERENCES suppliers (id) ON DELETE CASCADE,
    product_id     bigint NOT NULL REFERENCES products (id) ON DELETE CASCADE,
    article_number text NOT NULL,
    delivery_days  integer NOT NULL DEFAULT 7,
    PRIMARY KEY (supplier_id, product_id),
    CONSTRAINT supplier_products_article_number_key UNIQUE (supplier_id, article_number),
    CONSTRAINT supplier_products_delivery_days_range CHECK (delivery_days BETWEEN 0 AND 365)
);

CREATE INDEX supplier_products_product_id_idx ON supplier_products (product_id);

COMMENT ON COLUMN supplier_products.article_number IS 'What the supplier calls this product.';
