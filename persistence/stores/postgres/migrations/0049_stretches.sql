-- Works of one creator, category, kind or language are a stretch of its index, in the order of time. All parts go one
-- way, so that the place behind a cursor is one comparison.
DROP INDEX works.work_creator;
DROP INDEX works.work_category;
DROP INDEX works.work_kind;
DROP INDEX works.work_language;
CREATE INDEX work_creator ON works.work (creator_id, published_at, id) WHERE status = 'published';
CREATE INDEX work_category ON works.work (category, published_at, id) WHERE status = 'published';
CREATE INDEX work_kind ON works.work (kind, published_at, id) WHERE status = 'published';
CREATE INDEX work_language ON works.work (language, published_at, id) WHERE status = 'published';
