-- What calls used: of each call, and added up by day.

ALTER TABLE invocations ADD COLUMN egress_sent_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN egress_received_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN llm_input_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN llm_output_tokens BIGINT NOT NULL DEFAULT 0;

-- Written with the calls that it adds up. `day` is the midnight in UTC at which it begins; `org_id` is whose calls they
-- were, which for an oracle is the buyer and not its owner.
CREATE TABLE usage_by_day (
    org_id                 TEXT NOT NULL REFERENCES orgs (id),
    day                    BIGINT NOT NULL,
    bot_id                 TEXT NOT NULL REFERENCES bots (id),
    calls                  BIGINT NOT NULL,
    -- Those of them whose outcome was `completed`.
    completed              BIGINT NOT NULL,
    fuel                   BIGINT NOT NULL,
    -- The most of one call; the rest are sums.
    peak_memory_bytes      BIGINT NOT NULL,
    wall_us                BIGINT NOT NULL,
    cpu_us                 BIGINT NOT NULL,
    host_calls             BIGINT NOT NULL,
    log_bytes              BIGINT NOT NULL,
    input_bytes            BIGINT NOT NULL,
    output_bytes           BIGINT NOT NULL,
    egress_sent_bytes      BIGINT NOT NULL,
    egress_received_bytes  BIGINT NOT NULL,
    llm_input_tokens       BIGINT NOT NULL,
    llm_output_tokens      BIGINT NOT NULL,
    PRIMARY KEY (org_id, day, bot_id)
);
CREATE INDEX usage_by_bot ON usage_by_day (bot_id, day, org_id);
