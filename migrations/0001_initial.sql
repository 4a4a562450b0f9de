-- The first schema. Portable: TEXT ids, BIGINT microseconds since 1970 in UTC, BIGINT micro-USDC, TEXT JSON.
-- Every row names the org that it belongs to. A job is a deal between two: its claims and submissions name the
-- worker's org (org_id) and the buyer's (buyer_org_id), and only these two see them.

CREATE TABLE orgs (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE agents (
    id              TEXT PRIMARY KEY,
    org_id          TEXT NOT NULL REFERENCES orgs (id),
    name            TEXT NOT NULL,
    wallet_address  TEXT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL
);
CREATE INDEX agents_by_org ON agents (org_id, id);

-- A key belongs to an agent, or is an operator's (agent_id is null). Only its SHA-256 is kept.
CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    agent_id    TEXT REFERENCES agents (id),
    hash        TEXT NOT NULL UNIQUE,
    prefix      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    revoked_at  BIGINT
);
CREATE INDEX api_keys_by_agent ON api_keys (agent_id);

-- Immutable, under the digest of its bytes. Two orgs that upload the same bytes have a row each.
CREATE TABLE components (
    org_id        TEXT NOT NULL REFERENCES orgs (id),
    digest        TEXT NOT NULL,
    kind          TEXT NOT NULL,
    size_bytes    BIGINT NOT NULL,
    imports       TEXT NOT NULL,
    capabilities  TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    -- Last: SQLite reads through what lies before a column.
    wasm          BYTEA NOT NULL,
    PRIMARY KEY (org_id, digest)
);
CREATE INDEX components_by_time ON components (org_id, created_at, digest);
CREATE INDEX components_by_digest ON components (digest);

CREATE TABLE bots (
    id                TEXT PRIMARY KEY,
    org_id            TEXT NOT NULL REFERENCES orgs (id),
    name              TEXT NOT NULL,
    description       TEXT NOT NULL,
    kind              TEXT NOT NULL,
    version           BIGINT NOT NULL,
    component_digest  TEXT NOT NULL,
    config            TEXT NOT NULL,
    grants            TEXT NOT NULL,
    limits            TEXT NOT NULL,
    status            TEXT NOT NULL,
    created_at        BIGINT NOT NULL,
    updated_at        BIGINT NOT NULL,
    FOREIGN KEY (org_id, component_digest) REFERENCES components (org_id, digest)
);
CREATE UNIQUE INDEX bots_by_name ON bots (org_id, name) WHERE status <> 'terminated';
CREATE INDEX bots_by_time ON bots (org_id, created_at, id);

CREATE TABLE kv_entries (
    bot_id      TEXT NOT NULL REFERENCES bots (id),
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    key         BYTEA NOT NULL,
    value       BYTEA NOT NULL,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (bot_id, key)
);

CREATE TABLE jobs (
    id                    TEXT PRIMARY KEY,
    org_id                TEXT NOT NULL REFERENCES orgs (id),
    buyer_id              TEXT NOT NULL REFERENCES agents (id),
    title                 TEXT NOT NULL,
    description           TEXT NOT NULL,
    rubric                TEXT NOT NULL,
    artifact_type         TEXT NOT NULL,
    price                 BIGINT NOT NULL CHECK (price > 0),
    fee_bps               BIGINT NOT NULL CHECK (fee_bps BETWEEN 0 AND 10000),
    expiry                BIGINT NOT NULL,
    max_submissions       BIGINT NOT NULL,
    max_retries           BIGINT NOT NULL,
    status                TEXT NOT NULL,
    oracle_bot_id         TEXT NOT NULL REFERENCES bots (id),
    -- What judges the job, fixed when it is funded: bot, version, digest, configuration, limits.
    oracle_pin            TEXT,
    input_digest          TEXT,
    deposit_amount        BIGINT,
    refunded_amount       BIGINT,
    winning_submission_id TEXT,
    worker_id             TEXT REFERENCES agents (id),
    worker_org_id         TEXT REFERENCES orgs (id),
    payout_status         TEXT,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    funded_at             BIGINT,
    ended_at              BIGINT,
    CHECK ((status = 'resolved') = (winning_submission_id IS NOT NULL))
);
-- One index for each order that a listing can ask for, alone and behind each filter that narrows it.
CREATE INDEX jobs_by_created ON jobs (created_at, id);
CREATE INDEX jobs_by_price ON jobs (price, id);
CREATE INDEX jobs_by_expiry ON jobs (expiry, id);
CREATE INDEX jobs_by_status_created ON jobs (status, created_at, id);
CREATE INDEX jobs_by_status_price ON jobs (status, price, id);
CREATE INDEX jobs_by_status_expiry ON jobs (status, expiry, id);
CREATE INDEX jobs_by_buyer_created ON jobs (buyer_id, created_at, id);
CREATE INDEX jobs_by_buyer_price ON jobs (buyer_id, price, id);
CREATE INDEX jobs_by_buyer_expiry ON jobs (buyer_id, expiry, id);
CREATE INDEX jobs_by_type_created ON jobs (artifact_type, created_at, id);
CREATE INDEX jobs_by_type_price ON jobs (artifact_type, price, id);
CREATE INDEX jobs_by_type_expiry ON jobs (artifact_type, expiry, id);
CREATE INDEX jobs_unfinished_by_oracle ON jobs (oracle_bot_id) WHERE status IN ('open', 'funded');

