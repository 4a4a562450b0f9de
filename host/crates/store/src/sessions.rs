//! Sessions of users: from a login to a logout.

use ringfence_model::{OrgId, Role, SessionId, Timestamp, UserId, words};

use crate::session::args;
use crate::statements::statements;
use crate::{Session, StoreError};

words! {
    /// Why a session ended before its time.
    EndReason ("end of a session") {
        /// Its user logged out.
        Logout = "logout",
        /// A refresh token was used a second time: somebody else has it.
        Reuse = "reuse",
        /// The password was changed.
        Password = "password",
        /// The user was disabled or deleted.
        Disabled = "disabled",
        /// The keys that had signed its tokens were forgotten.
        SigningKey = "signing_key",
    }
}

/// A session, with what its user may do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's org.
    pub org_id: OrgId,
    /// The generation of refresh tokens that is good; those before it were exchanged.
    pub generation: u32,
    /// When it ends whatever happens.
    pub expires_at: Timestamp,
    /// Whether it has ended, or its user may not log in any more.
    pub over: bool,
    /// What the user may do.
    pub role: Role,
}

statements! {
    INSERT = "INSERT INTO sessions (id, org_id, user_id, generation, created_at, refreshed_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $5, $6)";
    GET = "SELECT s.id, s.user_id, s.org_id, s.generation, s.expires_at, u.role,
        CASE WHEN s.ended_at IS NULL AND u.disabled_at IS NULL AND u.deleted_at IS NULL THEN 0 ELSE 1 END AS over
        FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1";
    ADVANCE = "UPDATE sessions SET generation = generation + 1, refreshed_at = $3
        WHERE id = $1 AND generation = $2 AND ended_at IS NULL AND expires_at > $3";
    END = "UPDATE sessions SET ended_at = $3, end_reason = $2 WHERE id = $1 AND ended_at IS NULL";
    END_OF_USER = "UPDATE sessions SET ended_at = $3, end_reason = $2 WHERE user_id = $1 AND ended_at IS NULL";
    END_ALL = "UPDATE sessions SET ended_at = $2, end_reason = $1 WHERE ended_at IS NULL";
    PURGE = "DELETE FROM sessions WHERE expires_at <= $1";
}

/// Begins a session, at generation 1.
///
/// # Errors
/// Those of the database.
pub async fn insert(s: &mut Session, session: &UserSession, now: Timestamp) -> Result<(), StoreError> {
    let args =
        args![&session.id, &session.org_id, &session.user_id, session.generation, now, session.expires_at];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// A session.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &SessionId) -> Result<Option<UserSession>, StoreError> {
    s.optional(GET, args![id], |row| {
        Ok(UserSession {
            id: row.parse("id")?,
            user_id: row.parse("user_id")?,
            org_id: row.parse("org_id")?,
            generation: row.small("generation")?,
            expires_at: row.time("expires_at")?,
            over: row.flag("over")?,
            role: row.parse("role")?,
        })
    })
    .await
}

/// Exchanges a generation for the next. Of two that try the same one, one succeeds.
///
/// # Errors
/// Those of the database.
pub async fn advance(
    s: &mut Session,
    id: &SessionId,
    generation: u32,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(ADVANCE, args![id, generation, now]).await? > 0)
}

/// Ends a session. Whether it had not ended.
///
/// # Errors
/// Those of the database.
pub async fn end(
    s: &mut Session,
    id: &SessionId,
    reason: EndReason,
    now: Timestamp,
) -> Result<bool, StoreError> {
    Ok(s.execute(END, args![id, reason.as_str(), now]).await? > 0)
}

/// Ends all sessions of a user; how many.
///
/// # Errors
/// Those of the database.
pub async fn end_of_user(
    s: &mut Session,
    user: &UserId,
    reason: EndReason,
    now: Timestamp,
) -> Result<u64, StoreError> {
    s.execute(END_OF_USER, args![user, reason.as_str(), now]).await
}

/// Ends every session there is; how many.
///
/// # Errors
/// Those of the database.
pub async fn end_all(s: &mut Session, reason: EndReason, now: Timestamp) -> Result<u64, StoreError> {
    s.execute_many(END_ALL, args![reason.as_str(), now]).await
}

/// Forgets the sessions whose time was over at `before`.
///
/// # Errors
/// Those of the database.
pub async fn purge(s: &mut Session, before: Timestamp) -> Result<u64, StoreError> {
    s.execute_many(PURGE, args![before]).await
}
