-- Lists of works by several filters at once: one index over all they can ask, so that works which have each of them
-- seldom together are found by what they have, not by reading all works in the order of the list.
CREATE INDEX work_facets ON works.work USING gin (
    genres, tags,
    (ARRAY['kind ' || kind, 'category ' || category, 'language ' || language, 'creator ' || creator_id::text])
) WHERE status = 'published';
DROP INDEX works.work_genres;
DROP INDEX works.work_tags;
CREATE INDEX offer_price ON works.offer (asset, price_units, work_id) WHERE active;

-- Of many licences or applications of one account those in a status that few have.
CREATE INDEX license_licensee_status ON licensing.license (licensee_id, status, id DESC);
CREATE INDEX license_licensor_status ON licensing.license (licensor_id, status, id DESC);
CREATE INDEX license_application_applicant_status ON licensing.license_application (applicant_id, status, id DESC);
CREATE INDEX license_application_licensor_status ON licensing.license_application (licensor_id, status, id DESC);
