-- Transfers of one account's money to another's.

CREATE TABLE money.transfer (
    id           uuid PRIMARY KEY,  -- the command's ref is tr:ID
    source_id    uuid NOT NULL REFERENCES identity.account,
    target_id    uuid NOT NULL REFERENCES identity.account,
    asset        text NOT NULL,
    scale        smallint NOT NULL,
    amount_units bigint NOT NULL CHECK (amount_units > 0),
    fee_units    bigint NOT NULL CHECK (fee_units > 0),
    note         text NOT NULL,
    status       text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'failed')),
    reason       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (source_id <> target_id)
);
CREATE INDEX transfer_source ON money.transfer (source_id, id DESC);
CREATE INDEX transfer_target ON money.transfer (target_id, id DESC) WHERE status = 'completed';
