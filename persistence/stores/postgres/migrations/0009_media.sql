-- Files: uploads in parts, and what became of them. The bytes are in the blob store.

CREATE SCHEMA media;

CREATE TABLE media.upload (
    id            uuid PRIMARY KEY,
    account_id    uuid NOT NULL REFERENCES identity.account,
    name          text NOT NULL,
    declared_type text NOT NULL,
    size_bytes    bigint NOT NULL CHECK (size_bytes > 0),
    part_bytes    bigint NOT NULL CHECK (part_bytes > 0),
    part_count    integer NOT NULL CHECK (part_count BETWEEN 1 AND 10000),
    sha256        bytea CHECK (octet_length(sha256) = 32),  -- as declared; null: not declared
    status        text NOT NULL DEFAULT 'receiving' CHECK (
        status IN ('receiving', 'scanning', 'ready', 'failed', 'expired')),
    problem       text,
    file_id       uuid,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    CHECK ((status = 'failed') = (problem IS NOT NULL)),
    CHECK (status NOT IN ('scanning', 'ready') OR file_id IS NOT NULL)
);
CREATE INDEX upload_account ON media.upload (account_id, id DESC);
CREATE INDEX upload_open ON media.upload (account_id) WHERE status IN ('receiving', 'scanning');
CREATE INDEX upload_due ON media.upload (expires_at) WHERE status = 'receiving';

CREATE TABLE media.upload_part (
    upload_id   uuid NOT NULL REFERENCES media.upload,
    number      integer NOT NULL CHECK (number >= 1),
    storage_key text NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    PRIMARY KEY (upload_id, number)
);

-- Only what was checked is here: a row is a file that may be used.
CREATE TABLE media.file_object (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES identity.account,
    storage_key text NOT NULL UNIQUE,
    name        text NOT NULL,
    type        text NOT NULL,
    size_bytes  bigint NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    public      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX file_object_account ON media.file_object (account_id, id DESC);
