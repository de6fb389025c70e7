-- Where the core has another sum than the books say, as the last comparison found it (royalties/reconciliation.py).
CREATE TABLE royalties.difference (
    account    text NOT NULL,  -- in the core
    asset      text NOT NULL,
    core_units bigint NOT NULL,
    book_units bigint NOT NULL,
    found_at   timestamptz NOT NULL DEFAULT now(),  -- since when it is this one
    PRIMARY KEY (account, asset),
    CHECK (core_units <> book_units)
);

-- Commands that are noted and not projected yet.
CREATE INDEX command_posted ON money.command (sequence) WHERE state = 'posted';
