-- Which command posted a ref: of lines whose answer was lost, and who asked again was told only that it ran.
CREATE INDEX posting_ref ON exchange.posting (ref);

-- What was bought of a seller.
CREATE INDEX purchase_seller ON payments.purchase (seller_id, id DESC) WHERE status IN ('completed', 'refunded');
