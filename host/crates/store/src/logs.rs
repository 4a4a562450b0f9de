//! Lines across calls, and the end of what is kept for a time.
//!
//! The ids of calls sort by the time at which they were made. So what is old stands at the beginning of an index that is
//! there anyway, and what is deleted is found without looking at what stays.

use ringfence_model::{BotId, InvocationId, SubmissionId, Timestamp};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// A call, as far as whoever looks for lines needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The call.
    pub id: InvocationId,
    /// What it judged, if it was an oracle's.
    pub submission_id: Option<SubmissionId>,
    /// How it ended.
    pub outcome: String,
    /// When it began.
    pub started_at: Timestamp,
    /// What its lines were charged.
    pub log_bytes: u64,
}

/// A bot whose lines are kept for a time of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepDays {
    /// The bot.
    pub bot_id: BotId,
    /// How many days.
    pub days: u32,
    /// What began before this time has no lines any more.
    pub deleted_until: Timestamp,
}

statements! {
    CALLS = "SELECT id, submission_id, outcome, started_at, log_bytes FROM invocations
        WHERE bot_id = $1 AND (started_at, id) < ($2, $3) AND started_at >= $4
        ORDER BY started_at DESC, id DESC LIMIT $5";
    CALL = "SELECT id, submission_id, outcome, started_at, log_bytes FROM invocations WHERE id = $2 AND bot_id = $1";
    DELETE_OLD = "DELETE FROM invocation_logs WHERE invocation_id IN
        (SELECT invocation_id FROM invocation_logs WHERE invocation_id < $1 ORDER BY invocation_id LIMIT $2)";
    KEEP_DAYS = "SELECT id, log_keep_days, logs_deleted_until FROM bots
        WHERE log_keep_days IS NOT NULL AND id > $1 ORDER BY id LIMIT $2";
    BEGUN = "SELECT started_at FROM invocations WHERE bot_id = $1 AND started_at >= $2 AND started_at < $3
        ORDER BY started_at LIMIT $4";
    DELETE_OF_BOT = "DELETE FROM invocation_logs WHERE invocation_id IN
        (SELECT id FROM invocations WHERE bot_id = $1 AND started_at >= $2 AND started_at < $3)";
    DELETED_UNTIL = "UPDATE bots SET logs_deleted_until = $2 WHERE id = $1 AND logs_deleted_until < $2";
    OLD_CALLS = "SELECT id FROM invocations WHERE id > $1 AND id < $2 AND submission_id IS NULL ORDER BY id LIMIT $3";
    DELETE_LOGS_OF_CALLS = "DELETE FROM invocation_logs WHERE invocation_id IN
        (SELECT id FROM invocations WHERE id > $1 AND id <= $2 AND submission_id IS NULL)";
    DELETE_CALLS = "DELETE FROM invocations WHERE id > $1 AND id <= $2 AND submission_id IS NULL";
}

/// A bot's calls before a place in their order (begin, id) and from a time on, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn calls(
    s: &mut Session,
    bot: &BotId,
    before: (Timestamp, &InvocationId),
    since: Timestamp,
    limit: u32,
) -> Result<Vec<Logged>, StoreError> {
    s.all(CALLS, args![bot, before.0, before.1, since, limit], read).await
}

/// A call of a bot.
///
/// # Errors
/// Those of the database.
pub async fn call(s: &mut Session, bot: &BotId, id: &InvocationId) -> Result<Option<Logged>, StoreError> {
    s.optional(CALL, args![bot, id], read).await
}

/// Deletes the lines of some of the calls whose ids are less than this one; how many had any.
///
/// # Errors
/// Those of the database.
pub async fn delete_old(s: &mut Session, before: &InvocationId, limit: u32) -> Result<u64, StoreError> {
    s.execute_many(DELETE_OLD, args![before, limit]).await
}

/// Bots whose lines are kept for a time of their own, in the order of their ids, after this one.
///
/// # Errors
/// Those of the database.
pub async fn keep_days(s: &mut Session, after: &str, limit: u32) -> Result<Vec<KeepDays>, StoreError> {
    let read = |row: &Row| {
        Ok(KeepDays {
            bot_id: row.parse("id")?,
            days: row.small("log_keep_days")?,
            deleted_until: row.time("logs_deleted_until")?,
        })
    };
    s.all(KEEP_DAYS, args![after, limit], read).await
}

/// Deletes the lines of some of a bot's calls that began before a time; whether there may be more.
///
/// # Errors
/// Those of the database; then nothing may be committed.
pub async fn delete_of_bot(
    s: &mut Session,
    keep: &KeepDays,
    before: Timestamp,
    limit: u32,
) -> Result<Option<KeepDays>, StoreError> {
    let begun = args![&keep.bot_id, keep.deleted_until, before, limit];
    let begun = s.all(BEGUN, begun, |row| row.time("started_at")).await?;
    let full = u32::try_from(begun.len()).is_ok_and(|found| found >= limit);
    // Those that began with the last one go with it.
    let next = begun.last().filter(|_| full);
    let until = next.map_or(before, |last| last.plus(std::time::Duration::from_micros(1)));
    if !begun.is_empty() {
        s.execute_many(DELETE_OF_BOT, args![&keep.bot_id, keep.deleted_until, until]).await?;
    }
    s.execute(DELETED_UNTIL, args![&keep.bot_id, until]).await?;
    Ok(full.then(|| KeepDays { deleted_until: until, ..keep.clone() }))
}

/// Deletes some of the calls with ids between these two and their lines, but not those about submissions; the last one
/// deleted, if there may be more.
///
/// # Errors
/// Those of the database; then nothing may be committed.
pub async fn delete_calls(
    s: &mut Session,
    after: &InvocationId,
    before: &InvocationId,
    limit: u32,
) -> Result<(u64, Option<InvocationId>), StoreError> {
    let old: Vec<InvocationId> = s.all(OLD_CALLS, args![after, before, limit], |row| row.parse("id")).await?;
    let Some(last) = old.last() else { return Ok((0, None)) };
    s.execute_many(DELETE_LOGS_OF_CALLS, args![after, last]).await?;
    let deleted = s.execute_many(DELETE_CALLS, args![after, last]).await?;
    let full = u32::try_from(old.len()).is_ok_and(|found| found >= limit);
    Ok((deleted, full.then(|| last.clone())))
}

fn read(row: &Row) -> Result<Logged, StoreError> {
    Ok(Logged {
        id: row.parse("id")?,
        submission_id: row.opt_parse("submission_id")?,
        outcome: row.text("outcome")?,
        started_at: row.time("started_at")?,
        log_bytes: row.count("log_bytes")?,
    })
}
