-- Transfers in two phases, accounts that are frozen, and one movement of each kind for a job.

-- What pending transfers will take. What can be spent is the balance without it.
ALTER TABLE ledger_accounts ADD COLUMN reserved BIGINT NOT NULL DEFAULT 0
    CHECK (reserved >= 0 AND (reserved <= balance OR kind = 'external'));
CREATE INDEX ledger_accounts_reserving ON ledger_accounts (kind, reserved) WHERE reserved > 0;
-- Set while an operator has frozen an agent's account: since when, and why.
ALTER TABLE ledger_accounts ADD COLUMN frozen_at BIGINT;
ALTER TABLE ledger_accounts ADD COLUMN frozen_reason TEXT;

-- `single`: booked at once. `pending`: reserves the amount and moves nothing. `posted` and `voided`: end a pending one, by
-- moving the amount or by giving it free.
ALTER TABLE ledger_transfers ADD COLUMN phase TEXT NOT NULL DEFAULT 'single'
    CHECK (phase IN ('single', 'pending', 'posted', 'voided'));
-- The pending transfer that this one ends.
ALTER TABLE ledger_transfers ADD COLUMN pending_id TEXT REFERENCES ledger_transfers (id)
    CHECK ((pending_id IS NULL) = (phase IN ('single', 'pending')));

-- A pending transfer ends once.
CREATE UNIQUE INDEX ledger_transfers_by_pending ON ledger_transfers (pending_id) WHERE pending_id IS NOT NULL;
-- Of each kind, money moves once for a job: one funding, one payout, one refund.
CREATE UNIQUE INDEX ledger_transfers_once_for_job ON ledger_transfers (job_id, kind)
    WHERE job_id IS NOT NULL AND phase IN ('single', 'posted');

CREATE INDEX ledger_transfers_by_kind ON ledger_transfers (kind, phase, created_at, id);
CREATE INDEX ledger_transfers_by_debit_kind ON ledger_transfers (debit_account_id, kind, created_at, id);
CREATE INDEX ledger_transfers_by_credit_kind ON ledger_transfers (credit_account_id, kind, created_at, id);

-- What operators have said that the bank or the wallet holds. The newest counts.
CREATE TABLE reported_balances (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES orgs (id),
    amount       BIGINT NOT NULL CHECK (amount >= 0),
    note         TEXT NOT NULL,
    reported_by  TEXT NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE INDEX reported_balances_by_time ON reported_balances (created_at, id);
