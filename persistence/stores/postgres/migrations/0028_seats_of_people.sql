-- What the seats of a person open is asked at each read of a chapter.
CREATE INDEX license_seat_account ON licensing.license_seat (account_id, id DESC);
