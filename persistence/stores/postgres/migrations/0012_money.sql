-- Money of sales: commands to the core, payments from outside, what was bought, and who earned what.

CREATE TABLE money.command (
    ref         text PRIMARY KEY CHECK (length(ref) BETWEEN 1 AND 64),
    kind        text NOT NULL,
    document_id uuid NOT NULL,
    body        text NOT NULL,      -- the finished command: the same bytes each time it is sent
    accounts    text NOT NULL,      -- JSON: account to overdraft, opened before
    state       text NOT NULL DEFAULT 'ordered' CHECK (state IN (
        'ordered', 'pending', 'posting', 'voiding', 'posted', 'voided', 'refused', 'stuck')),
    reason      text,
    sequence    bigint,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX command_document ON money.command (document_id);
CREATE INDEX command_open ON money.command (created_at) WHERE state IN ('ordered', 'posting', 'voiding', 'stuck');


CREATE SCHEMA royalties;

CREATE TABLE royalties.policy (
    revenue_kind   text NOT NULL CHECK (revenue_kind IN (
        'content_purchase', 'rental', 'ppv', 'licence_fee', 'product_sale', 'coin_spend')),
    effective_from timestamptz NOT NULL,
    platform_bps   integer NOT NULL CHECK (platform_bps BETWEEN 0 AND 10000),
    PRIMARY KEY (revenue_kind, effective_from)
);
INSERT INTO royalties.policy VALUES
    ('content_purchase', '2026-01-01Z', 1000), ('rental', '2026-01-01Z', 1000), ('ppv', '2026-01-01Z', 1000),
    ('licence_fee', '2026-01-01Z', 1500), ('product_sale', '2026-01-01Z', 500), ('coin_spend', '2026-01-01Z', 3000);

-- The creators' side of a work's revenue, divided; a change never touches what was earned before it.
CREATE TABLE royalties.rule (
    id             uuid PRIMARY KEY,
    work_id        uuid NOT NULL,
    version        integer NOT NULL CHECK (version >= 1),
    revenue_kind   text NOT NULL CHECK (revenue_kind IN (
        'any', 'content_purchase', 'rental', 'ppv', 'licence_fee', 'product_sale', 'coin_spend')),
    effective_from timestamptz NOT NULL,
    status         text NOT NULL CHECK (status IN ('pending', 'effective', 'declined', 'superseded')),
    proposed_by    uuid NOT NULL REFERENCES identity.account,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (work_id, version)
);
CREATE UNIQUE INDEX rule_waiting ON royalties.rule (work_id, revenue_kind) WHERE status = 'pending';
CREATE INDEX rule_in_force ON royalties.rule (work_id, revenue_kind, effective_from DESC, version DESC)
    WHERE status = 'effective';

CREATE TABLE royalties.rule_line (
    rule_id    uuid NOT NULL REFERENCES royalties.rule,
    account_id uuid NOT NULL REFERENCES identity.account,
    role       text NOT NULL CHECK (role IN ('producer', 'distributor', 'collaborator', 'licensor')),
    bps        integer NOT NULL CHECK (bps BETWEEN 1 AND 10000),
    PRIMARY KEY (rule_id, account_id)
);
CREATE FUNCTION royalties.rule_is_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(bps) FROM royalties.rule_line WHERE rule_id = NEW.rule_id) IS DISTINCT FROM 10000 THEN
        RAISE EXCEPTION 'the lines of a rule sum to 10,000' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END;
$$;
CREATE CONSTRAINT TRIGGER rule_line_whole AFTER INSERT OR UPDATE ON royalties.rule_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION royalties.rule_is_whole();

CREATE TABLE royalties.rule_consent (
    rule_id    uuid NOT NULL REFERENCES royalties.rule,
    account_id uuid NOT NULL REFERENCES identity.account,
    agreed     boolean,  -- null: no answer yet
    decided_at timestamptz,
    PRIMARY KEY (rule_id, account_id)
);

