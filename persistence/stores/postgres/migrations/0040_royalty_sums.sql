-- Sums of what each account earned, kept in the transaction that writes an entry (docs/decisions/0063): who sells much is
-- told what they are owed as fast as anybody. A row is written under the lock of its account's row of `owed` alone.

CREATE TABLE royalties.daily (
    account_id uuid NOT NULL REFERENCES identity.account,
    day        date NOT NULL,  -- of UTC
    asset      text NOT NULL,
    scale      smallint NOT NULL,
    earned     bigint NOT NULL,
    reversed   bigint NOT NULL,
    paid       bigint NOT NULL,
    PRIMARY KEY (account_id, day, asset)
) WITH (fillfactor = 70);

-- What each payee had of a work.
CREATE TABLE royalties.work_income (
    work_id    uuid NOT NULL,
    account_id uuid NOT NULL REFERENCES identity.account,
    asset      text NOT NULL,
    scale      smallint NOT NULL,
    earned     bigint NOT NULL,
    reversed   bigint NOT NULL,
    PRIMARY KEY (work_id, account_id, asset)
) WITH (fillfactor = 70);

-- What matures in each day, and in each five minutes: earned less reversed.
CREATE TABLE royalties.maturing (
    account_id uuid NOT NULL REFERENCES identity.account,
    span       interval NOT NULL CHECK (span IN ('1 day', '5 minutes')),
    begins     timestamptz NOT NULL,
    asset      text NOT NULL,
    units      bigint NOT NULL,
    PRIMARY KEY (account_id, span, begins, asset)
) WITH (fillfactor = 70);
CREATE INDEX entry_maturity ON royalties.entry (account_id, matures_at);

-- All of them anew from the entries, while nobody writes any.
CREATE FUNCTION royalties.sum_again() RETURNS void LANGUAGE sql AS $$
    LOCK TABLE royalties.entry IN SHARE MODE;
    DELETE FROM royalties.daily;
    INSERT INTO royalties.daily (account_id, day, asset, scale, earned, reversed, paid)
    SELECT account_id, (happened_at AT TIME ZONE 'UTC')::date, asset, max(scale),
        coalesce(sum(amount_units) FILTER (WHERE kind = 'earned'), 0),
        coalesce(sum(amount_units) FILTER (WHERE kind = 'reversed'), 0),
        coalesce(sum(amount_units) FILTER (WHERE kind = 'paid'), 0)
    FROM royalties.entry GROUP BY 1, 2, 3;
    DELETE FROM royalties.work_income;
    INSERT INTO royalties.work_income (work_id, account_id, asset, scale, earned, reversed)
    SELECT work_id, account_id, asset, max(scale),
        coalesce(sum(amount_units) FILTER (WHERE kind = 'earned'), 0),
        coalesce(sum(amount_units) FILTER (WHERE kind = 'reversed'), 0)
    FROM royalties.entry WHERE work_id IS NOT NULL AND kind <> 'paid' GROUP BY 1, 2, 3;
    DELETE FROM royalties.maturing;
    INSERT INTO royalties.maturing (account_id, span, begins, asset, units)
    SELECT account_id, s.span, date_bin(s.span, matures_at, 'epoch'), asset,
        sum(CASE kind WHEN 'earned' THEN amount_units ELSE -amount_units END)
    FROM royalties.entry, (VALUES (interval '1 day'), (interval '5 minutes')) AS s (span)
    WHERE kind <> 'paid' GROUP BY 1, 2, 3, 4;
$$;
SELECT royalties.sum_again();
