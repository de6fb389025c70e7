-- What a session's last step-up was spent for, and when it was made: a payment that the core refuses gives it back.
ALTER TABLE identity.session ADD COLUMN spent_for uuid, ADD COLUMN spent_proof timestamptz;
