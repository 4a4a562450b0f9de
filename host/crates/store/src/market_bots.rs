//! Bots that work by themselves: whom a funded job is told to, and what each has used of its day.

use ringfence_model::{AgentId, BotId, OrgId, Sha256, Timestamp};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError, count};

/// A bot that works for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketBot {
    /// The bot.
    pub bot_id: BotId,
    /// As whom it works.
    pub agent_id: AgentId,
    /// Whose both are.
    pub org_id: OrgId,
}

/// What a bot may use in a day.
#[derive(Debug, Clone, Copy)]
pub struct DayBudget {
    /// Calls.
    pub attempts: u32,
    /// Fuel of all of them.
    pub fuel: u64,
}

statements! {
    ADD = "INSERT INTO market_bots (artifact_type, agent_id, org_id, bot_id, place) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (artifact_type, agent_id) DO NOTHING";
    REMOVE = "DELETE FROM market_bots WHERE bot_id = $1";
    WORKS_FOR = "SELECT COUNT(*) AS n FROM market_bots WHERE bot_id = $1 AND agent_id = $2";
    // Once round the circle, in two parts that are each read by the index no further than is wanted.
    FROM_PLACE = "SELECT bot_id, agent_id, org_id FROM (
            SELECT * FROM (SELECT bot_id, agent_id, org_id, place, 0 AS round FROM market_bots
                WHERE artifact_type = $1 AND place >= $2 AND org_id <> $3 ORDER BY place LIMIT $4) AS first
            UNION ALL
            SELECT * FROM (SELECT bot_id, agent_id, org_id, place, 1 AS round FROM market_bots
                WHERE artifact_type = $1 AND place < $2 AND org_id <> $3 ORDER BY place LIMIT $4) AS second
        ) AS circle ORDER BY round, place LIMIT $4";
    RESERVE = "INSERT INTO market_budgets (bot_id, day, attempts, fuel) VALUES ($1, $2, 1, $3)
        ON CONFLICT (bot_id) DO UPDATE SET day = $2,
            attempts = CASE WHEN market_budgets.day = $2 THEN market_budgets.attempts ELSE 0 END + 1,
            fuel = CASE WHEN market_budgets.day = $2 THEN market_budgets.fuel ELSE 0 END + $3
        WHERE market_budgets.day < $2
            OR (market_budgets.day = $2 AND market_budgets.attempts < $4 AND market_budgets.fuel + $3 <= $5)";
    GIVE_BACK = "UPDATE market_budgets SET attempts = attempts - $3, fuel = fuel - $4
        WHERE bot_id = $1 AND day = $2 AND attempts >= $3 AND fuel >= $4";
}

/// Lets a bot be told of jobs that want this kind of result; `false` if its agent has another bot for that.
///
/// # Errors
/// Those of the database.
pub async fn add(s: &mut Session, bot: &MarketBot, artifact_type: &str) -> Result<bool, StoreError> {
    let args = args![artifact_type, &bot.agent_id, &bot.org_id, &bot.bot_id, place_of(bot.agent_id.as_str())];
    Ok(s.execute(ADD, args).await? > 0)
}

/// Lets a bot be told of nothing any more.
///
/// # Errors
/// Those of the database.
pub async fn remove(s: &mut Session, bot: &BotId) -> Result<(), StoreError> {
    s.execute(REMOVE, args![bot]).await?;
    Ok(())
}

/// Whether a bot works as this agent.
///
/// # Errors
/// Those of the database.
pub async fn works_for(s: &mut Session, bot: &BotId, agent: &AgentId) -> Result<bool, StoreError> {
    Ok(count(s, WORKS_FOR, args![bot, agent]).await? > 0)
}

/// Up to `limit` bots of other orgs for this kind of result. Agents stand in a circle, in no order that they could
/// choose, and each job begins at a point of its own: the same for the same `job`, evenly spread over all jobs.
///
/// # Errors
/// Those of the database.
pub async fn to_tell(
    s: &mut Session,
    artifact_type: &str,
    buyer: &OrgId,
    job: &str,
    limit: u32,
) -> Result<Vec<MarketBot>, StoreError> {
    s.all(FROM_PLACE, args![artifact_type, place_of(job), buyer, limit], read).await
}

/// Takes one call with so much fuel out of a bot's day; `false` if not that much is left of it. On another day than the
/// one noted, all is there again; a day that is over cannot be used.
///
/// # Errors
/// Those of the database.
pub async fn reserve(
    s: &mut Session,
    bot: &BotId,
    day: Timestamp,
    fuel: u64,
    budget: DayBudget,
) -> Result<bool, StoreError> {
    if budget.attempts == 0 || fuel > budget.fuel {
        return Ok(false);
    }
    let args = args![bot, day, number(fuel), budget.attempts, number(budget.fuel)];
    Ok(s.execute(RESERVE, args).await? > 0)
}

/// Gives back what was reserved of a day and not used.
///
/// # Errors
/// Those of the database.
pub async fn give_back(
    s: &mut Session,
    bot: &BotId,
    day: Timestamp,
    attempts: u32,
    fuel: u64,
) -> Result<(), StoreError> {
    s.execute(GIVE_BACK, args![bot, day, attempts, number(fuel)]).await?;
    Ok(())
}

fn number(fuel: u64) -> i64 {
    i64::try_from(fuel).unwrap_or(i64::MAX)
}

fn place_of(id: &str) -> String {
    Sha256::of(id.as_bytes()).to_string()
}

fn read(row: &Row) -> Result<MarketBot, StoreError> {
    Ok(MarketBot {
        bot_id: row.parse("bot_id")?,
        agent_id: row.parse("agent_id")?,
        org_id: row.parse("org_id")?,
    })
}
