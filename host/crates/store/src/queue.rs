//! The queue: leases fenced by an attempt number. A late worker changes nothing.

use ringfence_model::{OrgId, Timestamp};
use serde_json::Value;

use crate::session::{Arg, args};
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

/// An org that has work which is due.
#[derive(Debug, Clone, PartialEq)]
pub struct DueOrg {
    /// The org.
    pub org_id: OrgId,
    /// Since when the oldest of it has been due.
    pub due: Timestamp,
    /// How much of its work one owner is carrying out.
    pub running: u32,
}

statements! {
    PUT = "INSERT INTO queue (id, org_id, kind, payload, subject_id, run_at, attempt, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, 0, $7) ON CONFLICT (kind, subject_id) DO NOTHING";
    PUT_ANEW = "INSERT INTO queue (id, org_id, kind, payload, subject_id, run_at, attempt, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, 0, $7) ON CONFLICT (kind, subject_id) DO UPDATE SET
            id = excluded.id, payload = excluded.payload, run_at = excluded.run_at, attempt = 0, lease_owner = NULL,
            lease_until = NULL, last_error = NULL, dead_at = NULL, created_at = excluded.created_at";
    DUE = "SELECT id FROM queue
        WHERE kind = $3 AND dead_at IS NULL AND run_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
        ORDER BY run_at, id LIMIT $2";
    DUE_ORGS = "WITH RECURSIVE orgs (org_id) AS (
            SELECT MIN(org_id) FROM queue WHERE kind = $1 AND dead_at IS NULL
            UNION ALL
            SELECT (SELECT MIN(q.org_id) FROM queue q
                WHERE q.kind = $1 AND q.dead_at IS NULL AND q.org_id > orgs.org_id)
            FROM orgs WHERE orgs.org_id IS NOT NULL
        )
        SELECT org_id,
            (SELECT q.run_at FROM queue q
                WHERE q.kind = $1 AND q.org_id = orgs.org_id AND q.dead_at IS NULL AND q.run_at <= $3
                    AND (q.lease_until IS NULL OR q.lease_until <= $3)
                ORDER BY q.run_at, q.id LIMIT 1) AS due,
            (SELECT COUNT(*) FROM queue q
                WHERE q.kind = $1 AND q.org_id = orgs.org_id AND q.lease_until > $3 AND q.lease_owner = $2) AS running
        FROM orgs WHERE org_id IS NOT NULL";
    DUE_OF_ORG = "SELECT id FROM queue
        WHERE kind = $1 AND org_id = $2 AND dead_at IS NULL AND run_at <= $3
            AND (lease_until IS NULL OR lease_until <= $3)
        ORDER BY run_at, id LIMIT 1";
    LEASE = "UPDATE queue SET attempt = attempt + 1, lease_owner = $2, lease_until = $3 WHERE id = $1
        RETURNING id, org_id, kind, payload, subject_id, attempt, lease_until";
    HOLDS = "SELECT id FROM queue WHERE id = $1 AND attempt = $2 AND dead_at IS NULL AND lease_until IS NOT NULL";
    FINISH = "DELETE FROM queue WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    RETRY = "UPDATE queue SET lease_owner = NULL, lease_until = NULL, run_at = $3, last_error = $4
        WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    NOTE = "UPDATE queue SET payload = $3 WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    EXTEND = "UPDATE queue SET lease_until = $3 WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    BURY = "UPDATE queue SET lease_owner = NULL, lease_until = NULL, last_error = $3, dead_at = $4
        WHERE id = $1 AND attempt = $2 AND lease_until IS NOT NULL";
    NEXT_DUE = "SELECT MIN(due) AS due FROM (
            SELECT due FROM (SELECT run_at AS due FROM queue
                WHERE kind = $1 AND dead_at IS NULL AND lease_until IS NULL AND run_at > $2 ORDER BY run_at, id LIMIT 1) AS waiting
            UNION ALL
            SELECT due FROM (SELECT lease_until AS due FROM queue
                WHERE kind = $1 AND lease_until > $2 ORDER BY lease_until LIMIT 1) AS held
        ) AS waiting_or_held";
    TAKE_BACK = "UPDATE queue SET lease_owner = NULL, lease_until = NULL WHERE kind = $1 AND lease_until IS NOT NULL";
    RESCHEDULE = "UPDATE queue SET run_at = $3 WHERE kind = $1 AND subject_id = $2";
    REMOVE = "DELETE FROM queue WHERE kind = $1 AND subject_id = $2";
}

/// Puts work on the queue; `false` if this kind of work is queued for this subject already.
///
/// # Errors
/// Those of the database.
pub async fn put(s: &mut Session, item: &NewItem) -> Result<bool, StoreError> {
    Ok(s.execute(PUT, item_args(item)).await? > 0)
}

