-- Orders, their lines, and the states an order passes through.

CREATE TYPE order_status AS ENUM ('draft', 'placed', 'shipped', 'cancelled');

CREATE TABLE orders (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id         bigint NOT NULL REFERENCES customers (id),
    shipping_address_id bigint REFERENCES customer_addresses (id) ON DELETE SET NULL,
    status              order_status NOT NULL DEFAULT 'draft',
    placed_at           timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orders_placed_has_time
        CHECK (status IN ('draft', 'cancelled') OR placed_at IS NOT NULL)
);

CREATE INDEX orders_customer_id_idx ON orders (customer_id);
CREATE INDEX orders_shipping_address_id_idx ON orders (shipping_address_id);
CREATE INDEX orders_to_ship_idx ON orders (placed_at) WHERE status = 'placed';

CREATE TABLE order_lines (
    order_id   bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    line_no    integer NOT NULL,
    product_id bigint NOT NULL REFERENCES products (id),
    quantity   integer NOT NULL,
    unit_price numeric(12, 2) NOT NULL,
    net_total  numeric(14, 2) GENERATED ALWAYS AS (quantity * unit_price) STORED,
    PRIMARY KEY (order_id, line_no),
    CONSTRAINT order_lines_quantity_positive CHECK (quantity > 0),
    CONSTRAINT order_lines_unit_price_not_negative CHECK (unit_price >= 0)
);

CREATE INDEX order_lines_product_id_idx ON order_lines (product_id);

COMMENT ON TYPE order_status IS 'Where an order stands.';
COMMENT ON COLUMN order_lines.unit_price IS 'Price when the line was written; products.unit_price may change later.';
COMMENT ON INDEX orders_to_ship_idx IS 'The packing list: orders placed and not yet shipped.';
