-- Who people are. Written by the REST process alone; no part of the projection. Secrets stand here as hashes only.

create schema identity;

create table identity.account (
    id              uuid primary key,
    username        text not null check (length(username) between 1 and 64),
    display_name    text check (length(display_name) <= 128),
    email           text check (length(email) <= 254),
    status          text not null default 'active' check (status in ('active', 'suspended', 'banned', 'closed')),
    core_account    text not null unique check (core_account ~ '^user:[A-Za-z0-9_.:-]{1,59}$'),
    preferences     jsonb not null default '{}',
    permission_version integer not null default 1,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    last_login_at   timestamptz,
    version         bigint not null default 1
);
create unique index account_username on identity.account (lower(username));
create unique index account_email on identity.account (lower(email)) where email is not null;

create table identity.wallet (
    id          uuid primary key,
    account_id  uuid not null references identity.account,
    chain       text not null default 'sui' check (chain = 'sui'),
    address     bytea not null check (length(address) = 32),
    public_key  bytea not null,
    scheme      text not null check (scheme in ('ed25519', 'secp256k1', 'secp256r1', 'multisig', 'zklogin', 'passkey')),
    is_primary  boolean not null default false,
    linked_at   timestamptz not null default now(),
    revoked_at  timestamptz
);
create unique index wallet_active on identity.wallet (chain, address) where revoked_at is null;
create unique index wallet_primary on identity.wallet (account_id) where is_primary and revoked_at is null;
create index wallet_of_account on identity.wallet (account_id);

create table identity.auth_nonce (
    nonce       text primary key,
    address     bytea not null check (length(address) = 32),
    domain      text not null,
    purpose     text not null,
    message     text not null,
    issued_at   timestamptz not null default now(),
    expires_at  timestamptz not null,
    consumed_at timestamptz
);
create index auth_nonce_expiry on identity.auth_nonce (expires_at);

create table identity.session (
    id          uuid primary key,
    account_id  uuid not null references identity.account,
    created_at  timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    expires_at  timestamptz not null,
    revoked_at  timestamptz,
    ip          inet,
    user_agent  text check (length(user_agent) <= 512)
);
create index session_of_account on identity.session (account_id) where revoked_at is null;

create table identity.refresh_token (
    id          uuid primary key,
    session_id  uuid not null references identity.session,
    hash        bytea not null unique check (length(hash) = 32),
    parent_id   uuid references identity.refresh_token,
    issued_at   timestamptz not null default now(),
    expires_at  timestamptz not null,
    used_at     timestamptz
);
create index refresh_token_of_session on identity.refresh_token (session_id);

create table identity.api_key (
    id          uuid primary key,
    account_id  uuid not null references identity.account,
    name        text not null default '' check (length(name) <= 64),
    public_key  bytea not null unique check (length(public_key) = 32),
    scopes      text[] not null check (scopes <@ array['read', 'trade']),
    created_at  timestamptz not null default now(),
    last_used_at timestamptz,
    revoked_at  timestamptz
);
create index api_key_of_account on identity.api_key (account_id);

create table identity.idempotency_record (
    account_id      uuid not null references identity.account,
    route           text not null,
    key             text not null check (length(key) between 1 and 255),
    request_digest  bytea not null check (length(request_digest) = 32),
    status_code     smallint,               -- null while the request runs
    response        bytea,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    primary key (account_id, route, key)
);
create index idempotency_expiry on identity.idempotency_record (expires_at);