-- Beside the job, so that a listing never reads it.
CREATE TABLE job_inputs (
    job_id   TEXT PRIMARY KEY REFERENCES jobs (id),
    org_id   TEXT NOT NULL REFERENCES orgs (id),
    content  TEXT NOT NULL
);

CREATE TABLE participants (
    id            TEXT PRIMARY KEY,
    job_id        TEXT NOT NULL REFERENCES jobs (id),
    worker_id     TEXT NOT NULL REFERENCES agents (id),
    org_id        TEXT NOT NULL REFERENCES orgs (id),
    buyer_org_id  TEXT NOT NULL REFERENCES orgs (id),
    claimed_at    BIGINT NOT NULL,
    unclaimed_at  BIGINT
);
CREATE UNIQUE INDEX participants_once ON participants (job_id, worker_id) WHERE unclaimed_at IS NULL;
CREATE INDEX participants_by_worker ON participants (worker_id, job_id);

CREATE TABLE submissions (
    id              TEXT PRIMARY KEY,
    job_id          TEXT NOT NULL REFERENCES jobs (id),
    org_id          TEXT NOT NULL REFERENCES orgs (id),
    buyer_org_id    TEXT NOT NULL REFERENCES orgs (id),
    worker_id       TEXT NOT NULL REFERENCES agents (id),
    attempt         BIGINT NOT NULL,
    content         TEXT NOT NULL,
    content_digest  TEXT NOT NULL,
    status          TEXT NOT NULL,
    score           BIGINT,
    reason          TEXT,
    steps           TEXT,
    -- Why the oracle could not judge; such an attempt is not counted against the worker.
    oracle_fault    TEXT,
    invocation_id   TEXT,
    created_at      BIGINT NOT NULL,
    judged_at       BIGINT,
    UNIQUE (job_id, worker_id, attempt)
);
CREATE UNIQUE INDEX submissions_one_winner ON submissions (job_id) WHERE status = 'passed';
CREATE INDEX submissions_by_job ON submissions (job_id, created_at, id);
CREATE INDEX submissions_by_worker ON submissions (worker_id, created_at, id);

CREATE TABLE invocations (
    id                 TEXT PRIMARY KEY,
    org_id             TEXT NOT NULL REFERENCES orgs (id),
    bot_id             TEXT NOT NULL REFERENCES bots (id),
    bot_version        BIGINT NOT NULL,
    component_digest   TEXT NOT NULL,
    -- Set when an oracle judged: the buyer of the job may see it too.
    submission_id      TEXT REFERENCES submissions (id),
    outcome            TEXT NOT NULL,
    detail             TEXT,
    input_digest       TEXT NOT NULL,
    output_digest      TEXT,
    limits             TEXT NOT NULL,
    engine             TEXT NOT NULL,
    fuel               BIGINT NOT NULL,
    peak_memory_bytes  BIGINT NOT NULL,
    wall_us            BIGINT NOT NULL,
    cpu_us             BIGINT NOT NULL,
    host_calls         BIGINT NOT NULL,
    log_bytes          BIGINT NOT NULL,
    input_bytes        BIGINT NOT NULL,
    output_bytes       BIGINT NOT NULL,
    started_at         BIGINT NOT NULL
);
CREATE INDEX invocations_by_bot ON invocations (bot_id, started_at, id);

