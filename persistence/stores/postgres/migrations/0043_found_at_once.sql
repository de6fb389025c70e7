-- A search with filters is one look into one index, which meets words and filters; of two indexes one was read for all that
-- it has, and the rest thrown away row by row.
CREATE INDEX work_found ON works.work USING gin (
    search, genres, tags,
    (ARRAY['kind ' || kind, 'category ' || category, 'language ' || language, 'creator ' || creator_id::text])
) WHERE status = 'published';
DROP INDEX works.work_search;
DROP INDEX works.work_facets;
