-- Readers get what was looked at, of works that are out of sight too (docs/decisions/0066).
-- The last version that readers got, of a work that was taken out of sight: who has a right to it sees that one.
ALTER TABLE works.work ADD COLUMN shown_version integer;
-- Whether readers could have the file at some time.
ALTER TABLE works.asset ADD COLUMN shown boolean NOT NULL DEFAULT false;

WITH approved AS (
    SELECT work_id, max(decided_at) AS at FROM works.verification_case WHERE status = 'approved' GROUP BY work_id)
UPDATE works.work w SET shown_version = (
    SELECT max(number) FROM works.work_version v WHERE v.work_id = w.id AND v.created_at <= a.at)
FROM approved a
WHERE a.work_id = w.id AND w.published_at IS NOT NULL AND w.status IN ('draft', 'in_review');

UPDATE works.asset s SET shown = true FROM works.work w
WHERE w.id = s.work_id AND w.published_at IS NOT NULL AND (w.shown_version IS NULL OR s.created_at <= (
    SELECT created_at FROM works.work_version v WHERE v.work_id = w.id AND v.number = w.shown_version));

-- A case about chapters alone ends without a decision when they are taken back.
ALTER TABLE works.verification_case DROP CONSTRAINT verification_case_status_check,
    ADD CONSTRAINT verification_case_status_check CHECK (status IN ('pending', 'approved', 'rejected', 'withdrawn'));