CREATE TABLE invocation_logs (
    invocation_id  TEXT PRIMARY KEY REFERENCES invocations (id),
    org_id         TEXT NOT NULL REFERENCES orgs (id),
    -- A JSON array of lines, bounded by the invocation's log limit.
    lines          TEXT NOT NULL
);

-- Double entry. A balance is what came in less what went out; only `external`, the world outside, may be below zero.
CREATE TABLE ledger_accounts (
    id        TEXT PRIMARY KEY,
    org_id    TEXT NOT NULL REFERENCES orgs (id),
    kind      TEXT NOT NULL,
    -- The agent of an `agent` account, the job of an `escrow` account, else the org.
    owner_id  TEXT NOT NULL,
    balance   BIGINT NOT NULL,
    UNIQUE (kind, owner_id),
    CHECK (balance >= 0 OR kind = 'external')
);

-- Rows are only ever inserted.
CREATE TABLE ledger_transfers (
    id                  TEXT PRIMARY KEY,
    org_id              TEXT NOT NULL REFERENCES orgs (id),
    kind                TEXT NOT NULL,
    debit_account_id    TEXT NOT NULL REFERENCES ledger_accounts (id),
    credit_account_id   TEXT NOT NULL REFERENCES ledger_accounts (id),
    amount              BIGINT NOT NULL CHECK (amount > 0),
    job_id              TEXT REFERENCES jobs (id),
    -- What makes this movement one of a kind, for example `payout:job_…`: it can be booked once.
    idempotency_id      TEXT NOT NULL UNIQUE,
    external_reference  TEXT UNIQUE,
    created_at          BIGINT NOT NULL,
    CHECK (debit_account_id <> credit_account_id)
);
CREATE INDEX ledger_transfers_by_debit ON ledger_transfers (debit_account_id, created_at, id);
CREATE INDEX ledger_transfers_by_credit ON ledger_transfers (credit_account_id, created_at, id);
CREATE INDEX ledger_transfers_by_job ON ledger_transfers (job_id);

-- Work to be done. Taking a lease raises `attempt`; finishing needs the same attempt.
CREATE TABLE queue (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES orgs (id),
    kind         TEXT NOT NULL,
    payload      TEXT NOT NULL,
    -- One piece of work of a kind for a subject at a time.
    subject_id   TEXT NOT NULL,
    run_at       BIGINT NOT NULL,
    attempt      BIGINT NOT NULL,
    lease_owner  TEXT,
    lease_until  BIGINT,
    last_error   TEXT,
    -- Set when no further attempt is made: a dead letter.
    dead_at      BIGINT,
    created_at   BIGINT NOT NULL,
    UNIQUE (kind, subject_id)
);
CREATE INDEX queue_due ON queue (kind, run_at, id) WHERE dead_at IS NULL;
CREATE INDEX queue_held ON queue (kind, lease_until) WHERE lease_until IS NOT NULL;

-- What happened, written in the transaction in which it did.
CREATE TABLE outbox (
    id            TEXT PRIMARY KEY,
    org_id        TEXT NOT NULL REFERENCES orgs (id),
    -- The other party of a job's deal, who may see the event too.
    other_org_id  TEXT REFERENCES orgs (id),
    event         TEXT NOT NULL,
    task_id       TEXT,
    data          TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);
CREATE INDEX outbox_by_time ON outbox (created_at, id);

-- `principal` is the key's agent, or `operator`. `response` is null while the first request runs.
CREATE TABLE idempotency_keys (
    principal     TEXT NOT NULL,
    key           TEXT NOT NULL,
    org_id        TEXT NOT NULL REFERENCES orgs (id),
    request_hash  TEXT NOT NULL,
    response      TEXT,
    created_at    BIGINT NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
