-- The file of a final batch for verifiers, and each trade beside the batch that settles it.

ALTER TABLE settlement.batch ADD COLUMN file bytea;

CREATE UNIQUE INDEX batch_last_sequence ON settlement.batch (last_sequence);

CREATE VIEW exchange.settled_trade AS
SELECT t.*, b.number AS batch, b.status AS batch_status, b.digests
FROM exchange.trade t
LEFT JOIN LATERAL (
    SELECT number, first_sequence, status, digests FROM settlement.batch
    WHERE last_sequence >= t.sequence ORDER BY last_sequence LIMIT 1
) b ON b.first_sequence <= t.sequence;