-- A work that was made under a licence of another: its ancestor gets a share of what it receives.
CREATE TABLE royalties.ancestor (
    licence_id     uuid PRIMARY KEY,
    work_id        uuid NOT NULL,
    parent_work_id uuid NOT NULL CHECK (parent_work_id <> work_id),
    share_bps      integer NOT NULL CHECK (share_bps BETWEEN 1 AND 10000),
    bound_at       timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz
);
CREATE INDEX ancestor_work ON royalties.ancestor (work_id) WHERE ended_at IS NULL;
CREATE INDEX ancestor_parent ON royalties.ancestor (parent_work_id) WHERE ended_at IS NULL;

CREATE TABLE royalties.revenue_event (
    id             uuid PRIMARY KEY,
    kind           text NOT NULL CHECK (kind IN (
        'content_purchase', 'rental', 'ppv', 'licence_fee', 'product_sale', 'coin_spend')),
    source_ref     text NOT NULL UNIQUE,
    work_id        uuid NOT NULL,
    licence_id     uuid,
    asset          text NOT NULL,
    scale          smallint NOT NULL,
    gross_units    bigint NOT NULL CHECK (gross_units > 0),
    platform_units bigint NOT NULL CHECK (platform_units BETWEEN 0 AND gross_units),
    occurred_at    timestamptz NOT NULL
);
CREATE INDEX revenue_event_work ON royalties.revenue_event (work_id, id DESC);

CREATE TABLE royalties.distribution (
    id         uuid PRIMARY KEY,
    event_id   uuid NOT NULL UNIQUE REFERENCES royalties.revenue_event,
    rule_id    uuid REFERENCES royalties.rule,  -- null: by the work's collaborators
    status     text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'posted', 'reversed')),
    parts      integer NOT NULL CHECK (parts BETWEEN 0 AND 128),
    created_at timestamptz NOT NULL DEFAULT now(),
    posted_at  timestamptz
);

-- One command each: what a work of the chain gives its payees, and its ancestors.
CREATE TABLE royalties.distribution_part (
    distribution_id uuid NOT NULL REFERENCES royalties.distribution,
    number          integer NOT NULL,
    work_id         uuid NOT NULL,
    ref             text NOT NULL UNIQUE,
    command         text NOT NULL,
    accounts        text NOT NULL,
    sequence        bigint,
    PRIMARY KEY (distribution_id, number)
);

CREATE TABLE royalties.distribution_line (
    distribution_id uuid NOT NULL REFERENCES royalties.distribution,
    number          integer NOT NULL,
    part            integer NOT NULL,
    work_id         uuid NOT NULL,
    account_id      uuid REFERENCES identity.account,  -- null: the platform
    account         text NOT NULL,                     -- in the core
    role            text NOT NULL,
    bps             integer NOT NULL,
    amount_units    bigint NOT NULL CHECK (amount_units >= 0),
    reversed_units  bigint NOT NULL DEFAULT 0 CHECK (reversed_units BETWEEN 0 AND amount_units),
    PRIMARY KEY (distribution_id, number)
);
CREATE INDEX distribution_line_account ON royalties.distribution_line (account_id, distribution_id);

-- Everything that changed what an account is owed, as it became true in the core; never changed.
CREATE TABLE royalties.entry (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES identity.account,
    kind            text NOT NULL CHECK (kind IN ('earned', 'reversed', 'paid')),
    asset           text NOT NULL,
    scale           smallint NOT NULL,
    amount_units    bigint NOT NULL CHECK (amount_units > 0),
    happened_at     timestamptz NOT NULL,
    matures_at      timestamptz NOT NULL,
    work_id         uuid,
    revenue_kind    text,
    distribution_id uuid,
    ref             text NOT NULL,
    sequence        bigint
);
CREATE INDEX entry_account ON royalties.entry (account_id, happened_at, id);
CREATE INDEX entry_work ON royalties.entry (work_id, happened_at, id);
CREATE INDEX entry_time ON royalties.entry (happened_at, account_id);

-- The running sum of an account's entries.
CREATE TABLE royalties.owed (
    account_id uuid NOT NULL REFERENCES identity.account,
    asset      text NOT NULL,
    units      bigint NOT NULL,
    PRIMARY KEY (account_id, asset)
);
CREATE INDEX owed_debts ON royalties.owed (asset, units) WHERE units < 0;

