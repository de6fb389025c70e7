CREATE INDEX license_refund_of ON licensing.license_refund (license_id) WHERE status = 'succeeded';
