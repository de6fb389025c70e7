-- What was bought of a seller, by when it was paid: one that is paid late comes on top.
DROP INDEX payments.purchase_seller;
CREATE INDEX purchase_sold ON payments.purchase (seller_id, completed_at DESC, id DESC)
    WHERE status IN ('completed', 'refunded');
