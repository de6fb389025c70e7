-- Whom a work's sales of a month have paid: they are told what these gave. The lines say it too, but of one account and
-- one work only by reading all of either.
CREATE TABLE royalties.paid_by_work (
    work_id    uuid NOT NULL,  -- that was sold
    account_id uuid NOT NULL REFERENCES identity.account,
    month      date NOT NULL,  -- its first day, of UTC
    PRIMARY KEY (work_id, account_id, month)
);
INSERT INTO royalties.paid_by_work
SELECT DISTINCT e.work_id, l.account_id, date_trunc('month', e.occurred_at AT TIME ZONE 'UTC')::date
FROM royalties.revenue_event e JOIN royalties.distribution d ON d.event_id = e.id
JOIN royalties.distribution_line l ON l.distribution_id = d.id
WHERE l.account_id IS NOT NULL AND l.amount_units > 0;
