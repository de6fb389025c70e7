-- Licences: terms, applications, licences with their periods, the chain of authorizations, seats, release windows.

CREATE EXTENSION IF NOT EXISTS btree_gist;  -- equality beside ranges in exclusion constraints
CREATE SCHEMA licensing;

-- `territories` is what was written, `territory_list` the code list that it meant then; sets are numbers of
-- platform_api/licensing/measures.py.
CREATE TABLE licensing.license_terms (
    id                uuid PRIMARY KEY,
    work_id           uuid NOT NULL,
    licensor_id       uuid NOT NULL REFERENCES identity.account,
    license_type      text NOT NULL CHECK (license_type IN ('standard', 'premium', 'exclusive', 'enterprise')),
    revenue_share_bps integer NOT NULL CHECK (revenue_share_bps BETWEEN 0 AND 10000),
    asset             text NOT NULL,
    scale             smallint NOT NULL CHECK (scale BETWEEN 0 AND 18),
    fee_units         bigint NOT NULL CHECK (fee_units >= 0),
    territories       text[] NOT NULL CHECK (cardinality(territories) >= 1),
    territory_list    text NOT NULL,
    duration          text NOT NULL,
    scope             text[] NOT NULL CHECK (cardinality(scope) >= 1),
    requirements      text NOT NULL,
    restrictions      text NOT NULL,
    sublicensing      boolean NOT NULL,
    auto_approve      boolean NOT NULL,
    max_licenses      integer CHECK (max_licenses >= 1),
    seats             integer CHECK (seats >= 1),
    active            boolean NOT NULL DEFAULT true,
    version           bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CHECK (license_type = 'enterprise' OR seats IS NULL)
);
CREATE INDEX license_terms_work ON licensing.license_terms (work_id, id) WHERE active;

CREATE TABLE licensing.license_application (
    id            uuid PRIMARY KEY,
    work_id       uuid NOT NULL,
    terms_id      uuid NOT NULL REFERENCES licensing.license_terms,
    terms_version bigint NOT NULL,
    terms         jsonb NOT NULL,  -- as they were
    licensor_id   uuid NOT NULL REFERENCES identity.account,
    applicant_id  uuid NOT NULL REFERENCES identity.account,
    territories   text[] NOT NULL,
    starts_at     timestamptz,
    purpose       text NOT NULL,
    status        text NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'withdrawn')),
    decided_by    uuid REFERENCES identity.account,
    decided_at    timestamptz,
    reason        text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    version       bigint NOT NULL DEFAULT 1,
    CHECK (applicant_id <> licensor_id)
);
CREATE UNIQUE INDEX license_application_once ON licensing.license_application (terms_id, applicant_id)
    WHERE status = 'pending';
CREATE INDEX license_application_applicant ON licensing.license_application (applicant_id, id DESC);
CREATE INDEX license_application_licensor ON licensing.license_application (licensor_id, id DESC);
CREATE INDEX license_application_pending ON licensing.license_application (id) WHERE status = 'pending';

-- `level`: the licence above, or the work. Licences of one level are those that can be in each other's way (decision 0032).
CREATE TABLE licensing.license (
    id                uuid PRIMARY KEY,
    work_id           uuid NOT NULL,
    level             uuid NOT NULL,
    parent_license_id uuid REFERENCES licensing.license,
    depth             smallint NOT NULL CHECK (depth BETWEEN 1 AND 16),
    application_id    uuid UNIQUE REFERENCES licensing.license_application,
    terms_id          uuid REFERENCES licensing.license_terms,
    terms_version     bigint,
    licensor_id       uuid NOT NULL REFERENCES identity.account,
    licensee_id       uuid NOT NULL REFERENCES identity.account,
    license_type      text NOT NULL CHECK (license_type IN ('standard', 'premium', 'exclusive', 'enterprise')),
    revenue_share_bps integer NOT NULL CHECK (revenue_share_bps BETWEEN 0 AND 10000),
    asset             text NOT NULL,
    scale             smallint NOT NULL CHECK (scale BETWEEN 0 AND 18),
    fee_units         bigint NOT NULL CHECK (fee_units >= 0),
    territories       text[] NOT NULL,
    territory_list    text NOT NULL,
    territory_set     int4multirange NOT NULL CHECK (NOT isempty(territory_set)),
    scope             text[] NOT NULL,
    scope_set         int4multirange NOT NULL CHECK (NOT isempty(scope_set)),
    duration          text NOT NULL,
    requirements      text NOT NULL,
    restrictions      text NOT NULL,
    sublicensing      boolean NOT NULL,
    seats             integer CHECK (seats >= 1),
    status            text NOT NULL CHECK (status IN ('pending_payment', 'active', 'suspended', 'expired', 'revoked')),
    starts_at         timestamptz,
    ends_at           timestamptz,
    reason            text NOT NULL DEFAULT '',
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    version           bigint NOT NULL DEFAULT 1,
    CHECK (licensor_id <> licensee_id),
    CHECK (level = coalesce(parent_license_id, work_id)),
    CHECK ((parent_license_id IS NULL) = (depth = 1)),
    CHECK (starts_at < ends_at),
    CHECK (status NOT IN ('active', 'suspended') OR (starts_at IS NOT NULL AND ends_at IS NOT NULL))
);
CREATE INDEX license_licensee ON licensing.license (licensee_id, id DESC);
CREATE INDEX license_licensor ON licensing.license (licensor_id, id DESC);
CREATE INDEX license_terms_used ON licensing.license (terms_id) WHERE status IN ('pending_payment', 'active', 'suspended');
CREATE INDEX license_parent ON licensing.license (parent_license_id);
CREATE INDEX license_ends ON licensing.license (ends_at) WHERE status IN ('active', 'suspended');

