-- What refunds under way will take from payees: nobody is paid it out meanwhile.

CREATE TABLE royalties.set_aside (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref        text NOT NULL,  -- of the refund's command
    account_id uuid NOT NULL REFERENCES identity.account,
    asset      text NOT NULL,
    units      bigint NOT NULL CHECK (units > 0)
);
CREATE INDEX set_aside_ref ON royalties.set_aside (ref);
CREATE INDEX set_aside_account ON royalties.set_aside (account_id, asset);
