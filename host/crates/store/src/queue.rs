//! The queue: leases fenced by an attempt number. A late worker changes nothing.

use ringfence_model::{OrgId, Timestamp};
use serde_json::Value;

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError, Tx};

/// Work to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct NewItem {
    /// Its id.
    pub id: String,
    /// The org that it is done for.
    pub org_id: OrgId,
    /// What is to be done.
    pub kind: String,
    /// What else is needed to know.
    pub payload: Value,
    /// What it is done to.
    pub subject_id: String,
    /// When it may begin.
    pub run_at: Timestamp,
    /// Now.
    pub created_at: Timestamp,
}

/// Work that has been taken on.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// Its id.
    pub id: String,
    /// The org that it is done for.
    pub org_id: OrgId,
    /// What is to be done.
    pub kind: String,
    /// What else is needed to know.
    pub payload: Value,
    /// What it is done to.
    pub subject_id: String,
    /// 1 for the first time that it is taken on: the fence.
    pub attempt: u32,
    /// Until when nobody else takes it.
    pub lease_until: Timestamp,
}

statements! {
    PUT = "INSERT INTO queue (id, org_id, kind, payload, subject_id, run_at, attempt, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, 0, $7) ON CONFLICT (kind, subject_id) DO NOTHING";
    DUE = "SELECT id FROM queue
        WHERE kind = $3 AND dead_at IS NULL AND run_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
        ORDER BY run_at, id LIMIT $2";
    LEASE = "UPDATE queue SET attempt = attempt + 1, lease_owner = $2, lease_until = $3 WHERE id = $1
        RETURNING id, org_id, kind, payload, subject_id, attempt, lease_until";
    HOLDS = "SELECT id FROM queue WHERE id = $1 AND attempt = $2 AND dead_at IS NULL AND lease_until IS NOT NULL";
    FINISH = "DELETE FROM queue WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    RETRY = "UPDATE queue SET lease_owner = NULL, lease_until = NULL, run_at = $3, last_error = $4
        WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    EXTEND = "UPDATE queue SET lease_until = $3 WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    BURY = "UPDATE queue SET lease_owner = NULL, lease_until = NULL, last_error = $3, dead_at = $4
        WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    NEXT_DUE = "SELECT MIN(due) AS due FROM (
            SELECT due FROM (SELECT run_at AS due FROM queue
                WHERE kind = $1 AND dead_at IS NULL AND lease_until IS NULL ORDER BY run_at, id LIMIT 1) AS waiting
            UNION ALL
            SELECT due FROM (SELECT lease_until AS due FROM queue
                WHERE kind = $1 AND lease_until IS NOT NULL ORDER BY lease_until LIMIT 1) AS held
        ) AS waiting_or_held";
    REMOVE = "DELETE FROM queue WHERE kind = $1 AND subject_id = $2";
}

/// Puts work on the queue; `false` if this kind of work is queued for this subject already.
///
/// # Errors
/// Those of the database.
pub async fn put(s: &mut Session, item: &NewItem) -> Result<bool, StoreError> {
    let args = args![
        &item.id,
        &item.org_id,
        &item.kind,
        item.payload.to_string(),
        &item.subject_id,
        item.run_at,
        item.created_at,
    ];
    Ok(s.execute(PUT, args).await? > 0)
}

/// Takes on up to `limit` pieces of work of a kind that are due and that nobody holds, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn lease(
    tx: &mut Tx,
    kind: &str,
    owner: &str,
    now: Timestamp,
    lease_until: Timestamp,
    limit: u32,
) -> Result<Vec<Leased>, StoreError> {
    let due = tx.locking_unlocked(DUE);
    let due = tx.all(due, args![now, limit, kind], |row| row.text("id")).await?;
    let mut leased = Vec::with_capacity(due.len());
    for id in due {
        let item = tx
            .one(LEASE, args![&id, owner, lease_until], |row| {
                Ok(Leased {
                    id: row.text("id")?,
                    org_id: row.parse("org_id")?,
                    kind: row.text("kind")?,
                    payload: row.json("payload")?,
                    subject_id: row.text("subject_id")?,
                    attempt: row.small("attempt")?,
                    lease_until: row.time("lease_until")?,
                })
            })
            .await?;
        leased.push(item);
    }
    Ok(leased)
}

/// Whether this attempt still holds the work. Inside a transaction it then holds it until the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn holds(s: &mut Session, id: &str, attempt: u32) -> Result<bool, StoreError> {
    Ok(s.optional(s.locking(HOLDS), args![id, attempt], |_| Ok(())).await?.is_some())
}

/// Takes work off the queue; `false` if another attempt has begun.
///
/// # Errors
/// Those of the database.
pub async fn finish(s: &mut Session, id: &str, attempt: u32) -> Result<bool, StoreError> {
    Ok(s.execute(FINISH, args![id, attempt]).await? > 0)
}

/// Gives work back, to be taken on from `run_at`; `false` if another attempt has begun.
///
/// # Errors
/// Those of the database.
pub async fn retry(
    s: &mut Session,
    id: &str,
    attempt: u32,
    run_at: Timestamp,
    error: &str,
) -> Result<bool, StoreError> {
    Ok(s.execute(RETRY, args![id, attempt, run_at, error]).await? > 0)
}

/// Makes a lease last longer; `false` if another attempt has begun.
///
/// # Errors
/// Those of the database.
pub async fn extend(
    s: &mut Session,
    id: &str,
    attempt: u32,
    lease_until: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(EXTEND, args![id, attempt, lease_until]).await? > 0)
}

/// Leaves work as a dead letter; `false` if another attempt has begun.
///
/// # Errors
/// Those of the database.
pub async fn bury(
    s: &mut Session,
    id: &str,
    attempt: u32,
    error: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(BURY, args![id, attempt, error, now]).await? > 0)
}

/// When the next work of a kind is due: new work at its time, work that is held when its lease ends.
///
/// # Errors
/// Those of the database.
pub async fn next_due(s: &mut Session, kind: &str) -> Result<Option<Timestamp>, StoreError> {
    s.one(NEXT_DUE, args![kind], |row| row.opt_time("due")).await
}

/// Takes a kind of work for a subject off the queue, whoever holds it; how many pieces that were.
///
/// # Errors
/// Those of the database.
pub async fn remove(s: &mut Session, kind: &str, subject: &str) -> Result<u64, StoreError> {
    s.execute(REMOVE, args![kind, subject]).await
}
