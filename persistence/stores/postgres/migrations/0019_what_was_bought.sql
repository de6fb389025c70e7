-- A work is not deleted while a purchase of it from a balance waits for the core's answer.
CREATE INDEX purchase_being_paid ON payments.purchase (work_id) WHERE status = 'pending' AND method = 'balance';

-- Who bought a chapter before it was unpublished keeps it, and files that were removed later too.
ALTER TABLE works.chapter ADD COLUMN unpublished_at timestamptz;
UPDATE works.chapter SET unpublished_at = updated_at WHERE status = 'unpublished';
CREATE INDEX asset_of_work ON works.asset (work_id);

-- Closing a month begins at the statements of the month closed before.
CREATE INDEX statement_period ON royalties.statement (period);
