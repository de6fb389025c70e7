-- The share of a licence that takes from others than the work's owner: it counts, as a row of royalties.ancestor, when
-- all of them have agreed (royalties/licence_shares.py).
CREATE TABLE royalties.licence_share (
    id             uuid PRIMARY KEY,
    licence_id     uuid NOT NULL,
    work_id        uuid NOT NULL,
    parent_work_id uuid NOT NULL CHECK (parent_work_id <> work_id),
    share_bps      integer NOT NULL CHECK (share_bps BETWEEN 1 AND 10000),
    replaces       uuid[] NOT NULL,  -- ended licences, whose shares of the work end when this one counts
    status         text NOT NULL CHECK (status IN ('pending', 'effective', 'declined', 'superseded')),
    proposed_by    uuid NOT NULL REFERENCES identity.account,
    proposed_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX licence_share_waiting ON royalties.licence_share (licence_id) WHERE status = 'pending';
CREATE INDEX licence_share_work ON royalties.licence_share (work_id) WHERE status = 'pending';

CREATE TABLE royalties.licence_share_consent (
    share_id   uuid NOT NULL REFERENCES royalties.licence_share,
    account_id uuid NOT NULL REFERENCES identity.account,
    agreed     boolean,  -- null: no answer yet
    decided_at timestamptz,
    PRIMARY KEY (share_id, account_id)
);
