-- Works of every kind, their versions for ever, chapters, files in their roles, collaborators, offers.

CREATE SCHEMA works;

CREATE TABLE works.work (
    id                  uuid PRIMARY KEY,
    creator_id          uuid NOT NULL,
    account_id          uuid NOT NULL REFERENCES identity.account,
    kind                text NOT NULL CHECK (
        kind IN ('document', 'video', 'audio', 'course', 'ip_asset', 'story', 'film')),
    title               text NOT NULL CHECK (length(title) BETWEEN 1 AND 255),
    description         text NOT NULL,
    category            text,
    genres              text[] NOT NULL,
    tags                text[] NOT NULL,
    language            text NOT NULL,
    metadata            jsonb NOT NULL,
    status              text NOT NULL DEFAULT 'draft' CHECK (
        status IN ('draft', 'in_review', 'published', 'suspended', 'archived', 'deleted')),
    verification_status text NOT NULL DEFAULT 'unsubmitted' CHECK (
        verification_status IN ('unsubmitted', 'pending', 'approved', 'rejected')),
    content_version     integer NOT NULL DEFAULT 0,
    sold                boolean NOT NULL DEFAULT false,  -- then it can only be archived
    published_at        timestamptz,
    version             bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    keywords            text NOT NULL,
    search_words        regconfig NOT NULL,
    search              tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('simple', title), 'A') || setweight(to_tsvector(search_words, title), 'A')
        || setweight(to_tsvector('simple', keywords), 'B') || setweight(to_tsvector(search_words, description), 'C')) STORED,
    CHECK (status NOT IN ('published', 'suspended', 'archived') OR published_at IS NOT NULL)
);
CREATE INDEX work_newest ON works.work (published_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX work_kind ON works.work (kind, published_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX work_category ON works.work (category, published_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX work_language ON works.work (language, published_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX work_creator ON works.work (creator_id, published_at DESC, id DESC) WHERE status = 'published';
CREATE INDEX work_title ON works.work (lower(title), id) WHERE status = 'published';
CREATE INDEX work_genres ON works.work USING gin (genres) WHERE status = 'published';
CREATE INDEX work_tags ON works.work USING gin (tags) WHERE status = 'published';
CREATE INDEX work_search ON works.work USING gin (search) WHERE status = 'published';
CREATE INDEX work_account ON works.work (account_id, status, id DESC);

CREATE FUNCTION works.versions_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'versions are kept for ever' USING ERRCODE = 'insufficient_privilege';
END;
$$;

-- `content` is what `sha256` is of, byte for byte (docs/decisions/0028).
CREATE TABLE works.work_version (
    work_id     uuid NOT NULL REFERENCES works.work,
    number      integer NOT NULL CHECK (number >= 1),
    content     bytea NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    change_note text NOT NULL,
    created_by  uuid NOT NULL REFERENCES identity.account,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (work_id, number)
);
CREATE INDEX work_version_sha256 ON works.work_version (sha256);
CREATE TRIGGER work_version_stays BEFORE UPDATE OR DELETE ON works.work_version
    FOR EACH ROW EXECUTE FUNCTION works.versions_stay();

-- Numbers are places, 1 … n without a gap; a deleted chapter has none. The body is in its version.
CREATE TABLE works.chapter (
    id               uuid PRIMARY KEY,
    work_id          uuid NOT NULL REFERENCES works.work,
    number           integer CHECK (number >= 1),
    title            text NOT NULL,
    preview          boolean NOT NULL,
    duration_seconds integer,
    status           text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'published', 'unpublished', 'deleted')),
    content_version  integer NOT NULL DEFAULT 0,
    published_at     timestamptz,
    version          bigint NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chapter_number UNIQUE (work_id, number) DEFERRABLE INITIALLY DEFERRED,
    CHECK ((status = 'deleted') = (number IS NULL))
);

CREATE TABLE works.chapter_version (
    chapter_id  uuid NOT NULL REFERENCES works.chapter,
    number      integer NOT NULL CHECK (number >= 1),
    title       text NOT NULL,
    body        text,
    file_id     uuid,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    change_note text NOT NULL,
    created_by  uuid NOT NULL REFERENCES identity.account,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chapter_id, number),
    CHECK ((body IS NULL) <> (file_id IS NULL))
);
CREATE INDEX chapter_version_sha256 ON works.chapter_version (sha256);
CREATE TRIGGER chapter_version_stays BEFORE UPDATE OR DELETE ON works.chapter_version
    FOR EACH ROW EXECUTE FUNCTION works.versions_stay();

CREATE TABLE works.asset (
    id         uuid PRIMARY KEY,
    work_id    uuid NOT NULL REFERENCES works.work,
    role       text NOT NULL CHECK (role IN ('master', 'preview', 'poster', 'trailer', 'image', 'attachment')),
    file_id    uuid NOT NULL,
    name       text NOT NULL,
    type       text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
CREATE INDEX asset_work ON works.asset (work_id, id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX asset_once ON works.asset (work_id, file_id, role) WHERE removed_at IS NULL;
CREATE INDEX asset_file ON works.asset (file_id) WHERE removed_at IS NULL;

-- The owner has what is left of 10,000.
CREATE TABLE works.collaborator (
    work_id    uuid NOT NULL REFERENCES works.work,
    account_id uuid NOT NULL REFERENCES identity.account,
    role       text NOT NULL,
    share_bps  integer NOT NULL CHECK (share_bps BETWEEN 0 AND 10000),
    PRIMARY KEY (work_id, account_id)
);
CREATE INDEX collaborator_account ON works.collaborator (account_id);

CREATE TABLE works.collaborator_change (
    id          uuid PRIMARY KEY,
    work_id     uuid NOT NULL REFERENCES works.work,
    lines       jsonb NOT NULL,
    status      text NOT NULL CHECK (status IN ('pending', 'effective', 'declined', 'superseded')),
    proposed_by uuid NOT NULL REFERENCES identity.account,
    proposed_at timestamptz NOT NULL DEFAULT now(),
    decided_at  timestamptz
);
CREATE UNIQUE INDEX collaborator_change_open ON works.collaborator_change (work_id) WHERE status = 'pending';

CREATE TABLE works.collaborator_consent (
    change_id  uuid NOT NULL REFERENCES works.collaborator_change,
    account_id uuid NOT NULL REFERENCES identity.account,
    agreed     boolean,  -- null: no answer yet
    decided_at timestamptz,
    PRIMARY KEY (change_id, account_id)
);

CREATE TABLE works.offer (
    id             uuid PRIMARY KEY,
    work_id        uuid NOT NULL REFERENCES works.work,
    chapter_id     uuid REFERENCES works.chapter,
    kind           text NOT NULL CHECK (kind IN ('purchase', 'rent', 'ppv', 'coin')),
    asset          text NOT NULL,
    scale          smallint NOT NULL CHECK (scale BETWEEN 0 AND 9),
    price_units    bigint NOT NULL CHECK (price_units > 0),
    access_seconds bigint CHECK (access_seconds > 0),
    active         boolean NOT NULL DEFAULT true,
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'coin') = (asset = 'COIN')),
    CHECK ((kind = 'rent') <= (access_seconds IS NOT NULL))
);
CREATE INDEX offer_work ON works.offer (work_id, id);
CREATE UNIQUE INDEX offer_once ON works.offer (work_id, coalesce(chapter_id, work_id), kind, asset) WHERE active;

CREATE TABLE works.verification_case (
    id           uuid PRIMARY KEY,
    work_id      uuid NOT NULL REFERENCES works.work,
    statement    text NOT NULL,
    status       text NOT NULL CHECK (status IN ('pending', 'approved', 'rejected')),
    submitted_at timestamptz NOT NULL DEFAULT now(),
    decided_at   timestamptz,
    decided_by   uuid REFERENCES identity.account,
    reason       text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX work_case_open ON works.verification_case (work_id) WHERE status = 'pending';
CREATE INDEX work_case_status ON works.verification_case (status, id);
