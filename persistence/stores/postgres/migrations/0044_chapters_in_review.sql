-- A chapter of an approved work waits for a look of its own, and the work stays in sight (docs/decisions/0066).
ALTER TABLE works.chapter DROP CONSTRAINT chapter_status_check, ADD CONSTRAINT chapter_status_check CHECK (
    status IN ('draft', 'in_review', 'published', 'unpublished', 'deleted'));
-- The last one that readers got, of a chapter that is out of sight: who had a right to it reads that one further.
ALTER TABLE works.chapter ADD COLUMN shown_version integer;
UPDATE works.chapter SET shown_version = content_version WHERE unpublished_at IS NOT NULL;
CREATE INDEX chapter_in_review ON works.chapter (work_id) WHERE status = 'in_review';
