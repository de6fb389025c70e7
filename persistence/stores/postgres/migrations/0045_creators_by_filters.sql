-- Lists of creators read an index in their order, and look up by filters what seldom fits: one index has all of them.
CREATE INDEX creator_facets ON creators.creator USING gin ((
    ARRAY['category ' || category, 'type ' || creator_type,
          CASE WHEN verification_status = 'verified' THEN 'verified' ELSE 'unverified' END]
));
DROP INDEX creators.creator_category;
DROP INDEX creators.creator_type;
DROP INDEX creators.creator_verified;
