-- An approval names what was looked at: each change of what waits for it makes another version (docs/decisions/0066).
ALTER TABLE works.verification_case ADD COLUMN version integer NOT NULL DEFAULT 1;
