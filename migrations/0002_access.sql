-- Who may do what, and who did: users and their sessions, keys with scopes, policies, secrets, limits, the audit log.

CREATE TABLE users (
    id             TEXT PRIMARY KEY,
    org_id         TEXT NOT NULL REFERENCES orgs (id),
    -- In lower case: one address has one spelling.
    email          TEXT NOT NULL,
    name           TEXT NOT NULL,
    role           TEXT NOT NULL,
    -- A PHC string of Argon2id, or an imported bcrypt hash until its owner logs in.
    password_hash  TEXT NOT NULL,
    created_at     BIGINT NOT NULL,
    updated_at     BIGINT NOT NULL,
    last_login_at  BIGINT,
    disabled_at    BIGINT,
    deleted_at     BIGINT
);
CREATE UNIQUE INDEX users_by_email ON users (email) WHERE deleted_at IS NULL;
CREATE INDEX users_by_org ON users (org_id, created_at, id) WHERE deleted_at IS NULL;

-- From a login to a logout. A refresh token names a generation; each generation is exchanged once.
CREATE TABLE sessions (
    id            TEXT PRIMARY KEY,
    org_id        TEXT NOT NULL REFERENCES orgs (id),
    user_id       TEXT NOT NULL REFERENCES users (id),
    generation    BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    refreshed_at  BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    -- `logout`, `reuse`, `password`, `disabled`, `signing_key`.
    end_reason    TEXT
);
CREATE INDEX sessions_by_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- A key of an agent has an agent and no role; a service key has a role and no agent.
ALTER TABLE api_keys ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN role TEXT;
-- A JSON array of scopes.
ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '["*"]';
ALTER TABLE api_keys ADD COLUMN expires_at BIGINT;
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;
ALTER TABLE api_keys ADD COLUMN reads_per_minute BIGINT;
ALTER TABLE api_keys ADD COLUMN writes_per_minute BIGINT;
UPDATE api_keys SET role = 'operator', name = 'first operator key' WHERE agent_id IS NULL;
CREATE INDEX api_keys_by_org ON api_keys (org_id, created_at, id);
DROP INDEX api_keys_by_agent;
CREATE INDEX api_keys_by_agent ON api_keys (agent_id, created_at, id);

-- Cedar policies that operators have added to the permission matrix. They belong to the operators' org.
CREATE TABLE policies (
    id           TEXT PRIMARY KEY,
    org_id       TEXT NOT NULL REFERENCES orgs (id),
    name         TEXT NOT NULL UNIQUE,
    description  TEXT NOT NULL,
    text         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
-- Raised by every change of a policy, so that hosts see that there was one without reading them all.
CREATE TABLE policy_version (
    org_id   TEXT PRIMARY KEY REFERENCES orgs (id),
    version  BIGINT NOT NULL
);

-- Secrets of the host, sealed under the master key that `master_key_id` names.
CREATE TABLE secrets (
    id             TEXT PRIMARY KEY,
    org_id         TEXT NOT NULL REFERENCES orgs (id),
    kind           TEXT NOT NULL,
    sealed         TEXT NOT NULL,
    master_key_id  TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);
CREATE INDEX secrets_by_kind ON secrets (kind, created_at, id);

-- What was spent of a rate limit, as the time until which it is spent (GCRA). For several hosts on one database.
CREATE TABLE rate_limits (
    id           TEXT PRIMARY KEY,
    spent_until  BIGINT NOT NULL
);
CREATE INDEX rate_limits_by_time ON rate_limits (spent_until);

-- Who did what. Each entry carries the hash of the one before it in its org; rows are only ever inserted.
CREATE TABLE audit_log (
    org_id           TEXT NOT NULL REFERENCES orgs (id),
    seq              BIGINT NOT NULL,
    at               BIGINT NOT NULL,
    actor            TEXT NOT NULL,
    -- The key or the session that the actor used.
    credential       TEXT,
    action           TEXT NOT NULL,
    resource         TEXT NOT NULL,
    -- Whose the resource is.
    resource_org_id  TEXT NOT NULL,
    outcome          TEXT NOT NULL,
    request_id       TEXT,
    address          TEXT,
    detail           TEXT NOT NULL,
    previous_hash    TEXT NOT NULL,
    hash             TEXT NOT NULL,
    PRIMARY KEY (org_id, seq)
);
CREATE INDEX audit_log_by_actor ON audit_log (org_id, actor, seq);
CREATE INDEX audit_log_by_action ON audit_log (org_id, action, seq);
CREATE INDEX audit_log_by_resource ON audit_log (org_id, resource, seq);
CREATE INDEX audit_log_by_outcome ON audit_log (org_id, outcome, seq);

-- The end of each org's chain: whoever appends holds its row until the end of the transaction.
CREATE TABLE audit_heads (
    org_id  TEXT PRIMARY KEY REFERENCES orgs (id),
    seq     BIGINT NOT NULL,
    hash    TEXT NOT NULL
);

-- The claims on a job, also those that were given up.
CREATE INDEX participants_by_job ON participants (job_id, claimed_at, id);
