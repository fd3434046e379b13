-- Where the goods lie, how many there are, and every movement in or out.

CREATE TABLE warehouses (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL,
    name text NOT NULL,
    CONSTRAINT warehouses_code_key UNIQUE (code)
);

INSERT INTO warehouses (code, name) VALUES ('main', 'Main warehouse');

CREATE TABLE stock_levels (
    warehouse_id bigint NOT NULL REFERENCES warehouses (id),
    product_id   bigint NOT NULL REFERENCES products (id),
    quantity     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (warehouse_id, product_id),
    CONSTRAINT stock_levels_quantity_not_negative CHECK (quantity >= 0)
);

CREATE INDEX stock_levels_product_id_idx ON stock_levels (product_id);

CREATE TABLE stock_movements (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    warehouse_id bigint NOT NULL,
    product_id   bigint NOT NULL,
    quantity     integer NOT NULL,
    reason       text NOT NULL,
    moved_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stock_movements_level_fkey FOREIGN KEY (warehouse_id, product_id)
        REFERENCES stock_levels (warehouse_id, product_id),
    CONSTRAINT stock_movements_quantity_not_zero CHECK (quantity <> 0),
    CONSTRAINT stock_movements_reason_known
        CHECK (reason IN ('delivery', 'sale', 'return', 'count'))
);

CREATE INDEX stock_movements_level_idx ON stock_movements (warehouse_id, product_id, moved_at);

COMMENT ON COLUMN stock_movements.quantity IS 'Above zero for goods in, below zero for goods out.';
