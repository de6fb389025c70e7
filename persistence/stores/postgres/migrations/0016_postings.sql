-- Every posting of money from one account to another, for lists of what changed a balance. Trades have their own table.

CREATE TABLE exchange.posting (
    sequence    bigint NOT NULL,
    event_index bigint NOT NULL,
    number      integer NOT NULL,
    posted_at   timestamptz NOT NULL,
    ref         text NOT NULL,
    code        text NOT NULL,
    memo        text NOT NULL,
    asset_id    bigint NOT NULL,
    amount      bigint NOT NULL,
    source_id   bigint NOT NULL,
    target_id   bigint NOT NULL,
    PRIMARY KEY (sequence, event_index, number)
);
CREATE INDEX posting_source ON exchange.posting (source_id, sequence, event_index, number);
CREATE INDEX posting_target ON exchange.posting (target_id, sequence, event_index, number);

-- Rows of another journal are wiped and built anew: so those of commands before this migration come too.
UPDATE exchange.projection SET journal = '';
