-- An order can come back: one more state.
-- No file may use the new value in the transaction that adds it.

ALTER TYPE order_status ADD VALUE 'returned';
