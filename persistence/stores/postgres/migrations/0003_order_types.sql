-- Icebergs and orders that expire: the slice in lots, the time in nanoseconds since 1970.

ALTER TABLE exchange.orders ADD COLUMN display_size bigint, ADD COLUMN expires_at bigint;
