-- Transfers are only ever added, whoever asks.
CREATE TRIGGER ledger_transfers_are_not_changed BEFORE UPDATE ON ledger_transfers
BEGIN SELECT RAISE(ABORT, 'transfers are never changed'); END;
CREATE TRIGGER ledger_transfers_are_not_deleted BEFORE DELETE ON ledger_transfers
BEGIN SELECT RAISE(ABORT, 'transfers are never deleted'); END;
-- What REPLACE removes, it removes without the trigger above.
CREATE TRIGGER ledger_transfers_are_not_replaced BEFORE INSERT ON ledger_transfers
WHEN EXISTS (SELECT 1 FROM ledger_transfers WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM ledger_transfers WHERE idempotency_id = NEW.idempotency_id)
    OR EXISTS (SELECT 1 FROM ledger_transfers WHERE external_reference = NEW.external_reference)
    OR EXISTS (SELECT 1 FROM ledger_transfers WHERE pending_id = NEW.pending_id)
    OR EXISTS (SELECT 1 FROM ledger_transfers WHERE job_id = NEW.job_id AND kind = NEW.kind
        AND phase IN ('single', 'posted') AND NEW.phase IN ('single', 'posted'))
BEGIN SELECT RAISE(ABORT, 'transfers are never replaced'); END;
