-- What becomes of a bot's lines: how long they are kept, if less long than the host keeps them, and which are.
ALTER TABLE bots ADD COLUMN log_keep_days BIGINT;
ALTER TABLE bots ADD COLUMN log_min_level TEXT;
-- Of a bot whose lines are kept less long: what began before this time has none any more.
ALTER TABLE bots ADD COLUMN logs_deleted_until BIGINT NOT NULL DEFAULT 0;
CREATE INDEX bots_by_log_keep_days ON bots (id) WHERE log_keep_days IS NOT NULL;

CREATE INDEX usage_by_org_and_bot ON usage_by_day (org_id, bot_id, day);
