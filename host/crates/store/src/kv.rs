//! The bots' key-value stores.

use ringfence_model::{BotId, OrgId, Timestamp};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

statements! {
    GET = "SELECT value FROM kv_entries WHERE bot_id = $1 AND key = $2";
    LOCK_BOT = "SELECT id FROM bots WHERE id = $1";
    USED = "SELECT CAST(COALESCE(SUM(LENGTH(key) + LENGTH(value)), 0) AS BIGINT) AS n FROM kv_entries
        WHERE bot_id = $1 AND key <> $2";
    SET = "INSERT INTO kv_entries (bot_id, org_id, key, value, updated_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (bot_id, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";
    DELETE = "DELETE FROM kv_entries WHERE bot_id = $1 AND key = $2";
    LIST_FROM = "SELECT key FROM kv_entries WHERE bot_id = $1 AND key >= $2 ORDER BY key LIMIT $3";
    LIST_BETWEEN = "SELECT key FROM kv_entries WHERE bot_id = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4";
}

/// The value under a key.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, bot: &BotId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    s.optional(GET, args![bot, key], |row| row.bytes("value")).await
}

/// Puts a value under a key; `false`, and nothing written, if keys and values would then take more than `quota_bytes`.
/// Two writers of one bot wait for each other, so that the quota holds.
///
/// # Errors
/// Those of the database.
pub async fn set(
    s: &mut Session,
    org: &OrgId,
    bot: &BotId,
    key: &[u8],
    value: &[u8],
    quota_bytes: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    s.optional(s.locking(LOCK_BOT), args![bot], |_| Ok(())).await?;
    let used = s.one(USED, args![bot, key], |row| row.count("n")).await?;
    let needed = u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX);
    if used.saturating_add(needed) > quota_bytes {
        return Ok(false);
    }
    s.execute(SET, args![bot, org, key, value, now]).await?;
    Ok(true)
}

/// Removes a key.
///
/// # Errors
/// Those of the database.
pub async fn delete(s: &mut Session, bot: &BotId, key: &[u8]) -> Result<(), StoreError> {
    s.execute(DELETE, args![bot, key]).await?;
    Ok(())
}

/// Keys that begin with `prefix` and come after `after`, in byte order.
///
/// # Errors
/// Those of the database.
pub async fn list_keys(
    s: &mut Session,
    bot: &BotId,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<Vec<u8>>, StoreError> {
    // The least key after another is that other with a zero behind it.
    let after = after.map(|after| [after, &[0]].concat()).unwrap_or_default();
    let from = prefix.max(after.as_slice());
    match behind(prefix) {
        Some(end) => {
            s.all(LIST_BETWEEN, args![bot, from, end.as_slice(), limit], |row| row.bytes("key")).await
        }
        None => s.all(LIST_FROM, args![bot, from, limit], |row| row.bytes("key")).await,
    }
}

/// The least bytes that are greater than all that begin with `prefix`, if there are any.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
