-- What was sold, by the id that its buyer and its seller know: of a purchase, or of a licence.
ALTER TABLE royalties.revenue_event ADD COLUMN purchase_id uuid;
UPDATE royalties.revenue_event e SET purchase_id = p.id FROM payments.purchase p WHERE p.event_id = e.id;

-- Of what licensors between keep of a fee there is no distribution.
ALTER TABLE royalties.entry ADD COLUMN licence_id uuid;
UPDATE royalties.entry e SET licence_id = p.license_id FROM licensing.license_period p
WHERE e.distribution_id IS NULL AND e.kind = 'earned' AND e.revenue_kind = 'licence_fee'
    AND e.ref LIKE 'lic:%' AND split_part(e.ref, ':', 2) = replace(p.id::text, '-', '');
UPDATE royalties.entry e SET licence_id = r.license_id FROM licensing.license_refund r
WHERE e.distribution_id IS NULL AND e.kind = 'reversed' AND e.revenue_kind = 'licence_fee'
    AND split_part(e.ref, ':', 2) = replace(r.id::text, '-', '');
