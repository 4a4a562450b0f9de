//! The bots' key-value stores.

use ringfence_model::{BotId, OrgId, Timestamp};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

/// What an entry takes besides the bytes of its key and its value, so that empty ones are not free.
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

statements! {
    GET = "SELECT value FROM kv_entries WHERE bot_id = $1 AND key = $2";
    SIZE = "SELECT CAST(LENGTH(value) AS BIGINT) AS n FROM kv_entries WHERE bot_id = $1 AND key = $2";
    USED = "SELECT used_bytes FROM kv_usage WHERE bot_id = $1";
    BEGIN_USAGE = "INSERT INTO kv_usage (bot_id, org_id, used_bytes) VALUES ($1, $2, 0) ON CONFLICT (bot_id) DO NOTHING";
    SET_USED = "UPDATE kv_usage SET used_bytes = $2 WHERE bot_id = $1";
    SET = "INSERT INTO kv_entries (bot_id, org_id, key, value, updated_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (bot_id, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";
    DELETE = "DELETE FROM kv_entries WHERE bot_id = $1 AND key = $2";
    LIST_FROM = "SELECT key FROM kv_entries WHERE bot_id = $1 AND key >= $2 ORDER BY key LIMIT $3";
    LIST_BETWEEN = "SELECT key FROM kv_entries WHERE bot_id = $1 AND key >= $2 AND key < $3 ORDER BY key LIMIT $4";
}

/// An entry that is to be written, and what its bot's store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Whose the bot is.
    pub org: &'a OrgId,
    /// The bot.
    pub bot: &'a BotId,
    /// The entry's key.
    pub key: &'a [u8],
    /// What all entries may take: keys, values and [`ENTRY_OVERHEAD_BYTES`] each.
    pub quota_bytes: u64,
    /// When it is written.
    pub now: Timestamp,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It took place.
    Done,
    /// Something else was there than was expected. Nothing was changed.
    Differs,
    /// The entries would take more than the quota. Nothing was changed.
    QuotaExceeded,
}

/// The value under a key.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, bot: &BotId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    // A list of one, for it may be long.
    Ok(s.all(GET, args![bot, key], |row| row.bytes("value")).await?.pop())
}

/// Puts a value under a key, or removes it if there is no value. Never answers [`Written::Differs`].
///
/// Two writers of one bot wait for each other, so that what is in use is always known. A write that takes no more than
/// what it replaces is let through even if a quota that was lowered is passed already.
///
/// # Errors
/// Those of the database.
pub async fn set(s: &mut Session, write: &Write<'_>, value: Option<&[u8]>) -> Result<Written, StoreError> {
    let used = lock_usage(s, write).await?;
    let there = s.optional(SIZE, args![write.bot, write.key], |row| row.count("n")).await?;
    replace(s, write, used, there, value).await
}

/// As [`set`], if `expected` is what is there (nothing, if it is `None`).
///
/// # Errors
/// Those of the database.
pub async fn compare_and_swap(
    s: &mut Session,
    write: &Write<'_>,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Written, StoreError> {
    let used = lock_usage(s, write).await?;
    let there = get(s, write.bot, write.key).await?;
    if there.as_deref() != expected {
        return Ok(Written::Differs);
    }
    replace(s, write, used, there.map(|value| bytes(&value)), value).await
}

/// What the bot's entries take. Nobody else writes any of them until the transaction ends.
async fn lock_usage(s: &mut Session, write: &Write<'_>) -> Result<u64, StoreError> {
    let locking = s.locking(USED);
    if let Some(used) = s.optional(locking, args![write.bot], |row| row.count("used_bytes")).await? {
        return Ok(used);
    }
    // Whoever else begins it, too, is waited for here.
    s.execute(BEGIN_USAGE, args![write.bot, write.org]).await?;
    let locking = s.locking(USED);
    s.one(locking, args![write.bot], |row| row.count("used_bytes")).await
}

/// Replaces what is there, a value of so many bytes or nothing, and keeps the sum.
async fn replace(
    s: &mut Session,
    write: &Write<'_>,
    used: u64,
    there: Option<u64>,
    value: Option<&[u8]>,
) -> Result<Written, StoreError> {
    let cost = |value: u64| bytes(write.key).saturating_add(value).saturating_add(ENTRY_OVERHEAD_BYTES);
    let (freed, needed) = (there.map_or(0, cost), value.map_or(0, |value| cost(bytes(value))));
    let then = used.saturating_sub(freed).saturating_add(needed);
    if needed > freed && then > write.quota_bytes {
        return Ok(Written::QuotaExceeded);
    }
    match value {
        Some(value) => {
            s.execute(SET, args![write.bot, write.org, write.key, value, write.now]).await?;
        }
        None if there.is_some() => {
            s.execute(DELETE, args![write.bot, write.key]).await?;
        }
        None => return Ok(Written::Done),
    }
    if then != used {
        s.execute(SET_USED, args![write.bot, i64::try_from(then).unwrap_or(i64::MAX)]).await?;
    }
    Ok(Written::Done)
}

fn bytes(value: &[u8]) -> u64 {
    u64::try_from(value.len()).unwrap_or(u64::MAX)
}

/// What a bot's entries take: the bytes of keys and values, and [`ENTRY_OVERHEAD_BYTES`] each.
///
/// # Errors
/// Those of the database.
pub async fn used_bytes(s: &mut Session, bot: &BotId) -> Result<u64, StoreError> {
    let used = s.optional(USED, args![bot], |row| row.count("used_bytes")).await?;
    Ok(used.unwrap_or(0))
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
