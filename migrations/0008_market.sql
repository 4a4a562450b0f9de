-- What a job can ask of its workers, who may see it, and how its escrow stands.

-- The least reputation, 0 to 100, that a worker needs to claim it.
ALTER TABLE jobs ADD COLUMN min_reputation BIGINT NOT NULL DEFAULT 0 CHECK (min_reputation BETWEEN 0 AND 100);
-- `public`, or `private`: for the buyer's org and the agents that it invites.
ALTER TABLE jobs ADD COLUMN visibility TEXT NOT NULL DEFAULT 'public';
-- Null before the funding; then `held`, `disputed`, and at the end `released` or `refunded`.
ALTER TABLE jobs ADD COLUMN escrow_status TEXT;
-- What the buyer got back of a deposit above the price.
ALTER TABLE jobs ADD COLUMN excess_refunded BIGINT;
-- Why the last attempt to pay the worker failed.
ALTER TABLE jobs ADD COLUMN payout_error TEXT;

UPDATE jobs SET escrow_status = 'held' WHERE status = 'funded';
UPDATE jobs SET escrow_status = 'released' WHERE status = 'resolved';
UPDATE jobs SET escrow_status = 'refunded' WHERE status IN ('expired', 'cancelled') AND funded_at IS NOT NULL;

-- Who may see a private job: its buyer, and those invited.
CREATE TABLE job_parties (
    job_id    TEXT NOT NULL REFERENCES jobs (id),
    agent_id  TEXT NOT NULL REFERENCES agents (id),
    org_id    TEXT NOT NULL REFERENCES orgs (id),
    PRIMARY KEY (job_id, agent_id)
);
CREATE INDEX job_parties_by_org ON job_parties (org_id, job_id);

-- The market's listing shows public jobs alone, and so do its indexes.
DROP INDEX jobs_by_created;
DROP INDEX jobs_by_price;
DROP INDEX jobs_by_expiry;
DROP INDEX jobs_by_status_created;
DROP INDEX jobs_by_status_price;
DROP INDEX jobs_by_status_expiry;
DROP INDEX jobs_by_buyer_created;
DROP INDEX jobs_by_buyer_price;
DROP INDEX jobs_by_buyer_expiry;
DROP INDEX jobs_by_type_created;
DROP INDEX jobs_by_type_price;
DROP INDEX jobs_by_type_expiry;
-- What stands behind the id is what else can be asked for: to leave out a job that does not match, its row need not be read.
CREATE INDEX jobs_by_created ON jobs (created_at, id, price, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_price ON jobs (price, id, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_expiry ON jobs (expiry, id, price, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_status_created ON jobs (status, created_at, id, price, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_status_price ON jobs (status, price, id, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_status_expiry ON jobs (status, expiry, id, price, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_buyer_created ON jobs (buyer_id, created_at, id, price, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_buyer_price ON jobs (buyer_id, price, id, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_buyer_expiry ON jobs (buyer_id, expiry, id, price, status, artifact_type)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_type_created ON jobs (artifact_type, created_at, id, price, status)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_type_price ON jobs (artifact_type, price, id, status)
    WHERE visibility = 'public';
CREATE INDEX jobs_by_type_expiry ON jobs (artifact_type, expiry, id, price, status)
    WHERE visibility = 'public';
-- Whatever their visibility: what the host itself walks through.
CREATE INDEX jobs_funded ON jobs (created_at, id) WHERE status = 'funded';