-- How much of our own money stands beside debts; the latest of an asset that was posted counts.
CREATE TABLE royalties.cover (
    id     uuid PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY,
    asset  text NOT NULL,
    scale  smallint NOT NULL,
    units  bigint NOT NULL CHECK (units >= 0),
    status text NOT NULL DEFAULT 'ordered' CHECK (status IN ('ordered', 'posted', 'failed'))
);
CREATE INDEX cover_latest ON royalties.cover (asset, number DESC) WHERE status = 'posted';
CREATE UNIQUE INDEX cover_open ON royalties.cover (asset) WHERE status = 'ordered';

CREATE TABLE royalties.statement (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES identity.account,
    period     text NOT NULL CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    asset      text NOT NULL,
    scale      smallint NOT NULL,
    opening    bigint NOT NULL,
    earned     bigint NOT NULL CHECK (earned >= 0),
    reversed   bigint NOT NULL CHECK (reversed >= 0),
    paid       bigint NOT NULL CHECK (paid >= 0),
    closing    bigint NOT NULL,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    closed_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, asset, period),
    CHECK (closing = opening + earned - reversed - paid)
);
CREATE INDEX statement_account ON royalties.statement (account_id, id DESC);

CREATE TABLE royalties.run (
    period     text PRIMARY KEY CHECK (period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    statements integer NOT NULL,
    closed_at  timestamptz NOT NULL DEFAULT now(),
    closed_by  uuid NOT NULL REFERENCES identity.account
);

CREATE TABLE royalties.payout (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES identity.account,
    asset        text NOT NULL,
    scale        smallint NOT NULL,
    amount_units bigint NOT NULL CHECK (amount_units > 0),
    status       text NOT NULL DEFAULT 'requested' CHECK (status IN ('requested', 'paid', 'failed')),
    reason       text,
    ref          text NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX payout_account ON royalties.payout (account_id, id DESC);
CREATE UNIQUE INDEX payout_open ON royalties.payout (account_id, asset) WHERE status = 'requested';

CREATE SCHEMA payments;

CREATE TABLE payments.purchase (
    id             uuid PRIMARY KEY,
    account_id     uuid NOT NULL REFERENCES identity.account,
    offer_id       uuid NOT NULL,
    work_id        uuid NOT NULL,
    chapter_id     uuid,
    seller_id      uuid NOT NULL REFERENCES identity.account,
    kind           text NOT NULL CHECK (kind IN ('purchase', 'rent', 'ppv')),
    method         text NOT NULL CHECK (method IN ('balance', 'provider')),
    asset          text NOT NULL,
    scale          smallint NOT NULL,
    price_units    bigint NOT NULL CHECK (price_units > 0),
    refunded_units bigint NOT NULL DEFAULT 0 CHECK (refunded_units BETWEEN 0 AND price_units),
    access_seconds bigint,
    status         text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'refunded', 'failed')),
    reason         text,
    event_id       uuid,
    created_at     timestamptz NOT NULL DEFAULT now(),
    completed_at   timestamptz
);
CREATE INDEX purchase_account ON payments.purchase (account_id, id DESC);
CREATE UNIQUE INDEX purchase_waiting ON payments.purchase (account_id, offer_id) WHERE status = 'pending';

CREATE TABLE payments.intent (
    id           uuid PRIMARY KEY,
    account_id   uuid NOT NULL REFERENCES identity.account,
    purpose      text NOT NULL CHECK (purpose IN ('top_up', 'purchase')),
    purchase_id  uuid UNIQUE REFERENCES payments.purchase,
    provider     text NOT NULL,
    provider_ref text,
    asset        text NOT NULL,
    scale        smallint NOT NULL,
    amount_units bigint NOT NULL CHECK (amount_units > 0),
    status       text NOT NULL DEFAULT 'requires_payment' CHECK (status IN (
        'requires_payment', 'processing', 'succeeded', 'failed', 'cancelled', 'expired', 'partially_refunded',
        'refunded')),
    reason       text,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((purpose = 'purchase') = (purchase_id IS NOT NULL)),
    UNIQUE (provider, provider_ref)
);
CREATE INDEX intent_account ON payments.intent (account_id, id DESC);

