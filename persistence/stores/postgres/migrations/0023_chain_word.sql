-- The journal's chain word of the last record that is in the rows: which history they are of. NULL: not known yet.
ALTER TABLE exchange.projection ADD COLUMN chain bytea;
