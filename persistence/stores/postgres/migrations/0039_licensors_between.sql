-- A work made under a licence below another gives its share to the licensor of that one, who gives on what the licence
-- above says: the accounts between, the nearest first, and what each gives on of what comes to them.
ALTER TABLE royalties.ancestor
    ADD COLUMN through uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN passed_bps integer[] NOT NULL DEFAULT '{}' CHECK (0 <= ALL (passed_bps) AND 10000 >= ALL (passed_bps)),
    ADD CHECK (cardinality(through) = cardinality(passed_bps));
ALTER TABLE royalties.licence_share
    ADD COLUMN through uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN passed_bps integer[] NOT NULL DEFAULT '{}';
