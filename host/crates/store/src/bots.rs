//! Bots and oracles.

use std::collections::BTreeMap;

use ringfence_model::{BotId, BotStatus, OrgId, Sha256, Timestamp};
use serde_json::Value;

use crate::components::ComponentKind;
use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

/// A bot or an oracle.
#[derive(Debug, Clone, PartialEq)]
pub struct Bot {
    /// Its id.
    pub id: BotId,
    /// Whose it is.
    pub org_id: OrgId,
    /// Unique in the org among those that are not terminated.
    pub name: String,
    /// For people.
    pub description: String,
    /// What its component is.
    pub kind: ComponentKind,
    /// Raised by every change.
    pub version: u32,
    /// What it runs.
    pub component_digest: Sha256,
    /// What the guest reads.
    pub config: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Value,
    /// What each call may use.
    pub limits: Value,
    /// For how many days its lines are kept, if less long than the host keeps them.
    pub log_keep_days: Option<u32>,
    /// The level below which its lines are not kept.
    pub log_min_level: Option<String>,
    /// Its state.
    pub status: BotStatus,
    /// When it was deployed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Which bots of an org.
#[derive(Debug, Clone, Default)]
pub struct BotFilter {
    /// Only these.
    pub status: Option<BotStatus>,
    /// Only these.
    pub kind: Option<ComponentKind>,
    /// Only this one.
    pub name: Option<String>,
}

macro_rules! columns {
    () => {
        "id, org_id, name, description, kind, version, component_digest, config, grants, limits, status, created_at,
        updated_at, log_keep_days, log_min_level"
    };
}
// An org has few bots: its index finds them, and the rest of the filter looks at each.
macro_rules! filter {
    () => {
        " FROM bots WHERE org_id = $1 AND (CAST($2 AS TEXT) IS NULL OR status = $2)
        AND (CAST($3 AS TEXT) IS NULL OR kind = $3) AND (CAST($4 AS TEXT) IS NULL OR name = $4)"
    };
}

statements! {
    INSERT = concat!("INSERT INTO bots (", columns!(), ")
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)");
    GET = concat!("SELECT ", columns!(), " FROM bots WHERE id = $1");
    LIST = concat!("SELECT ", columns!(), filter!(), " ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET $6");
    COUNT = concat!("SELECT COUNT(*) AS n", filter!());
    UPDATE = "UPDATE bots SET name = $2, description = $3, version = $4, component_digest = $5, config = $6, grants = $7,
        limits = $8, updated_at = $9, log_keep_days = $11, log_min_level = $12 WHERE id = $1 AND version = $10 AND status <> 'terminated'";
    TERMINATE = "UPDATE bots SET status = 'terminated', updated_at = $2 WHERE id = $1 AND status <> 'terminated'";
    DEPLOYED = "SELECT id, component_digest FROM bots WHERE id > $1 AND status <> 'terminated' ORDER BY id LIMIT $2";
    IN_USE = "SELECT id FROM jobs WHERE oracle_bot_id = $1 AND status IN ('open', 'funded') LIMIT 1";
}

/// Makes a bot.
///
/// # Errors
/// [`StoreError::Conflict`] if the org has one of this name.
pub async fn insert(s: &mut Session, bot: &Bot) -> Result<(), StoreError> {
    let args = args![
        &bot.id,
        &bot.org_id,
        &bot.name,
        &bot.description,
        bot.kind.as_str(),
        bot.version,
        &bot.component_digest,
        serde_json::to_string(&bot.config)?,
        bot.grants.to_string(),
        bot.limits.to_string(),
        bot.status,
        bot.created_at,
        bot.updated_at,
        bot.log_keep_days,
        bot.log_min_level.as_ref(),
    ];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// A bot of any org, in any state.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &BotId) -> Result<Option<Bot>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// As [`get`]; nobody else changes it until the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn lock(s: &mut Session, id: &BotId) -> Result<Option<Bot>, StoreError> {
    s.optional(s.locking(GET), args![id], read).await
}

/// As [`get`]; until the transaction ends nobody changes it, and others may hold it in the same way.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction changes it for too long.
pub async fn hold(s: &mut Session, id: &BotId) -> Result<Option<Bot>, StoreError> {
    s.optional(s.sharing(GET), args![id], read).await
}

/// An org's bots, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    s: &mut Session,
    org: &OrgId,
    filter: &BotFilter,
    limit: u32,
    offset: u32,
) -> Result<Page<Bot>, StoreError> {
    let status = filter.status.as_ref();
    let (kind, name) = (filter.kind.as_ref(), filter.name.as_ref());
    let total = count(s, COUNT, args![org, status, kind, name]).await?;
    Ok(Page { items: s.all(LIST, args![org, status, kind, name, limit, offset], read).await?, total })
}

/// What the bots of all orgs run that are not terminated, in the order of their ids, that is, oldest first: those after
/// an id, or the first ones after an empty text.
///
/// # Errors
/// Those of the database.
pub async fn deployed(s: &mut Session, after: &str, limit: u32) -> Result<Vec<(BotId, Sha256)>, StoreError> {
    let read = |row: &Row| Ok((row.parse("id")?, row.parse("component_digest")?));
    s.all(DEPLOYED, args![after, limit], read).await
}

/// Writes what can change of a bot, if it is still at `expected_version`; whether it was.
///
/// # Errors
/// [`StoreError::Conflict`] if the org has another of this name.
pub async fn update(s: &mut Session, bot: &Bot, expected_version: u32) -> Result<bool, StoreError> {
    let args = args![
        &bot.id,
        &bot.name,
        &bot.description,
        bot.version,
        &bot.component_digest,
        serde_json::to_string(&bot.config)?,
        bot.grants.to_string(),
        bot.limits.to_string(),
        bot.updated_at,
        expected_version,
        bot.log_keep_days,
        bot.log_min_level.as_ref(),
    ];
    Ok(s.execute(UPDATE, args).await? > 0)
}

/// Takes a bot out of service; whether it was in service.
///
/// # Errors
/// Those of the database.
pub async fn terminate(s: &mut Session, id: &BotId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(TERMINATE, args![id, now]).await? > 0)
}

/// Whether a job that has not ended is judged by it.
///
/// # Errors
/// Those of the database.
pub async fn used_by_unfinished_job(s: &mut Session, id: &BotId) -> Result<bool, StoreError> {
    Ok(s.optional(IN_USE, args![id], |_| Ok(())).await?.is_some())
}

fn read(row: &Row) -> Result<Bot, StoreError> {
    Ok(Bot {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        name: row.text("name")?,
        description: row.text("description")?,
        kind: row.parse("kind")?,
        version: row.small("version")?,
        component_digest: row.parse("component_digest")?,
        config: row.json("config")?,
        grants: row.json("grants")?,
        limits: row.json("limits")?,
        log_keep_days: row.opt_small("log_keep_days")?,
        log_min_level: row.opt_text("log_min_level")?,
        status: row.parse("status")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
