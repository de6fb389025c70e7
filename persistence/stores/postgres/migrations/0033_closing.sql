-- A command that the core refused is being closed there: from then on nobody sends it again, and nobody notes it held.
ALTER TABLE money.command DROP CONSTRAINT command_state_check, ADD CONSTRAINT command_state_check CHECK (state IN (
    'ordered', 'closing', 'pending', 'posting', 'voiding', 'posted', 'voided', 'refused', 'stuck'));
DROP INDEX money.command_open;
CREATE INDEX command_open ON money.command (created_at)
    WHERE state IN ('ordered', 'closing', 'posting', 'voiding', 'stuck');

ALTER TABLE money.withdrawal DROP CONSTRAINT withdrawal_status_check, ADD CONSTRAINT withdrawal_status_check
    CHECK (status IN (
        'requested', 'refusing', 'held', 'confirmed', 'released', 'settled', 'canceling', 'canceled', 'failed'));
