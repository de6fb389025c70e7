-- Refunds of licence fees: what each line of them gives back, as it was computed when the refund was asked for.

CREATE TABLE licensing.license_refund (
    id         uuid PRIMARY KEY,  -- the command's ref is refund:ID
    license_id uuid NOT NULL REFERENCES licensing.license,
    status     text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'succeeded', 'failed')),
    lines      jsonb NOT NULL,
    reason     text NOT NULL,
    created_by uuid NOT NULL REFERENCES identity.account,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX license_refund_open ON licensing.license_refund (license_id) WHERE status = 'processing';
