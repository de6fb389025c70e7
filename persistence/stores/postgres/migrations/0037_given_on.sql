-- A licence is given on once everybody has agreed who is paid for the work besides its owner: a question for each period of
-- the licence, among those of shares of works that were made under licences (royalties/licence_shares.py).
ALTER TABLE royalties.licence_share
    ADD COLUMN period_id uuid UNIQUE,  -- of the licence that is given on; then there is no work made under it
    ALTER COLUMN parent_work_id DROP NOT NULL,
    DROP CONSTRAINT licence_share_share_bps_check,
    DROP CONSTRAINT licence_share_status_check,
    ADD CONSTRAINT licence_share_share_bps_check CHECK (share_bps BETWEEN 0 AND 10000),
    ADD CONSTRAINT licence_share_status_check CHECK (
        status IN ('pending', 'effective', 'declined', 'superseded', 'over')),
    ADD CONSTRAINT licence_share_of_one CHECK (num_nonnulls(period_id, parent_work_id) = 1);
DROP INDEX royalties.licence_share_waiting;
CREATE UNIQUE INDEX licence_share_waiting ON royalties.licence_share (licence_id)
    WHERE status = 'pending' AND parent_work_id IS NOT NULL;
CREATE INDEX licence_share_parent ON royalties.licence_share (parent_work_id) WHERE status = 'pending';
CREATE INDEX licence_share_given_on ON royalties.licence_share (licence_id, proposed_at DESC, id DESC)
    WHERE period_id IS NOT NULL;
CREATE INDEX licence_share_work_given_on ON royalties.licence_share (work_id, proposed_at DESC, id DESC)
    WHERE period_id IS NOT NULL AND status = 'effective';

-- Those that were granted until now stay as they were promised.
INSERT INTO royalties.licence_share
    (id, licence_id, work_id, share_bps, replaces, status, proposed_by, proposed_at, period_id)
SELECT gen_random_uuid(), l.id, l.work_id, l.revenue_share_bps, '{}', 'effective', l.licensor_id, p.created_at, p.id
FROM licensing.license l JOIN licensing.license_period p ON p.license_id = l.id
WHERE l.sublicensing AND l.status IN ('pending_payment', 'active', 'suspended')
    AND p.status IN ('pending_payment', 'active');
