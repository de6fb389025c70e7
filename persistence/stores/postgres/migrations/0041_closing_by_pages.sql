-- A month is closed by a job, page by page (docs/decisions/0065): its statements are nobody's to read until all are there.
ALTER TABLE royalties.run
    ADD COLUMN state        text NOT NULL DEFAULT 'closed' CHECK (state IN ('open', 'refused', 'closed')),
    ADD COLUMN reason       text CHECK ((reason IS NOT NULL) = (state = 'refused')),
    ADD COLUMN begun_at     timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN payees       integer,  -- null: not counted (yet)
    ADD COLUMN payees_done  integer NOT NULL DEFAULT 0,
    ADD COLUMN written_to   uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- accounts up to this one
    ADD COLUMN announced_to uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- statements up to this one
    ALTER COLUMN closed_at DROP NOT NULL,
    ALTER COLUMN closed_at DROP DEFAULT;
UPDATE royalties.run SET begun_at = closed_at, announced_to = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
ALTER TABLE royalties.run
    ALTER COLUMN state SET DEFAULT 'open',
    ALTER COLUMN statements SET DEFAULT 0,
    ADD CHECK ((closed_at IS NOT NULL) = (state = 'closed'));
ALTER TABLE royalties.run RENAME COLUMN closed_by TO begun_by;

-- A statement is closed with its run.
ALTER TABLE royalties.statement DROP COLUMN closed_at;
DROP INDEX royalties.statement_period;
CREATE INDEX statement_period ON royalties.statement (period, id);
