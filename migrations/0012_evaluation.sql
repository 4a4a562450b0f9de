-- When a verdict counts, and what becomes of a job whose oracle cannot judge.

-- The least score, 0 to 100, with which a submission passes.
ALTER TABLE jobs ADD COLUMN min_score BIGINT NOT NULL DEFAULT 0 CHECK (min_score BETWEEN 0 AND 100);
-- Whether submissions are looked through before the oracle reads them, 0 or 1, if the buyer has said so.
ALTER TABLE jobs ADD COLUMN guard BIGINT CHECK (guard IN (0, 1));
-- How many submissions in a row the oracle could not judge.
ALTER TABLE jobs ADD COLUMN oracle_faults BIGINT NOT NULL DEFAULT 0 CHECK (oracle_faults >= 0);
