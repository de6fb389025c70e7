-- Creators' tokens: who holds which symbol, what was launched, and the commands that the core has to hear for them.

CREATE SCHEMA tokens;

CREATE TABLE tokens.symbol_reservation (
    id          uuid PRIMARY KEY,
    symbol      text NOT NULL CHECK (symbol ~ '^[A-Z][A-Z0-9]{2,9}$'),
    account_id  uuid NOT NULL REFERENCES identity.account,
    status      text NOT NULL DEFAULT 'held' CHECK (status IN ('held', 'used', 'expired')),
    reserved_at timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX symbol_reservation_live ON tokens.symbol_reservation (symbol) WHERE status <> 'expired';
CREATE INDEX symbol_reservation_held ON tokens.symbol_reservation (account_id) WHERE status = 'held';

CREATE TABLE tokens.token (
    id           uuid PRIMARY KEY,
    creator_id   uuid NOT NULL,
    account_id   uuid NOT NULL REFERENCES identity.account,
    symbol       text NOT NULL CHECK (symbol ~ '^[A-Z][A-Z0-9]{2,9}$'),
    name         text NOT NULL,
    description  text NOT NULL,
    decimals     smallint NOT NULL CHECK (decimals BETWEEN 0 AND 9),
    total_supply bigint NOT NULL CHECK (total_supply > 0),  -- units
    sale_size    bigint NOT NULL CHECK (sale_size > 0 AND sale_size <= total_supply),
    start_price  text NOT NULL,                             -- decimal, in the quote asset
    quote_asset  text NOT NULL,
    market       text NOT NULL,
    status       text NOT NULL DEFAULT 'reserved' CHECK (
        status IN ('reserved', 'minted', 'listed', 'halted', 'delisted', 'failed')),
    problem      text,
    version      bigint NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    minted_at    timestamptz,
    listed_at    timestamptz,
    delisted_at  timestamptz,
    CHECK ((status = 'failed') = (problem IS NOT NULL))
);
CREATE UNIQUE INDEX token_creator ON tokens.token (creator_id) WHERE status <> 'failed';
CREATE UNIQUE INDEX token_symbol ON tokens.token (symbol) WHERE status <> 'failed';
CREATE UNIQUE INDEX token_market ON tokens.token (market) WHERE status <> 'failed';
CREATE INDEX token_public ON tokens.token (id DESC) WHERE status NOT IN ('reserved', 'failed');
CREATE INDEX token_status ON tokens.token (status, id DESC);

-- Written in the transaction of the document it belongs to; sent in order, one market after the other, until the core
-- has answered. `body` is the finished command: nothing is read again when it is sent again.
CREATE TABLE tokens.command (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    market     text NOT NULL,
    token_id   uuid REFERENCES tokens.token,
    step       text NOT NULL CHECK (step IN (
        'asset', 'account', 'payee', 'market', 'mint', 'share', 'sale', 'uncross', 'open', 'halt', 'resume', 'close',
        'proceeds')),
    ref        text NOT NULL UNIQUE,
    body       jsonb NOT NULL,
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'refused')),
    reason     text,
    sequence   bigint,  -- of the command in the core's journal
    actor      uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    decided_at timestamptz,
    CHECK ((state = 'waiting') = (decided_at IS NULL))
);
CREATE INDEX command_waiting ON tokens.command (market, id) WHERE state = 'waiting';
CREATE INDEX command_token ON tokens.command (token_id, id DESC);
CREATE UNIQUE INDEX command_proceeds ON tokens.command (token_id) WHERE step = 'proceeds' AND state = 'waiting';

-- Who holds an asset: (account_id, asset_id) is the key, and these columns of a row never change.
CREATE INDEX balance_asset ON exchange.balance (asset_id, account_id);
