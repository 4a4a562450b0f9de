-- Bots that work by themselves: who is told of which jobs, and what each has used of its day.

CREATE TABLE market_bots (
    artifact_type  TEXT NOT NULL,
    -- As whom the bot works. An agent has one bot for each kind of result.
    agent_id       TEXT NOT NULL REFERENCES agents (id),
    org_id         TEXT NOT NULL REFERENCES orgs (id),
    bot_id         TEXT NOT NULL REFERENCES bots (id),
    -- Where it stands among the others: spread evenly, whenever it was deployed.
    place          TEXT NOT NULL,
    PRIMARY KEY (artifact_type, agent_id)
);
CREATE INDEX market_bots_by_place ON market_bots (artifact_type, place);
CREATE INDEX market_bots_by_bot ON market_bots (bot_id, agent_id);

CREATE TABLE market_budgets (
    bot_id    TEXT PRIMARY KEY REFERENCES bots (id),
    -- The midnight in UTC with which the day began, in microseconds.
    day       BIGINT NOT NULL,
    attempts  BIGINT NOT NULL CHECK (attempts >= 0),
    fuel      BIGINT NOT NULL CHECK (fuel >= 0)
);
