-- How often works are looked at, and what those who bought them think of them.

ALTER TABLE works.work
    ADD COLUMN view_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN rating_sum bigint NOT NULL DEFAULT 0,
    ADD COLUMN rating_count bigint NOT NULL DEFAULT 0;

-- Who looked today, so that looking again counts nothing. `visitor` is a keyed digest of the day and the account or
-- address; rows of earlier days go.
CREATE TABLE works.work_view (
    day     date NOT NULL,
    work_id uuid NOT NULL REFERENCES works.work,
    visitor bytea NOT NULL CHECK (length(visitor) = 16),
    PRIMARY KEY (day, work_id, visitor)
);

CREATE TABLE works.rating (
    work_id    uuid NOT NULL REFERENCES works.work,
    account_id uuid NOT NULL REFERENCES identity.account,
    stars      smallint NOT NULL CHECK (stars BETWEEN 1 AND 5),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (work_id, account_id)
);
