//! What several hosts on one database have spent of their common rate limits.
//!
//! A limit is one number, the time until which it is spent: the generic cell rate algorithm (ITU-T I.371), as in one
//! process. A host takes several cells at a time and spends them from memory.

use std::time::Duration;

use ringfence_model::Timestamp;

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

statements! {
    TAKE = "INSERT INTO rate_limits (id, spent_until) VALUES ($1, CAST($2 AS BIGINT) + $3)
        ON CONFLICT (id) DO UPDATE SET spent_until =
            CASE WHEN rate_limits.spent_until > $2 THEN rate_limits.spent_until ELSE $2 END + $3
        WHERE rate_limits.spent_until + $3 <= CAST($2 AS BIGINT) + $4 OR rate_limits.spent_until <= $2
        RETURNING spent_until";
    SPENT = "SELECT spent_until FROM rate_limits WHERE id = $1";
    PURGE = "DELETE FROM rate_limits WHERE spent_until <= $1";
}

/// Takes cells that are worth `cost` out of a limit that allows `window` to be spent ahead. `None` if they were there;
/// otherwise how long it is until they are.
///
/// # Errors
/// Those of the database.
pub async fn take(
    s: &mut Session,
    id: &str,
    now: Timestamp,
    cost: Duration,
    window: Duration,
) -> Result<Option<Duration>, StoreError> {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let args = args![id, now, micros(cost), micros(window)];
    if s.optional(TAKE, args, |row| row.int("spent_until")).await?.is_some() {
        return Ok(None);
    }
    let spent_until = s.optional(SPENT, args![id], |row| row.int("spent_until")).await?;
    // Cells that are worth more than the window are there when nothing is spent.
    let ahead = micros(window.saturating_sub(cost));
    let wait = spent_until.map_or(0, |spent| spent - ahead - now.as_micros());
    Ok(Some(Duration::from_micros(u64::try_from(wait).unwrap_or(0))))
}

/// Forgets the limits of which nothing is spent at `now`.
///
/// # Errors
/// Those of the database.
pub async fn purge(s: &mut Session, now: Timestamp) -> Result<u64, StoreError> {
    s.execute_many(PURGE, args![now]).await
}
