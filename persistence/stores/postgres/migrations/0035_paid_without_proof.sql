-- What accounts paid from their balances without a wallet's signature on the latest day (UTC) that they did so: a stolen
-- session pays so much and no more. A row for each account and asset, not for each payment.
CREATE TABLE payments.unproved (
    account_id uuid NOT NULL REFERENCES identity.account,
    asset      text NOT NULL,
    day        date NOT NULL,
    units      bigint NOT NULL CHECK (units >= 0),
    PRIMARY KEY (account_id, asset)
) WITH (fillfactor = 70);
