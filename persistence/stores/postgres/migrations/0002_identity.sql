-- People: accounts, wallets, sessions, API keys, and the answers kept for repeated requests. Written by the REST API.

CREATE SCHEMA IF NOT EXISTS identity;

CREATE TABLE identity.account (
    id                 uuid PRIMARY KEY,
    username           text CHECK (username ~ '^[A-Za-z0-9_-]{3,32}$'),
    display_name       text NOT NULL DEFAULT '',
    bio                text NOT NULL DEFAULT '',
    status             text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'banned', 'closed')),
    preferences        jsonb NOT NULL DEFAULT '{}',
    permission_version bigint NOT NULL DEFAULT 1,
    version            bigint NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    last_login_at      timestamptz
);
CREATE UNIQUE INDEX account_username ON identity.account (lower(username));

CREATE TABLE identity.wallet (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES identity.account,
    chain      text NOT NULL,
    address    bytea NOT NULL CHECK (octet_length(address) = 32),
    public_key bytea NOT NULL,
    scheme     text NOT NULL CHECK (scheme IN ('ed25519', 'secp256k1', 'secp256r1', 'multisig')),
    is_primary boolean NOT NULL,
    linked_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE UNIQUE INDEX wallet_address ON identity.wallet (chain, address) WHERE revoked_at IS NULL;
CREATE INDEX wallet_account ON identity.wallet (account_id);

CREATE TABLE identity.auth_nonce (
    nonce       text PRIMARY KEY CHECK (nonce ~ '^[0-9a-f]{32}$'),
    address     bytea NOT NULL CHECK (octet_length(address) = 32),
    domain      text NOT NULL,
    purpose     text NOT NULL,
    issued_at   timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    consumed_at timestamptz
);
CREATE INDEX auth_nonce_expiry ON identity.auth_nonce (expires_at);

CREATE TABLE identity.session (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES identity.account,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    ip         inet,
    user_agent text NOT NULL DEFAULT ''
);
CREATE INDEX session_account ON identity.session (account_id);

CREATE TABLE identity.refresh_token (
    id         uuid PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES identity.session,
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    parent_id  uuid REFERENCES identity.refresh_token,
    used_at    timestamptz,
    expires_at timestamptz NOT NULL
);
CREATE INDEX refresh_token_session ON identity.refresh_token (session_id);

CREATE TABLE identity.api_key (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES identity.account,
    public_key   bytea NOT NULL UNIQUE CHECK (octet_length(public_key) = 32),
    scopes       text[] NOT NULL,
    label        text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_key_account ON identity.api_key (account_id);

CREATE TABLE identity.idempotency_record (
    account_id uuid NOT NULL REFERENCES identity.account,
    route      text NOT NULL,
    key        text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    digest     bytea NOT NULL,
    status     smallint,
    response   bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, route, key)
);
CREATE INDEX idempotency_record_age ON identity.idempotency_record (created_at);
