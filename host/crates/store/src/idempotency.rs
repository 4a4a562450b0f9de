//! The clients' idempotency keys, and what was answered under them.

use std::time::Duration;

use ringfence_model::{OrgId, Timestamp};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

/// How long a key is remembered.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was: it is now claimed by this transaction.
    New,
    /// The same request was answered with this.
    Replay(String),
    /// It was used for another request.
    Mismatch,
    /// The same request has begun and was not answered.
    Running,
}

statements! {
    // What is older than it is remembered gives way, as if it were forgotten.
    BEGIN = "INSERT INTO idempotency_keys (principal, key, org_id, request_hash, created_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (principal, key) DO UPDATE SET org_id = excluded.org_id, request_hash = excluded.request_hash,
            response = NULL, created_at = excluded.created_at
        WHERE idempotency_keys.created_at <= $6";
    GET = "SELECT request_hash, response FROM idempotency_keys WHERE principal = $1 AND key = $2";
    FINISH = "UPDATE idempotency_keys SET response = $3 WHERE principal = $1 AND key = $2";
    PURGE = "DELETE FROM idempotency_keys WHERE created_at <= $1";
}

/// Claims a key, or finds what is known of it. Of two at once, the second waits until the first has ended.
///
/// # Errors
/// [`StoreError::Busy`] if that takes too long.
pub async fn begin(
    s: &mut Session,
    principal: &str,
    key: &str,
    org: &OrgId,
    request_hash: &str,
    now: Timestamp,
) -> Result<Begun, StoreError> {
    let claim = args![principal, key, org, request_hash, now, now.minus(KEPT)];
    if s.execute(BEGIN, claim).await? > 0 {
        return Ok(Begun::New);
    }
    let known = s
        .optional(GET, args![principal, key], |row| {
            Ok((row.text("request_hash")?, row.opt_text("response")?))
        })
        .await?;
    Ok(match known {
        Some((hash, _)) if hash != request_hash => Begun::Mismatch,
        Some((_, Some(response))) => Begun::Replay(response),
        _ => Begun::Running,
    })
}

/// Keeps what is answered under a key.
///
/// # Errors
/// Those of the database.
pub async fn finish(s: &mut Session, principal: &str, key: &str, response: &str) -> Result<(), StoreError> {
    s.execute(FINISH, args![principal, key, response]).await?;
    Ok(())
}

/// Forgets the keys of this time and before; how many that were.
///
/// # Errors
/// Those of the database.
pub async fn purge(s: &mut Session, until: Timestamp) -> Result<u64, StoreError> {
    s.execute_many(PURGE, args![until]).await
}
