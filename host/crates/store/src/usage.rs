//! What calls used, added up: by day, bot or org.

use ringfence_model::{BotId, OrgId, Timestamp};

use crate::invocations::Usage;
use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// What several calls used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums<K> {
    /// The day, the bot or the org that they have in common.
    pub key: K,
    /// How many they were.
    pub calls: u64,
    /// Those whose outcome was `completed`.
    pub completed: u64,
    /// Sums, but for `peak_memory_bytes`, which is the most of one call. What is too large to be stored as a number of the
    /// database is the largest one.
    pub usage: Usage,
}

/// Which days to add up. Both are midnights, and both days count.
#[derive(Debug, Clone, Copy)]
pub struct Days {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
}

// The sum of numbers of 64 bits may need more. Its halves do not.
macro_rules! halves {
    ($column:literal) => {
        concat!(
            ", CAST(COALESCE(SUM(",
            $column,
            " / 4294967296), 0) AS BIGINT) AS ",
            $column,
            "_high",
            ", CAST(COALESCE(SUM(",
            $column,
            " % 4294967296), 0) AS BIGINT) AS ",
            $column,
            "_low"
        )
    };
}
macro_rules! sums {
    () => {
        concat!(
            "CAST(COALESCE(SUM(calls), 0) AS BIGINT) AS calls, CAST(COALESCE(SUM(completed), 0) AS BIGINT) AS completed,
            CAST(COALESCE(MAX(peak_memory_bytes), 0) AS BIGINT) AS peak_memory_bytes",
            halves!("fuel"), halves!("wall_us"), halves!("cpu_us"), halves!("host_calls"), halves!("log_bytes"),
            halves!("input_bytes"), halves!("output_bytes"), halves!("egress_sent_bytes"),
            halves!("egress_received_bytes"), halves!("llm_input_tokens"), halves!("llm_output_tokens"),
            " FROM usage_by_day WHERE"
        )
    };
}

statements! {
    BY_DAY = concat!("SELECT day, ", sums!(), " org_id = $1 AND day >= $2 AND day <= $3
        GROUP BY day ORDER BY day LIMIT $4");
    BY_DAY_OF_BOT = concat!("SELECT day, ", sums!(), " org_id = $1 AND bot_id = $2 AND day >= $3 AND day <= $4
        GROUP BY day ORDER BY day LIMIT $5");
    BY_BOT = concat!("SELECT bot_id, ", sums!(), " org_id = $1 AND bot_id > $2 AND day >= $3 AND day <= $4
        GROUP BY bot_id ORDER BY bot_id LIMIT $5");
    BY_ORG = concat!("SELECT org_id, ", sums!(), " org_id > $1 AND day >= $2 AND day <= $3
        GROUP BY org_id ORDER BY org_id LIMIT $4");
    OF_ORG = concat!("SELECT ", sums!(), " org_id = $1 AND day >= $2 AND day <= $3");
    OF_BOT = concat!("SELECT ", sums!(), " org_id = $1 AND bot_id = $2 AND day >= $3 AND day <= $4");
}

/// An org's usage day by day, or that of one of its bots; the oldest day first. A day without calls is left out.
///
/// # Errors
/// Those of the database.
pub async fn by_day(
    s: &mut Session,
    org: &OrgId,
    bot: Option<&BotId>,
    days: Days,
    limit: u32,
) -> Result<Vec<Sums<Timestamp>>, StoreError> {
    let read = |row: &Row| read(row, row.time("day")?);
    match bot {
        None => s.all(BY_DAY, args![org, days.from, days.to, limit], read).await,
        Some(bot) => s.all(BY_DAY_OF_BOT, args![org, bot, days.from, days.to, limit], read).await,
    }
}

/// An org's usage bot by bot, in the order of their ids, after this one.
///
/// # Errors
/// Those of the database.
pub async fn by_bot(
    s: &mut Session,
    org: &OrgId,
    after: &str,
    days: Days,
    limit: u32,
) -> Result<Vec<Sums<BotId>>, StoreError> {
    let args = args![org, after, days.from, days.to, limit];
    s.all(BY_BOT, args, |row| read(row, row.parse("bot_id")?)).await
}

/// The usage of every org, in the order of their ids, after this one.
///
/// # Errors
/// Those of the database.
pub async fn by_org(
    s: &mut Session,
    after: &str,
    days: Days,
    limit: u32,
) -> Result<Vec<Sums<OrgId>>, StoreError> {
    s.all(BY_ORG, args![after, days.from, days.to, limit], |row| read(row, row.parse("org_id")?)).await
}

/// All of an org's usage, or of one of its bots.
///
/// # Errors
/// Those of the database.
pub async fn total(
    s: &mut Session,
    org: &OrgId,
    bot: Option<&BotId>,
    days: Days,
) -> Result<Sums<()>, StoreError> {
    let read = |row: &Row| read(row, ());
    match bot {
        None => s.one(OF_ORG, args![org, days.from, days.to], read).await,
        Some(bot) => s.one(OF_BOT, args![org, bot, days.from, days.to], read).await,
    }
}

fn read<K>(row: &Row, key: K) -> Result<Sums<K>, StoreError> {
    let whole = |column: &str| {
        let (high, low) = (row.count(&format!("{column}_high"))?, row.count(&format!("{column}_low"))?);
        let sum = (u128::from(high) << 32) + u128::from(low);
        Ok::<_, StoreError>(u64::try_from(sum).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs()))
    };
    Ok(Sums {
        key,
        calls: row.count("calls")?,
        completed: row.count("completed")?,
        usage: Usage {
            fuel: whole("fuel")?,
            peak_memory_bytes: row.count("peak_memory_bytes")?,
            wall_us: whole("wall_us")?,
            cpu_us: whole("cpu_us")?,
            host_calls: whole("host_calls")?,
            log_bytes: whole("log_bytes")?,
            input_bytes: whole("input_bytes")?,
            output_bytes: whole("output_bytes")?,
            egress_sent_bytes: whole("egress_sent_bytes")?,
            egress_received_bytes: whole("egress_received_bytes")?,
            llm_input_tokens: whole("llm_input_tokens")?,
            llm_output_tokens: whole("llm_output_tokens")?,
        },
    })
}
