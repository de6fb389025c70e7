-- A licence that approved itself and is not paid stands in nobody's way: an exclusive one that is paid first takes its
-- place (docs/decisions/0047).

ALTER TABLE licensing.license_period
    ADD COLUMN yields boolean NOT NULL DEFAULT false,
    ADD CHECK (NOT (yields AND exclusive));
