-- An API key ends with a session that is cut off: which session made it. Keys of before have none.

ALTER TABLE identity.api_key ADD COLUMN session_id uuid REFERENCES identity.session;
CREATE INDEX api_key_session ON identity.api_key (session_id) WHERE revoked_at IS NULL;

-- Has this account paid that one before?
CREATE INDEX transfer_pair ON money.transfer (source_id, target_id) WHERE status = 'completed';