CREATE TABLE payments.gateway_event (
    provider    text NOT NULL,
    event_id    text NOT NULL CHECK (length(event_id) <= 64),
    digest      bytea NOT NULL,
    outcome     text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, event_id)
);

-- What the provider took. `deposited` when the core has it.
CREATE TABLE payments.payment (
    id             uuid PRIMARY KEY,
    account_id     uuid NOT NULL REFERENCES identity.account,
    intent_id      uuid NOT NULL REFERENCES payments.intent,
    purchase_id    uuid REFERENCES payments.purchase,  -- null: to the payer's own account
    provider       text NOT NULL,
    provider_ref   text NOT NULL CHECK (length(provider_ref) <= 48),
    asset          text NOT NULL,
    scale          smallint NOT NULL,
    amount_units   bigint NOT NULL CHECK (amount_units > 0),
    refunded_units bigint NOT NULL DEFAULT 0 CHECK (refunded_units BETWEEN 0 AND amount_units),
    status         text NOT NULL DEFAULT 'received' CHECK (status IN (
        'received', 'deposited', 'partially_refunded', 'refunded', 'stuck')),
    ref            text NOT NULL UNIQUE,
    sequence       bigint,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, provider_ref)
);
CREATE INDEX payment_account ON payments.payment (account_id, id DESC);
CREATE INDEX payment_purchase ON payments.payment (purchase_id);
CREATE INDEX payment_intent ON payments.payment (intent_id);

CREATE TABLE payments.refund (
    id           uuid PRIMARY KEY,
    purchase_id  uuid REFERENCES payments.purchase,
    payment_id   uuid REFERENCES payments.payment,
    asset        text NOT NULL,
    scale        smallint NOT NULL,
    amount_units bigint NOT NULL CHECK (amount_units > 0),
    status       text NOT NULL DEFAULT 'approved' CHECK (status IN ('approved', 'processing', 'succeeded', 'failed')),
    reason       text NOT NULL DEFAULT '',
    failure      text,
    ref          text NOT NULL UNIQUE,
    lines        text NOT NULL,  -- JSON: what each line gives back
    created_by   uuid NOT NULL REFERENCES identity.account,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (purchase_id IS NOT NULL OR payment_id IS NOT NULL)
);
CREATE INDEX refund_purchase ON payments.refund (purchase_id);
CREATE UNIQUE INDEX refund_open ON payments.refund (coalesce(purchase_id, payment_id))
    WHERE status IN ('approved', 'processing');

CREATE TABLE payments.entitlement (
    id          uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES identity.account,
    work_id     uuid NOT NULL,
    chapter_id  uuid,
    kind        text NOT NULL CHECK (kind IN ('own', 'rent', 'ppv')),
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz CHECK (ends_at > starts_at),
    purchase_id uuid NOT NULL UNIQUE REFERENCES payments.purchase,
    revoked_at  timestamptz
);
CREATE INDEX entitlement_account ON payments.entitlement (account_id, work_id);
CREATE INDEX entitlement_library ON payments.entitlement (account_id, id DESC) WHERE revoked_at IS NULL;

-- The books of the built-in provider. It stands for another company: nothing else reads or writes them.
CREATE SCHEMA test_provider;

CREATE TABLE test_provider.intent (
    ref        text PRIMARY KEY,
    request    text NOT NULL UNIQUE,  -- the idempotency key of whoever made it
    asset      text NOT NULL,
    amount     text NOT NULL,
    status     text NOT NULL DEFAULT 'requires_payment' CHECK (status IN (
        'requires_payment', 'processing', 'succeeded', 'failed', 'cancelled')),
    secret     text NOT NULL,
    payment    text UNIQUE,
    card       text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE test_provider.refund (
    request    text PRIMARY KEY,
    ref        text NOT NULL UNIQUE,
    payment    text NOT NULL REFERENCES test_provider.intent (payment),
    amount     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refund_payment ON test_provider.refund (payment);
