-- Copyrights and licences on the chain: what is to stand there, the signed bytes that bring it there, certificates.

CREATE SCHEMA registry;

-- A version of a work or of a chapter; `title` and `author` as they were. `address` is the author's wallet, which the
-- chain names. A content is registered once, whoever asks.
CREATE TABLE registry.registration (
    id            uuid PRIMARY KEY,
    account_id    uuid NOT NULL REFERENCES identity.account,
    creator_id    uuid NOT NULL,
    work_id       uuid NOT NULL,
    chapter_id    uuid,
    number        integer NOT NULL CHECK (number >= 1),
    sha256        bytea NOT NULL CHECK (octet_length(sha256) = 32),
    title         text NOT NULL,
    author        text NOT NULL,
    address       bytea NOT NULL CHECK (octet_length(address) = 32),
    uri           text NOT NULL,
    status        text NOT NULL CHECK (status IN ('pending', 'submitted', 'registered', 'failed')),
    reason        text NOT NULL DEFAULT '',
    tries         integer NOT NULL DEFAULT 0,
    try_at        timestamptz NOT NULL DEFAULT now(),
    object_id     text,
    cap_id        text,
    digest        text,
    registered_at timestamptz,  -- the chain's clock
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'registered') = (object_id IS NOT NULL AND cap_id IS NOT NULL AND registered_at IS NOT NULL)),
    CHECK ((status = 'failed') = (reason <> ''))
);
CREATE UNIQUE INDEX registration_once ON registry.registration (sha256) WHERE status <> 'failed';
CREATE INDEX registration_work ON registry.registration (work_id, id DESC);
CREATE INDEX registration_open ON registry.registration (account_id) WHERE status IN ('pending', 'submitted');
CREATE INDEX registration_due ON registry.registration (try_at) WHERE status = 'pending';

-- One object on the chain for each paid period of a licence; `id` is the period's.
CREATE TABLE registry.license_record (
    id              uuid PRIMARY KEY,
    license_id      uuid NOT NULL,
    work_id         uuid NOT NULL,
    licensor_id     uuid NOT NULL REFERENCES identity.account,
    licensee_id     uuid NOT NULL REFERENCES identity.account,
    terms           text NOT NULL,  -- what `terms_hash` is of
    terms_hash      bytea NOT NULL CHECK (octet_length(terms_hash) = 32),
    ends_at         timestamptz NOT NULL,
    registration_id uuid REFERENCES registry.registration,  -- null: the work is not registered yet
    address         bytea CHECK (octet_length(address) = 32),  -- the licensee's wallet, once it is signed
    revoked         boolean NOT NULL DEFAULT false,
    status          text NOT NULL CHECK (
        status IN ('waiting', 'submitted', 'issued', 'revoking', 'revoked', 'dropped', 'failed')),
    reason          text NOT NULL DEFAULT '',
    tries           integer NOT NULL DEFAULT 0,
    try_at          timestamptz NOT NULL DEFAULT now(),
    object_id       text,
    digest          text,
    issued_at       timestamptz,
    expires_at      timestamptz,
    revoke_digest   text,
    revoked_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK ((status IN ('issued', 'revoking', 'revoked')) = (object_id IS NOT NULL)),
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
CREATE INDEX license_record_license ON registry.license_record (license_id, id);
CREATE INDEX license_record_work ON registry.license_record (work_id) WHERE status = 'waiting' AND registration_id IS NULL;
CREATE INDEX license_record_due ON registry.license_record (try_at)
    WHERE status = 'waiting' AND registration_id IS NOT NULL;
CREATE INDEX license_record_revoked ON registry.license_record (try_at) WHERE status = 'issued' AND revoked;

-- Signed bytes, kept before they are sent. One is under way at a time: whoever finds one goes on with it.
CREATE TABLE registry.chain_tx (
    id          uuid PRIMARY KEY,
    purpose     text NOT NULL CHECK (purpose IN ('registration', 'license', 'revocation')),
    document_id uuid NOT NULL,
    raw         bytea NOT NULL,
    signature   bytea NOT NULL,
    digest      text NOT NULL UNIQUE,
    status      text NOT NULL CHECK (status IN ('signed', 'submitted', 'executed', 'aborted', 'refused')),
    error       text NOT NULL DEFAULT '',
    gas_mist    bigint,
    checkpoint  bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX chain_tx_under_way ON registry.chain_tx ((true)) WHERE status IN ('signed', 'submitted');
CREATE INDEX chain_tx_document ON registry.chain_tx (document_id, id);

-- Who signs certificates: a certificate of the operator's own, its key sealed (column keys).
CREATE TABLE registry.signer (
    id          uuid PRIMARY KEY,
    certificate bytea NOT NULL,  -- X.509, DER
    sealed_key  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- The signed PDF of a registration, as it was handed out first.
CREATE TABLE registry.certificate (
    registration_id uuid PRIMARY KEY REFERENCES registry.registration,
    number          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    signer_id       uuid NOT NULL REFERENCES registry.signer,
    document        bytea NOT NULL,
    sha256          bytea NOT NULL CHECK (octet_length(sha256) = 32),
    issued_at       timestamptz NOT NULL
);
