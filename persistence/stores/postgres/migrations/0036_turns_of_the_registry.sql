-- Documents get to the chain turn by turn over accounts, and a licensor's licences beyond a day's number wait for the
-- next. What is written down before this may go at once.
ALTER TABLE registry.license_record ADD COLUMN not_before timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE registry.license_record ALTER COLUMN not_before SET DEFAULT now();
CREATE INDEX license_record_day ON registry.license_record (licensor_id, not_before DESC);
CREATE INDEX registration_day ON registry.registration (account_id, created_at);

DROP INDEX registry.registration_due, registry.license_record_due, registry.license_record_revoked;
CREATE INDEX registration_due ON registry.registration (account_id, try_at) WHERE status = 'pending';
CREATE INDEX license_record_due ON registry.license_record (licensor_id, greatest(try_at, not_before))
    WHERE status = 'waiting' AND registration_id IS NOT NULL;
CREATE INDEX license_record_revoked ON registry.license_record (licensor_id, try_at)
    WHERE status = 'issued' AND revoked;
