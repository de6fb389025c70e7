-- The exchange as a reader sees it: a projection of the event log, wiped and rebuilt at will.
--
-- Accounts, markets and assets are named by their index in the core. Prices are ticks, sizes lots, amounts units of the
-- asset. `side`, `type`, `tif`, `status`, `reason`, `phase` hold the numbers of engine.messages.codes; an order's status
-- has one more: 4, rejected. Times are those of the command. No foreign keys: the core has checked, and a projection
-- must not stumble over itself.

create schema exchange;

create table exchange.checkpoint (
    name        text primary key,
    sequence    bigint not null check (sequence >= 0),
    updated_at  timestamptz not null default now()
);
insert into exchange.checkpoint (name, sequence) values ('exchange', 0);

create table exchange.asset (
    index       integer primary key,
    name        text not null unique,
    scale       smallint not null,
    settled     boolean not null,
    sequence    bigint not null
);

create table exchange.market (
    index             integer primary key,
    name              text not null unique,
    base              integer not null,
    quote             integer not null,
    k                 bigint not null,      -- quote units of one tick x lot
    u                 bigint not null,      -- base units of one lot
    tick              bigint not null,      -- tick * 10^-tick_decimals is the price step
    tick_decimals     smallint not null,
    lot               bigint not null,
    lot_decimals      smallint not null,
    min_size          bigint,
    max_size          bigint,
    max_price         bigint,
    reference_price   bigint,
    pause_ns          bigint,
    entry_band_ppm    bigint,
    exec_band_ppm     bigint,
    taker_ppm         integer not null,
    maker_ppm         integer not null,
    phase             smallint not null,
    phase_reason      smallint not null default 0,
    sequence          bigint not null       -- of the last change
);

create table exchange.account (
    index             integer primary key,
    name              text not null unique,
    status            smallint not null,
    overdraft         smallint not null,
    mask              integer not null,     -- AccountMask: which of the next five are set
    taker_ppm         integer not null,
    maker_ppm         integer not null,
    max_open_orders   bigint not null,
    row               bytea,
    stp_group         text,
    sequence          bigint not null
);
-- The core makes these two before the first command, so no event ever defines them.
insert into exchange.account values
    (0, 'system:external', 0, 2, 0, 0, 0, 0, null, null, 0),
    (1, 'system:fees', 0, 2, 0, 0, 0, 0, null, null, 0);

create table exchange.orders (
    order_id        bigint primary key,     -- the sequence of its place command
    account         integer,
    market          integer,
    client_id       text,
    side            smallint,               -- null, like all below that a rejection does not tell
    type            smallint,
    tif             smallint,
    flags           smallint not null default 0,   -- PlaceFlag: 1 post_only, 2 size and leaves are quote units (budget)
    price           bigint,
    size            bigint,
    stop_price      bigint,
    display_size    bigint,
    expires_at      bigint,                 -- ns since 1970
    leaves          bigint not null default 0,     -- what may still trade; 0 once closed
    filled          bigint not null default 0,     -- lots
    notional        bigint not null default 0,     -- quote units, sum of its fills
    fee             bigint not null default 0,     -- quote units, negative for rebates
    status          smallint not null,
    reason          smallint,               -- CancelReason or RejectCode
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    sequence        bigint not null         -- of the last command that changed it
) with (fillfactor = 80);
create index orders_of_account on exchange.orders (account, order_id desc);
create index orders_live on exchange.orders (account, market) where status < 2;

create table exchange.trade (
    market            integer not null,
    trade_id          bigint not null,
    sequence          bigint not null,
    index             integer not null,
    price             bigint not null,
    size              bigint not null,
    notional          bigint not null,
    aggressor         smallint not null,    -- 0 buy, 1 sell, 2 none (uncross)
    maker_is_buyer    boolean not null,
    maker_order_id    bigint not null,
    maker_account     integer not null,
    maker_fee         bigint not null,
    taker_order_id    bigint not null,
    taker_account     integer not null,
    taker_fee         bigint not null,
    at                timestamptz not null,
    primary key (market, trade_id)
);
create index trade_of_maker on exchange.trade (maker_account, sequence desc);
create index trade_of_taker on exchange.trade (taker_account, sequence desc);

create table exchange.balance (
    account     integer not null,
    asset       integer not null,
    available   bigint not null,
    held        bigint not null check (held >= 0),
    sequence    bigint not null,
    primary key (account, asset)
) with (fillfactor = 50);

create table exchange.candle (
    market      integer not null,
    interval_s  integer not null,           -- 60, 3600, 86400
    start       timestamptz not null,
    open        bigint not null,
    high        bigint not null,
    low         bigint not null,
    close       bigint not null,
    volume      numeric(40) not null,       -- lots
    notional    numeric(40) not null,       -- quote units
    trades      bigint not null,
    sequence    bigint not null,
    primary key (market, interval_s, start)
);

-- One row for each transferred, pended, posted, voided; append-only. A ref's state is its latest row.
create table exchange.movement (
    sequence    bigint not null,
    index       integer not null,
    kind        smallint not null,          -- EventKind
    op          smallint not null,          -- CommandKind that caused it
    ref         text not null,
    code        text,
    memo        text,
    expired     boolean not null,
    at          timestamptz not null,
    primary key (sequence, index)
);
create index movement_of_ref on exchange.movement (ref, sequence desc, index desc);

create table exchange.posting (
    sequence    bigint not null,
    index       integer not null,
    leg         smallint not null,
    source      integer not null,
    asset       integer not null,
    amount      bigint not null check (amount > 0),
    target      integer not null,
    primary key (sequence, index, leg)
);
create index posting_of_source on exchange.posting (source, sequence desc);
create index posting_of_target on exchange.posting (target, sequence desc);

create table exchange.cut (
    batch           bigint primary key,
    first_sequence  bigint not null,
    last_sequence   bigint not null,
    state_hash      bytea not null,
    at              timestamptz not null
);
