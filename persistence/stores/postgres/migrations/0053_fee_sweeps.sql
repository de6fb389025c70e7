-- Trade fees that became the platform's revenue: of a day one command (`fees:DAY`), with a row for each asset.
CREATE TABLE money.fee_sweep (
    day        date NOT NULL,  -- of UTC, on which it was ordered
    asset      text NOT NULL,
    scale      smallint NOT NULL,
    units      bigint NOT NULL CHECK (units > 0),
    id         uuid NOT NULL,  -- of the day's document
    ref        text NOT NULL,
    status     text NOT NULL DEFAULT 'ordered' CHECK (status IN ('ordered', 'posted', 'failed')),
    PRIMARY KEY (day, asset)
);
CREATE INDEX fee_sweep_id ON money.fee_sweep (id);
