-- Which versions of a chapter readers got, and when: of the earlier ones, nobody outside reads another
-- (docs/decisions/0066). One that was out of sight in between was shown from its first day to its last.
CREATE TABLE works.chapter_shown (
    chapter_id  uuid NOT NULL,
    number      integer NOT NULL,
    shown_from  timestamptz NOT NULL,
    shown_until timestamptz,  -- null: readers get it now
    PRIMARY KEY (chapter_id, number),
    FOREIGN KEY (chapter_id, number) REFERENCES works.chapter_version
);
CREATE UNIQUE INDEX chapter_shown_now ON works.chapter_shown (chapter_id) WHERE shown_until IS NULL;

-- Of what was there before, the audit tells when a chapter was in sight: its versions of those times were shown. One
-- that was replaced at the instant at which it went to be looked at was not.
WITH turn AS (
    SELECT resource_id::uuid AS chapter_id, recorded_at AS at, action = 'chapter.published' AS is_shown,
        lead(recorded_at) OVER (PARTITION BY resource_id ORDER BY position) AS until
    FROM kernel.audit_entry WHERE resource_type = 'chapter' AND action IN (
        'chapter.published', 'chapter.unpublished', 'chapter.submitted', 'chapter.rejected', 'chapter.deleted')
), version AS (
    SELECT chapter_id, number, created_at AS at,
        lead(created_at) OVER (PARTITION BY chapter_id ORDER BY number) AS until
    FROM works.chapter_version
)
INSERT INTO works.chapter_shown
SELECT v.chapter_id, v.number, min(greatest(v.at, t.at)), max(least(v.until, t.until, now()))
FROM version v JOIN turn t USING (chapter_id)
WHERE t.is_shown AND greatest(v.at, t.at) < coalesce(least(v.until, t.until), 'infinity')
GROUP BY v.chapter_id, v.number;

-- The chapter itself tells which one that is now, or was before it went out of sight.
INSERT INTO works.chapter_shown
SELECT id, CASE status WHEN 'published' THEN content_version ELSE shown_version END,
    coalesce(published_at, updated_at), CASE WHEN status <> 'published' THEN unpublished_at END
FROM works.chapter
WHERE status = 'published' OR status <> 'deleted' AND shown_version IS NOT NULL AND unpublished_at IS NOT NULL
ON CONFLICT (chapter_id, number) DO UPDATE SET shown_until = excluded.shown_until;
