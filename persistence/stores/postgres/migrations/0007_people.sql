-- Ethereum wallets, devices, roles, e-mail addresses (sealed), and proofs for a second purpose.

ALTER TABLE identity.wallet
    DROP CONSTRAINT wallet_address_check,
    DROP CONSTRAINT wallet_scheme_check,
    ADD CONSTRAINT wallet_chain_address CHECK (
        chain = 'sui' AND octet_length(address) = 32 AND scheme IN ('ed25519', 'secp256k1', 'secp256r1', 'multisig')
        OR chain = 'ethereum' AND octet_length(address) = 20 AND scheme = 'eip191'
    );

ALTER TABLE identity.auth_nonce
    DROP CONSTRAINT auth_nonce_address_check,
    ADD COLUMN chain text NOT NULL DEFAULT 'sui',
    ADD COLUMN account_id uuid REFERENCES identity.account,  -- for whom, where the purpose is not a sign-in
    ADD CONSTRAINT auth_nonce_chain_address CHECK (
        chain = 'sui' AND octet_length(address) = 32 OR chain = 'ethereum' AND octet_length(address) = 20
    ),
    ADD CONSTRAINT auth_nonce_purpose CHECK (
        purpose = 'sign_in' AND account_id IS NULL OR purpose IN ('link_wallet', 'step_up') AND account_id IS NOT NULL
    );

CREATE TABLE identity.device (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES identity.account,
    kind         text NOT NULL CHECK (kind IN ('web', 'mobile', 'desktop', 'tv', 'program')),
    name         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);
CREATE UNIQUE INDEX device_name ON identity.device (account_id, kind, name) WHERE revoked_at IS NULL;

ALTER TABLE identity.session
    ADD COLUMN device_id    uuid REFERENCES identity.device,
    ADD COLUMN wallet_id    uuid REFERENCES identity.wallet,
    ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN proved_at    timestamptz NOT NULL DEFAULT now();  -- when a wallet last signed for it
CREATE INDEX session_device ON identity.session (device_id);

CREATE TABLE identity.role_grant (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES identity.account,
    role        text NOT NULL CHECK (role IN (
        'creator', 'secondary_creator', 'studio', 'moderator', 'admin', 'operator', 'super_admin')),
    departments text[] NOT NULL DEFAULT '{}' CHECK (
        departments <@ ARRAY['content', 'payments', 'users', 'analytics'] AND (departments = '{}' OR role = 'admin')),
    granted_by  uuid REFERENCES identity.account,  -- null: the command line, or a rule of the platform
    granted_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE UNIQUE INDEX role_grant_once ON identity.role_grant (account_id, role) WHERE revoked_at IS NULL;

-- An address is sealed (AES-256-GCM); the digest is keyed, so that equal addresses meet without being readable.
ALTER TABLE identity.account
    ADD COLUMN email_sealed      bytea,
    ADD COLUMN email_digest      bytea CHECK (octet_length(email_digest) = 32),
    ADD COLUMN email_verified_at timestamptz,
    ADD COLUMN avatar_url        text NOT NULL DEFAULT '',
    ADD COLUMN cover_url         text NOT NULL DEFAULT '',
    ADD CONSTRAINT account_email CHECK (
        (email_sealed IS NULL) = (email_digest IS NULL) AND (email_sealed IS NULL) = (email_verified_at IS NULL));
CREATE UNIQUE INDEX account_email_digest ON identity.account (email_digest);

CREATE TABLE identity.email_token (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES identity.account,
    hash         bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    email_sealed bytea NOT NULL,
    email_digest bytea NOT NULL CHECK (octet_length(email_digest) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);
CREATE INDEX email_token_account ON identity.email_token (account_id, created_at);

-- The primary wallet is where the account is settled; only a Sui wallet can be.
ALTER TABLE identity.wallet ADD CONSTRAINT wallet_primary_is_sui CHECK (NOT is_primary OR chain = 'sui');
CREATE UNIQUE INDEX wallet_primary ON identity.wallet (account_id) WHERE is_primary AND revoked_at IS NULL;

UPDATE identity.session s SET wallet_id = (
    SELECT w.id FROM identity.wallet w WHERE w.account_id = s.account_id ORDER BY w.is_primary DESC, w.linked_at LIMIT 1);
ALTER TABLE identity.session ALTER COLUMN wallet_id SET NOT NULL;
