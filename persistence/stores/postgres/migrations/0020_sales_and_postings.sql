-- Which command posted a ref: of lines whose answer was lost, and who asked again was told only that it ran.
CREATE INDEX posting_ref ON exchange.posting (ref);

-- What was bought of a seller.
CREATE INDEX purchase_seller ON payments.purchase (seller_id, id DESC) WHERE status IN ('completed', 'refunded');

-- What refunds under way will take, all together.
CREATE INDEX set_aside_asset ON royalties.set_aside (asset, account_id);

-- Projections of what was sold: only consumers of events write here. What was sold before is counted once, now.
ALTER TABLE works.work ADD COLUMN purchase_count bigint NOT NULL DEFAULT 0;
ALTER TABLE creators.tally ADD COLUMN sale_count bigint NOT NULL DEFAULT 0;
ALTER TABLE creators.daily ADD COLUMN sales bigint NOT NULL DEFAULT 0;
CREATE TABLE creators.revenue (
    creator_id uuid NOT NULL REFERENCES creators.creator,
    asset      text NOT NULL,
    scale      smallint NOT NULL,
    units      bigint NOT NULL,
    PRIMARY KEY (creator_id, asset)
);
CREATE TEMPORARY TABLE sold ON COMMIT DROP AS
    SELECT w.creator_id, e.work_id, e.kind, e.asset, e.scale, e.gross_units, d.status, d.posted_at,
        coalesce((SELECT sum(l.reversed_units) FROM royalties.distribution_line l WHERE l.distribution_id = d.id), 0)
            AS reversed_units
    FROM royalties.distribution d JOIN royalties.revenue_event e ON e.id = d.event_id
    JOIN works.work w ON w.id = e.work_id WHERE d.status <> 'pending';
UPDATE works.work w SET purchase_count = s.count FROM (
    SELECT work_id, count(*) FROM sold
    WHERE status = 'posted' AND kind IN ('content_purchase', 'rental', 'ppv') GROUP BY work_id) s
WHERE w.id = s.work_id;
UPDATE creators.tally t SET sale_count = s.count FROM (
    SELECT creator_id, count(*) FROM sold WHERE status = 'posted' GROUP BY creator_id) s
WHERE t.creator_id = s.creator_id;
INSERT INTO creators.daily AS d (creator_id, day, sales)
    SELECT creator_id, (posted_at AT TIME ZONE 'UTC')::date, count(*) FROM sold GROUP BY 1, 2
ON CONFLICT (creator_id, day) DO UPDATE SET sales = excluded.sales;
INSERT INTO creators.revenue (creator_id, asset, scale, units)
    SELECT creator_id, asset, max(scale), sum(gross_units - reversed_units) FROM sold GROUP BY creator_id, asset;
