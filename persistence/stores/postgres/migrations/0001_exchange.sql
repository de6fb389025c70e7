-- What the projector writes from the events, and the API reads. Prices are ticks, sizes lots, amounts units: bigint.
-- The small integer ids are the core's own indexes.

CREATE SCHEMA IF NOT EXISTS exchange;
CREATE SCHEMA IF NOT EXISTS settlement;

CREATE TABLE exchange.projection (
    name       text PRIMARY KEY,
    sequence   bigint NOT NULL,
    journal    bytea NOT NULL,  -- identity of the journal that the rows come from
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE exchange.asset (
    id      bigint PRIMARY KEY,
    name    text NOT NULL UNIQUE,
    scale   smallint NOT NULL CHECK (scale BETWEEN 0 AND 9),
    settled boolean NOT NULL
);

CREATE TABLE exchange.market (
    id            bigint PRIMARY KEY,
    name          text NOT NULL UNIQUE,
    base_id       bigint NOT NULL REFERENCES exchange.asset,
    quote_id      bigint NOT NULL REFERENCES exchange.asset,
    tick          bigint NOT NULL CHECK (tick > 0),
    tick_decimals smallint NOT NULL,
    lot           bigint NOT NULL CHECK (lot > 0),
    lot_decimals  smallint NOT NULL,
    min_size      bigint NOT NULL,
    max_size      bigint NOT NULL,
    max_price     bigint NOT NULL,
    taker_ppm     integer NOT NULL,
    maker_ppm     integer NOT NULL,
    k             bigint NOT NULL,  -- quote units of one tick × one lot
    u             bigint NOT NULL,  -- base units of one lot
    entry_band_ppm  bigint NOT NULL,
    exec_band_ppm   bigint NOT NULL,
    pause_ns        bigint NOT NULL,
    reference_price bigint NOT NULL,
    phase         text NOT NULL
);

CREATE TABLE exchange.account (
    id        bigint PRIMARY KEY,
    name      text NOT NULL UNIQUE,
    status    text NOT NULL,
    overdraft text NOT NULL,
    row       bytea,
    mask            bigint NOT NULL,  -- which of the next four were ever set
    taker_ppm       integer NOT NULL,
    maker_ppm       integer NOT NULL,
    max_open_orders bigint NOT NULL,
    stp_group       text NOT NULL
);

CREATE TABLE exchange.orders (
    order_id     bigint PRIMARY KEY,
    account_id   bigint NOT NULL,
    market_id    bigint NOT NULL,
    client_id    text NOT NULL,
    side         text NOT NULL CHECK (side IN ('buy', 'sell')),
    type         text NOT NULL,
    tif          text NOT NULL,
    price        bigint,
    stop_price   bigint,
    size         bigint,
    budget       bigint,
    leaves       bigint NOT NULL,
    filled       bigint NOT NULL DEFAULT 0,
    fee          bigint NOT NULL DEFAULT 0,
    status       text NOT NULL CHECK (status IN ('waiting', 'open', 'filled', 'canceled')),
    reason       text,
    accepted_at  timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);
CREATE INDEX orders_account ON exchange.orders (account_id, order_id DESC);
CREATE INDEX orders_account_open ON exchange.orders (account_id, order_id DESC) WHERE status IN ('waiting', 'open');
CREATE INDEX orders_client_id ON exchange.orders (account_id, client_id);

CREATE TABLE exchange.trade (
    market_id      bigint NOT NULL,
    trade_id       bigint NOT NULL,
    sequence       bigint NOT NULL,
    event_index    bigint NOT NULL,
    traded_at      timestamptz NOT NULL,
    price          bigint NOT NULL,
    size           bigint NOT NULL,
    notional       bigint NOT NULL,
    aggressor      text NOT NULL,
    maker_account_id bigint NOT NULL,
    maker_order_id bigint NOT NULL,
    maker_fee      bigint NOT NULL,
    taker_account_id bigint NOT NULL,
    taker_order_id bigint NOT NULL,
    taker_fee      bigint NOT NULL,
    PRIMARY KEY (market_id, trade_id)
);
CREATE INDEX trade_sequence ON exchange.trade (sequence, event_index);
CREATE INDEX trade_maker ON exchange.trade (maker_account_id, sequence, event_index);
CREATE INDEX trade_taker ON exchange.trade (taker_account_id, sequence, event_index);

CREATE TABLE exchange.balance (
    account_id bigint NOT NULL,
    asset_id   bigint NOT NULL,
    available  bigint NOT NULL,
    held       bigint NOT NULL,
    sequence   bigint NOT NULL,
    PRIMARY KEY (account_id, asset_id)
);

CREATE TABLE exchange.candle (
    market_id        bigint NOT NULL,
    interval_seconds integer NOT NULL,
    opened_at        timestamptz NOT NULL,
    open             bigint NOT NULL,
    high             bigint NOT NULL,
    low              bigint NOT NULL,
    close            bigint NOT NULL,
    volume           numeric(39) NOT NULL,  -- a day's sum may exceed a bigint
    quote_volume     numeric(39) NOT NULL,
    trade_count      bigint NOT NULL,
    PRIMARY KEY (market_id, interval_seconds, opened_at)
);

CREATE TABLE settlement.batch (
    number         bigint PRIMARY KEY,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    cut_at         timestamptz NOT NULL,
    status         text NOT NULL,
    state_hash     bytea,
    root           bytea,
    trades_digest  bytea,
    leg_count      integer NOT NULL DEFAULT 0,
    digests        text[] NOT NULL DEFAULT '{}',
    committed_at   timestamptz,
    error          text
);
