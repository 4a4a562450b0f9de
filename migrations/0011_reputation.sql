-- What agents have done on the market, kept up by the transactions that end submissions and jobs.

CREATE TABLE reputation (
    agent_id            TEXT PRIMARY KEY REFERENCES agents (id),
    org_id              TEXT NOT NULL REFERENCES orgs (id),
    jobs_won            BIGINT NOT NULL CHECK (jobs_won >= 0),
    jobs_failed         BIGINT NOT NULL CHECK (jobs_failed >= 0),
    submissions_passed  BIGINT NOT NULL,
    submissions_failed  BIGINT NOT NULL,
    -- Micro-USDC.
    earned              BIGINT NOT NULL,
    spent               BIGINT NOT NULL,
    -- Won of a hundred that were won or failed, rounded down; null before the first.
    completion_rate     BIGINT
);
CREATE INDEX reputation_by_earned ON reputation (earned DESC, agent_id) WHERE completion_rate IS NOT NULL;
CREATE INDEX reputation_by_won ON reputation (jobs_won DESC, agent_id) WHERE completion_rate IS NOT NULL;
CREATE INDEX reputation_by_rate ON reputation (completion_rate DESC, jobs_won DESC, agent_id)
    WHERE completion_rate IS NOT NULL;

-- How a job ended for a worker: once for each, so that a failure is counted once and gives way to a win.
CREATE TABLE job_outcomes (
    job_id      TEXT NOT NULL REFERENCES jobs (id),
    agent_id    TEXT NOT NULL REFERENCES agents (id),
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    -- `won` or `failed`.
    outcome     TEXT NOT NULL,
    -- Micro-USDC.
    earned      BIGINT NOT NULL,
    -- The job's, which never changes.
    visibility  TEXT NOT NULL,
    ended_at    BIGINT NOT NULL,
    PRIMARY KEY (job_id, agent_id)
);
CREATE INDEX job_outcomes_by_agent ON job_outcomes (agent_id, ended_at, job_id) WHERE visibility = 'public';

CREATE INDEX participants_by_org ON participants (job_id, org_id, claimed_at, id);

-- What has happened so far. (No claim was given back yet.)
INSERT INTO job_outcomes (job_id, agent_id, org_id, outcome, earned, visibility, ended_at)
SELECT j.id, j.worker_id, j.worker_org_id, 'won',
    COALESCE((SELECT MAX(t.amount) FROM ledger_transfers t WHERE t.job_id = j.id AND t.kind = 'payout'), 0),
    j.visibility, COALESCE(j.ended_at, j.updated_at)
FROM jobs j WHERE j.status = 'resolved' AND j.worker_id IS NOT NULL AND j.worker_org_id IS NOT NULL;

INSERT INTO job_outcomes (job_id, agent_id, org_id, outcome, earned, visibility, ended_at)
SELECT s.job_id, s.worker_id, MIN(s.org_id), 'failed', 0, MIN(j.visibility),
    COALESCE(MAX(CASE WHEN j.status = 'expired' THEN j.ended_at END), MAX(s.judged_at), MAX(s.created_at))
FROM submissions s JOIN jobs j ON j.id = s.job_id
WHERE s.status = 'failed' AND s.oracle_fault IS NULL
    AND NOT EXISTS (SELECT 1 FROM job_outcomes o WHERE o.job_id = s.job_id AND o.agent_id = s.worker_id)
GROUP BY s.job_id, s.worker_id
HAVING COUNT(*) > MIN(j.max_retries) OR MIN(j.status) = 'expired';

INSERT INTO reputation (agent_id, org_id, jobs_won, jobs_failed, submissions_passed, submissions_failed, earned, spent)
SELECT done.agent_id, MIN(a.org_id), CAST(SUM(done.won) AS BIGINT), CAST(SUM(done.failed) AS BIGINT),
    CAST(SUM(done.passed) AS BIGINT), CAST(SUM(done.refused) AS BIGINT), CAST(SUM(done.earned) AS BIGINT),
    CAST(SUM(done.spent) AS BIGINT)
FROM (
    SELECT agent_id, CASE outcome WHEN 'won' THEN 1 ELSE 0 END AS won, CASE outcome WHEN 'failed' THEN 1 ELSE 0 END AS failed,
        0 AS passed, 0 AS refused, earned, 0 AS spent FROM job_outcomes
    UNION ALL
    SELECT worker_id, 0, 0, CASE status WHEN 'passed' THEN 1 ELSE 0 END, CASE status WHEN 'failed' THEN 1 ELSE 0 END, 0, 0
    FROM submissions WHERE status IN ('passed', 'failed') AND oracle_fault IS NULL
    UNION ALL
    SELECT buyer_id, 0, 0, 0, 0, 0, price FROM jobs WHERE status = 'resolved'
) AS done JOIN agents a ON a.id = done.agent_id
GROUP BY done.agent_id;

UPDATE reputation SET completion_rate = jobs_won * 100 / (jobs_won + jobs_failed) WHERE jobs_won + jobs_failed > 0;
