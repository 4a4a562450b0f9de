-- What each bot's key-value store takes, changed in the transaction of every write: the bytes of all keys and values, and
-- 64 more for each entry.
CREATE TABLE kv_usage (
    bot_id      TEXT PRIMARY KEY REFERENCES bots (id),
    org_id      TEXT NOT NULL REFERENCES orgs (id),
    used_bytes  BIGINT NOT NULL CHECK (used_bytes >= 0)
);
INSERT INTO kv_usage (bot_id, org_id, used_bytes)
    SELECT bot_id, org_id, CAST(SUM(LENGTH(key) + LENGTH(value) + 64) AS BIGINT) FROM kv_entries GROUP BY bot_id, org_id;