/// Puts work on the queue in the place of what is queued of this kind for this subject. Who holds that has lost its lease.
///
/// # Errors
/// Those of the database.
pub async fn put_anew(s: &mut Session, item: &NewItem) -> Result<(), StoreError> {
    s.execute(PUT_ANEW, item_args(item)).await?;
    Ok(())
}

fn item_args(item: &NewItem) -> Vec<Arg> {
    args![
        &item.id,
        &item.org_id,
        &item.kind,
        item.payload.to_string(),
        &item.subject_id,
        item.run_at,
        item.created_at,
    ]
}

/// Ends every lease on work of a kind: for the one host of a database, which finds at its start what it held when it ended.
/// Returns how much that was. Who holds such a lease all the same can no longer finish under it.
///
/// # Errors
/// Those of the database.
pub async fn take_back(s: &mut Session, kind: &str) -> Result<u64, StoreError> {
    s.execute(TAKE_BACK, args![kind]).await
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
        leased.push(lease_one(tx, &id, owner, lease_until).await?);
    }
    Ok(leased)
}

async fn lease_one(tx: &mut Tx, id: &str, owner: &str, lease_until: Timestamp) -> Result<Leased, StoreError> {
    tx.one(LEASE, args![id, owner, lease_until], |row| {
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
    .await
}

/// The orgs that have work of a kind which is due, in no order. Takes one step through an index for each org that has
/// anything on the queue, however much that is.
///
/// # Errors
/// Those of the database.
pub async fn due_orgs(
    s: &mut Session,
    kind: &str,
    owner: &str,
    now: Timestamp,
) -> Result<Vec<DueOrg>, StoreError> {
    let orgs = s.all(DUE_ORGS, args![kind, owner, now], |row| {
        let (org_id, running) = (row.parse("org_id")?, row.small("running")?);
        Ok(row.opt_time("due")?.map(|due| DueOrg { org_id, due, running }))
    });
    Ok(orgs.await?.into_iter().flatten().collect())
}

/// Takes on up to `limit` pieces of work of a kind that are due and that nobody holds, and shares them out between
/// `orgs`: each time the oldest of the org that has the least running, up to `per_org`. Of equal ones the org whose work
/// has been due for longest is first.
///
/// # Errors
/// Those of the database.
pub async fn lease_fairly(
    tx: &mut Tx,
    kind: &str,
    (owner, now, lease_until): (&str, Timestamp, Timestamp),
    (limit, per_org): (u32, u32),
    mut orgs: Vec<DueOrg>,
) -> Result<Vec<Leased>, StoreError> {
    let mut leased = Vec::new();
    while leased.len() < limit as usize {
        orgs.retain(|org| org.running < per_org);
        let Some(next) = orgs.iter_mut().min_by_key(|org| (org.running, org.due)) else { break };
        let due = tx.locking_unlocked(DUE_OF_ORG);
        match tx.optional(due, args![kind, &next.org_id, now], |row| row.text("id")).await? {
            Some(id) => {
                leased.push(lease_one(tx, &id, owner, lease_until).await?);
                next.running += 1;
            }
            // Nothing more of this org is due, or others are just taking it on.
            None => next.running = u32::MAX,
        }
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

/// Writes down how far work has come, for the attempt after this one; `false` if that has begun.
///
/// # Errors
/// Those of the database.
pub async fn note(s: &mut Session, id: &str, attempt: u32, payload: &Value) -> Result<bool, StoreError> {
    Ok(s.execute(NOTE, args![id, attempt, payload.to_string()]).await? > 0)
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
    next_due_after(s, kind, Timestamp::from_micros(-1)).await
}

/// As [`next_due`], of what is due later than `after`.
///
/// # Errors
/// Those of the database.
pub async fn next_due_after(
    s: &mut Session,
    kind: &str,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    Ok(s.optional(NEXT_DUE, args![kind, after], |row| row.opt_time("due")).await?.flatten())
}

/// Moves work to another time, whoever holds it; `false` if there is none.
///
/// # Errors
/// Those of the database.
pub async fn reschedule(
    s: &mut Session,
    kind: &str,
    subject: &str,
    run_at: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(RESCHEDULE, args![kind, subject, run_at]).await? > 0)
}

/// Takes a kind of work for a subject off the queue, whoever holds it; how many pieces that were.
///
/// # Errors
/// Those of the database.
pub async fn remove(s: &mut Session, kind: &str, subject: &str) -> Result<u64, StoreError> {
    s.execute(REMOVE, args![kind, subject]).await
}
