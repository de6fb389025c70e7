-- Which command posted a ref: of lines whose answer was lost, and who asked again was told only that it ran.
CREATE INDEX posting_ref ON exchange.posting (ref);
