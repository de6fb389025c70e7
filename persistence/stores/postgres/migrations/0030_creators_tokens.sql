-- The token of a creator, once it is minted: a projection, which a consumer of events writes.
ALTER TABLE creators.tally ADD COLUMN token_id uuid;
UPDATE creators.tally t SET token_id = k.id FROM tokens.token k
WHERE k.creator_id = t.creator_id AND k.status NOT IN ('reserved', 'failed');
