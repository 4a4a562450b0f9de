//! API keys: those of agents, and service keys for other machines. Only the SHA-256 of a key is kept.

use ringfence_model::{AgentId, ApiKeyHash, ApiKeyId, OrgId, Role, Timestamp};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: ApiKeyId,
    /// Its org.
    pub org_id: OrgId,
    /// Whose it is; nobody's in particular if it is a service key.
    pub agent_id: Option<AgentId>,
    /// What a service key may do; none for an agent's.
    pub role: Option<Role>,
    /// What people call it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// Its first characters.
    pub prefix: String,
    /// Reads a minute, where they are not the host's default.
    pub reads_per_minute: Option<u32>,
    /// Writes a minute, where they are not the host's default.
    pub writes_per_minute: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it counts no more.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// `SELECT` of a key's columns, with what follows.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, agent_id, role, name, scopes, prefix, reads_per_minute, writes_per_minute, created_at,
        expires_at, last_used_at, revoked_at FROM api_keys ",
            $rest
        )
    };
}

statements! {
    INSERT = "INSERT INTO api_keys (id, org_id, agent_id, role, name, scopes, hash, prefix, reads_per_minute,
        writes_per_minute, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    FIND = select!("WHERE hash = $1");
    GET = select!("WHERE id = $1");
    LIST = select!("WHERE org_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3");
    LIST_COUNT = "SELECT COUNT(*) AS n FROM api_keys WHERE org_id = $1";
    LIST_OF_AGENT = select!("WHERE agent_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3");
    LIST_OF_AGENT_COUNT = "SELECT COUNT(*) AS n FROM api_keys WHERE agent_id = $1";
    VALID_OF_AGENT = select!("WHERE agent_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
        ORDER BY created_at, id");
    REVOKE = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    EXPIRE = "UPDATE api_keys SET expires_at = $2 WHERE id = $1 AND (expires_at IS NULL OR expires_at > $2)";
    SET_LIMITS = "UPDATE api_keys SET reads_per_minute = $2, writes_per_minute = $3 WHERE id = $1";
    TOUCH = "UPDATE api_keys SET last_used_at = $2 WHERE id = $1";
    LIVE_COUNT = "SELECT COUNT(*) AS n FROM api_keys WHERE org_id = $1 AND revoked_at IS NULL
        AND (expires_at IS NULL OR expires_at > $2)";
}

/// Makes a key.
///
/// # Errors
/// [`StoreError::Conflict`] if there is one with this hash.
pub async fn insert(s: &mut Session, key: &Key, hash: &ApiKeyHash) -> Result<(), StoreError> {
    let args = args![
        &key.id,
        &key.org_id,
        key.agent_id.as_ref(),
        key.role.as_ref(),
        &key.name,
        serde_json::to_string(&key.scopes)?,
        hash,
        &key.prefix,
        key.reads_per_minute,
        key.writes_per_minute,
        key.created_at,
        key.expires_at,
    ];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// The key with this hash, whether it still counts or not.
///
/// # Errors
/// Those of the database.
pub async fn find(s: &mut Session, hash: &ApiKeyHash) -> Result<Option<Key>, StoreError> {
    s.optional(FIND, args![hash], read).await
}

/// A key.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &ApiKeyId) -> Result<Option<Key>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// The keys of an org, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(s: &mut Session, org: &OrgId, limit: u32, offset: u32) -> Result<Page<Key>, StoreError> {
    let items = s.all(LIST, args![org, limit, offset], read).await?;
    Ok(Page { items, total: count(s, LIST_COUNT, args![org]).await? })
}

/// The keys of an agent, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list_of_agent(
    s: &mut Session,
    agent: &AgentId,
    limit: u32,
    offset: u32,
) -> Result<Page<Key>, StoreError> {
    let items = s.all(LIST_OF_AGENT, args![agent, limit, offset], read).await?;
    Ok(Page { items, total: count(s, LIST_OF_AGENT_COUNT, args![agent]).await? })
}

/// The keys of an agent that still count at `now`, oldest first. Nobody else changes them until the transaction ends: a
/// key that is being revoked is not replaced meanwhile.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds one of them for too long.
pub async fn lock_valid_of_agent(
    s: &mut Session,
    agent: &AgentId,
    now: Timestamp,
) -> Result<Vec<Key>, StoreError> {
    s.all(s.locking(VALID_OF_AGENT), args![agent, now], read).await
}

/// How many keys of an org still count at `now`.
///
/// # Errors
/// Those of the database.
pub async fn live_count(s: &mut Session, org: &OrgId, now: Timestamp) -> Result<u64, StoreError> {
    count(s, LIVE_COUNT, args![org, now]).await
}

/// Revokes a key. Whether it was not revoked before.
///
/// # Errors
/// Those of the database.
pub async fn revoke(s: &mut Session, id: &ApiKeyId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(REVOKE, args![id, now]).await? > 0)
}

/// Lets a key count until `at` and no longer.
///
/// # Errors
/// Those of the database.
pub async fn expire(s: &mut Session, id: &ApiKeyId, at: Timestamp) -> Result<(), StoreError> {
    s.execute(EXPIRE, args![id, at]).await?;
    Ok(())
}

/// Sets what the key may do a minute; `None` is the host's default.
///
/// # Errors
/// Those of the database.
pub async fn set_limits(
    s: &mut Session,
    id: &ApiKeyId,
    reads_per_minute: Option<u32>,
    writes_per_minute: Option<u32>,
) -> Result<(), StoreError> {
    s.execute(SET_LIMITS, args![id, reads_per_minute, writes_per_minute]).await?;
    Ok(())
}

/// Notes that a key was used.
///
/// # Errors
/// Those of the database.
pub async fn touch(s: &mut Session, id: &ApiKeyId, now: Timestamp) -> Result<(), StoreError> {
    s.execute(TOUCH, args![id, now]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Key, StoreError> {
    Ok(Key {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        agent_id: row.opt_parse("agent_id")?,
        role: row.opt_parse("role")?,
        name: row.text("name")?,
        scopes: row.json("scopes")?,
        prefix: row.text("prefix")?,
        reads_per_minute: row.opt_small("reads_per_minute")?,
        writes_per_minute: row.opt_small("writes_per_minute")?,
        created_at: row.time("created_at")?,
        expires_at: row.opt_time("expires_at")?,
        last_used_at: row.opt_time("last_used_at")?,
        revoked_at: row.opt_time("revoked_at")?,
    })
}
