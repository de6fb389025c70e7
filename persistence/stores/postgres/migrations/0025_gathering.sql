-- Transfers from more accounts than one command reaches: `plan` is all their finished commands (royalties/gathering.py).
CREATE TABLE royalties.gathering (
    ref    text PRIMARY KEY,  -- of the command that gives what was gathered
    plan   text NOT NULL,
    state  text,              -- what the document is told when everything is back …
    reason text               -- … and why
);

-- What upkeep looks for.
CREATE INDEX intent_open ON payments.intent (expires_at) WHERE status IN ('requires_payment', 'processing');
CREATE INDEX entry_sequence ON royalties.entry (sequence);
