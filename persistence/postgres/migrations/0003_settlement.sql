-- The settler's batches as a reader sees them. The settler's own log is the truth; it may be stored again at will.

create schema settlement;

create table settlement.batch (
    number          bigint primary key check (number > 0),
    first_sequence  bigint,
    last_sequence   bigint,
    status          text not null,
    digest          text,                   -- of the transaction on chain
    record          jsonb not null,         -- everything the settler says of it
    updated_at      timestamptz not null default now()
);
create index batch_sequences on settlement.batch (last_sequence, first_sequence);
create index batch_unfinished on settlement.batch (number) where status <> 'confirmed';
