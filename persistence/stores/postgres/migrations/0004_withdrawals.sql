-- Withdrawals as documents: who asked for what, to where, and how far it is. Money itself moves in the core alone.

CREATE SCHEMA IF NOT EXISTS money;

CREATE TABLE money.withdrawal_address (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES identity.account,
    address    bytea NOT NULL CHECK (octet_length(address) = 32),
    label      text NOT NULL DEFAULT '',
    added_at   timestamptz NOT NULL DEFAULT now(),
    usable_at  timestamptz NOT NULL,  -- a stolen session cannot add an address and use it at once
    removed_at timestamptz
);
CREATE UNIQUE INDEX withdrawal_address_one ON money.withdrawal_address (account_id, address) WHERE removed_at IS NULL;

CREATE TABLE money.withdrawal (
    id           uuid PRIMARY KEY,
    number       bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    account_id   uuid NOT NULL REFERENCES identity.account,
    asset        text NOT NULL,
    amount       text NOT NULL,     -- decimal, as the core's command has it
    fee          text NOT NULL,
    recipient    bytea NOT NULL CHECK (octet_length(recipient) = 32),
    ref          text NOT NULL UNIQUE,
    command      jsonb NOT NULL,    -- the finished command: nothing is read again when it is sent again
    message      text NOT NULL,     -- what the wallet signs to confirm
    status       text NOT NULL CHECK (status IN (
        'requested', 'held', 'confirmed', 'released', 'settled', 'canceling', 'canceled', 'failed')),
    reason       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    confirm_by   timestamptz NOT NULL,
    not_before   timestamptz NOT NULL,
    confirmed_at timestamptz,
    batch        bigint,
    digest       text
);
CREATE INDEX withdrawal_account ON money.withdrawal (account_id, number DESC);
CREATE INDEX withdrawal_open ON money.withdrawal (status) WHERE status NOT IN ('settled', 'canceled', 'failed');
