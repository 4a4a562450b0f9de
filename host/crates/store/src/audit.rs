//! The audit log: who did what. One chain an org; whoever appends holds the chain's end until the transaction is over,
//! so that two never append to the same entry.

use ringfence_model::{OrgId, Timestamp};

use crate::session::{Arg, Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In whose chain it is: the actor's org.
    pub org_id: OrgId,
    /// Its place in the chain, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who: a user, an agent, a service key, `command`, or `anonymous`.
    pub actor: String,
    /// The key or the session that the actor used.
    pub credential: Option<String>,
    /// What was done or tried.
    pub action: String,
    /// To what.
    pub resource: String,
    /// Whose that is.
    pub resource_org_id: OrgId,
    /// How it ended.
    pub outcome: String,
    /// The request, as it stands in the host's log.
    pub request_id: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// What else there is to know: a JSON object.
    pub detail: String,
    /// The hash of the entry before it; empty for the first.
    pub previous_hash: String,
    /// The hash over all of the above.
    pub hash: String,
}

/// The end of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The last entry's place; 0 if there is none.
    pub seq: u64,
    /// Its hash; empty if there is none.
    pub hash: String,
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only on this resource.
    pub resource: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<String>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only those before this place.
    pub before: Option<u64>,
}

/// A entry's columns.
macro_rules! columns {
    () => {
        "org_id, seq, at, actor, credential, action, resource, resource_org_id, outcome, request_id, address, detail, \
         previous_hash, hash"
    };
}

statements! {
    MAKE_HEAD = "INSERT INTO audit_heads (org_id, seq, hash) VALUES ($1, 0, '') ON CONFLICT (org_id) DO NOTHING";
    HEAD = "SELECT seq, hash FROM audit_heads WHERE org_id = $1";
    SET_HEAD = "UPDATE audit_heads SET seq = $2, hash = $3 WHERE org_id = $1";
    ORGS = "SELECT id FROM orgs WHERE id > $1 ORDER BY id LIMIT 100";
    INSERT = concat!("INSERT INTO audit_log (", columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)");
    AFTER = concat!("SELECT ", columns!(), " FROM audit_log WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3");
}

/// The end of an org's chain, which nobody else moves until the transaction ends. Take it last: whoever holds it makes
/// every other writer of the org wait.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds it for too long.
pub async fn lock_head(s: &mut Session, org: &OrgId) -> Result<Head, StoreError> {
    let locked = s.optional(s.locking(HEAD), args![org], read_head).await?;
    if let Some(head) = locked {
        return Ok(head);
    }
    s.execute(MAKE_HEAD, args![org]).await?;
    s.one(s.locking(HEAD), args![org], read_head).await
}

/// Appends an entry to the chain whose end is locked.
///
/// # Errors
/// [`StoreError::Conflict`] or, on SQLite, [`StoreError::Refused`] if there is an entry in its place.
pub async fn append(s: &mut Session, entry: &Entry) -> Result<(), StoreError> {
    let seq = place(entry.seq)?;
    let args = args![
        &entry.org_id,
        seq,
        entry.at,
        &entry.actor,
        entry.credential.as_ref(),
        &entry.action,
        &entry.resource,
        &entry.resource_org_id,
        &entry.outcome,
        entry.request_id.as_ref(),
        entry.address.as_ref(),
        &entry.detail,
        &entry.previous_hash,
        &entry.hash,
    ];
    s.execute(INSERT, args).await?;
    s.execute(SET_HEAD, args![&entry.org_id, seq, &entry.hash]).await?;
    Ok(())
}

/// The end of an org's chain.
///
/// # Errors
/// Those of the database.
pub async fn head(s: &mut Session, org: &OrgId) -> Result<Head, StoreError> {
    Ok(s.optional(HEAD, args![org], read_head).await?.unwrap_or_default())
}

/// Every org, for each may have a chain, whatever its end says; a hundred at a time, from the one behind `after` on.
///
/// # Errors
/// Those of the database.
pub async fn orgs(s: &mut Session, after: &str) -> Result<Vec<OrgId>, StoreError> {
    s.all(ORGS, args![after], |row| row.parse("id")).await
}

/// The entries of a chain from the one behind `seq` on, in their order.
///
/// # Errors
/// Those of the database.
pub async fn after(s: &mut Session, org: &OrgId, seq: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
    s.all(AFTER, args![org, place(seq)?, limit], read).await
}

/// Entries of an org, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    s: &mut Session,
    org: &OrgId,
    filter: &AuditFilter,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    // PostgreSQL has no text with a zero in it, and fails over one that is asked for.
    let texts = [&filter.actor, &filter.action, &filter.resource, &filter.outcome];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(Vec::new());
    }
    let mut args = args![org];
    let sql = list_statement(filter, &mut args);
    args.push(limit.into());
    s.all(sqlx::AssertSqlSafe(sql), args, read).await
}

/// The statement of a listing, and its arguments but the last, which is the limit.
#[doc(hidden)]
#[must_use]
pub fn list_statement(filter: &AuditFilter, args: &mut Vec<Arg>) -> String {
    let mut sql = concat!("SELECT ", columns!(), " FROM audit_log WHERE org_id = $1").to_owned();
    let mut also = |condition: &str, arg: Arg| {
        args.push(arg);
        sql.push_str(&format!(" AND {condition} ${}", args.len()));
    };
    for (column, value) in [
        ("actor =", &filter.actor),
        ("action =", &filter.action),
        ("resource =", &filter.resource),
        ("outcome =", &filter.outcome),
    ] {
        if let Some(value) = value {
            also(column, value.into());
        }
    }
    if let Some(since) = filter.since {
        also("at >=", since.into());
    }
    if let Some(until) = filter.until {
        also("at <", until.into());
    }
    if let Some(before) = filter.before {
        // No place lies behind this one.
        also("seq <", i64::try_from(before).unwrap_or(i64::MAX).into());
    }
    let limit = args.len() + 1;
    sql.push_str(&format!(" ORDER BY seq DESC LIMIT ${limit}"));
    sql
}

fn place(seq: u64) -> Result<i64, StoreError> {
    i64::try_from(seq).map_err(|error| StoreError::corrupt("seq", error))
}

fn read_head(row: &Row) -> Result<Head, StoreError> {
    Ok(Head { seq: row.count("seq")?, hash: row.text("hash")? })
}

fn read(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        org_id: row.parse("org_id")?,
        seq: row.count("seq")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        credential: row.opt_text("credential")?,
        action: row.text("action")?,
        resource: row.text("resource")?,
        resource_org_id: row.parse("resource_org_id")?,
        outcome: row.text("outcome")?,
        request_id: row.opt_text("request_id")?,
        address: row.opt_text("address")?,
        detail: row.text("detail")?,
        previous_hash: row.text("previous_hash")?,
        hash: row.text("hash")?,
    })
}