-- What is paid for at once: the first period of a licence, then one for each renewal. `id` names its fee.
-- `reserved` is what nobody else may have; an unpaid first period reserves the time to pay as well.
CREATE TABLE licensing.license_period (
    id            uuid PRIMARY KEY,
    license_id    uuid NOT NULL REFERENCES licensing.license,
    number        integer NOT NULL CHECK (number >= 1),
    level         uuid NOT NULL,
    exclusive     boolean NOT NULL,
    territory_set int4multirange NOT NULL,
    scope_set     int4multirange NOT NULL,
    base_at       timestamptz NOT NULL,
    reserved      tstzrange NOT NULL CHECK (NOT isempty(reserved)),
    fee_units     bigint NOT NULL CHECK (fee_units >= 0),
    pay_before    timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    payment_ref   text UNIQUE,  -- of the payment under way, then of the one that was made
    legs          jsonb,  -- of that payment
    paid_at       timestamptz,
    status        text NOT NULL CHECK (status IN ('pending_payment', 'active', 'over', 'released')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (license_id, number),
    CONSTRAINT license_exclusive EXCLUDE USING gist (
        level WITH =, scope_set WITH &&, territory_set WITH &&, reserved WITH &&)
        WHERE (exclusive AND status IN ('pending_payment', 'active'))
);
CREATE INDEX license_period_held ON licensing.license_period USING gist (level, reserved)
    WHERE status IN ('pending_payment', 'active');
CREATE UNIQUE INDEX license_period_unpaid ON licensing.license_period (license_id) WHERE status = 'pending_payment';
CREATE INDEX license_period_due ON licensing.license_period (pay_before) WHERE status = 'pending_payment';

CREATE TABLE licensing.authorization_node (
    id                uuid PRIMARY KEY,
    parent_id         uuid REFERENCES licensing.authorization_node,
    work_id           uuid NOT NULL,
    license_id        uuid NOT NULL UNIQUE REFERENCES licensing.license,
    verification_code text NOT NULL UNIQUE CHECK (verification_code ~ '^[A-Z2-7]{32}$'),
    active            boolean NOT NULL DEFAULT true,
    created_at        timestamptz NOT NULL DEFAULT now(),
    revoked_at        timestamptz,
    CHECK (active = (revoked_at IS NULL))
);

-- What happened to a licence, for the public history of its code: no accounts, no reasons.
CREATE TABLE licensing.license_event (
    license_id uuid NOT NULL REFERENCES licensing.license,
    number     bigint GENERATED ALWAYS AS IDENTITY,
    what       text NOT NULL CHECK (what IN ('activated', 'renewed', 'suspended', 'resumed', 'expired', 'revoked')),
    at         timestamptz NOT NULL DEFAULT now(),
    ends_at    timestamptz,
    PRIMARY KEY (license_id, number)
);

CREATE TABLE licensing.license_seat (
    id          uuid PRIMARY KEY,
    license_id  uuid NOT NULL REFERENCES licensing.license,
    account_id  uuid NOT NULL REFERENCES identity.account,
    assigned_at timestamptz NOT NULL DEFAULT now(),
    released_at timestamptz
);
CREATE UNIQUE INDEX license_seat_once ON licensing.license_seat (license_id, account_id) WHERE released_at IS NULL;

CREATE TABLE licensing.release_window (
    id             uuid PRIMARY KEY,
    work_id        uuid NOT NULL,
    account_id     uuid NOT NULL REFERENCES identity.account,
    license_id     uuid REFERENCES licensing.license,  -- the right of whoever opens it; null: the work's owner
    window_type    text NOT NULL CHECK (
        window_type IN ('festival', 'cinema', 'collector', 'pvod', 'ppv', 'tvod', 'svod', 'avod')),
    territories    text[] NOT NULL CHECK (cardinality(territories) >= 1),
    territory_list text NOT NULL,
    territory_set  int4multirange NOT NULL CHECK (NOT isempty(territory_set)),
    period         tstzrange NOT NULL CHECK (NOT lower_inf(period) AND NOT isempty(period)),
    price_units    bigint CHECK (price_units >= 0),
    asset          text,
    scale          smallint CHECK (scale BETWEEN 0 AND 18),
    exclusive      boolean NOT NULL,
    status         text NOT NULL CHECK (status IN ('scheduled', 'open', 'closed', 'cancelled')),
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CHECK ((price_units IS NULL) = (asset IS NULL) AND (asset IS NULL) = (scale IS NULL)),
    CONSTRAINT window_of_type EXCLUDE USING gist (
        work_id WITH =, window_type WITH =, territory_set WITH &&, period WITH &&) WHERE (status <> 'cancelled'),
    CONSTRAINT window_exclusive EXCLUDE USING gist (
        work_id WITH =, territory_set WITH &&, period WITH &&) WHERE (exclusive AND status <> 'cancelled')
);
CREATE INDEX release_window_work ON licensing.release_window (work_id, lower(period), id) WHERE status <> 'cancelled';
CREATE INDEX release_window_starts ON licensing.release_window (lower(period)) WHERE status = 'scheduled';
CREATE INDEX release_window_ends ON licensing.release_window (upper(period)) WHERE status = 'open';
CREATE INDEX release_window_license ON licensing.release_window (license_id) WHERE status IN ('scheduled', 'open');
