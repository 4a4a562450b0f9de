//! People who log in.

use ringfence_model::{OrgId, Role, Timestamp, UserId};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

/// A person who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its org.
    pub org_id: OrgId,
    /// What it logs in with, in lower case.
    pub email: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What its password is tested against.
    pub password_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it last logged in.
    pub last_login_at: Option<Timestamp>,
    /// Since when it cannot log in.
    pub disabled_at: Option<Timestamp>,
}

/// Without the hash of the password.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// `SELECT` of a user's columns, with what follows. Deleted ones are never read.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, email, name, role, password_hash, created_at, updated_at, last_login_at, disabled_at
        FROM users WHERE deleted_at IS NULL AND ",
            $rest
        )
    };
}

statements! {
    INSERT = "INSERT INTO users (id, org_id, email, name, role, password_hash, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    GET = select!("id = $1");
    BY_EMAIL = select!("email = $1");
    LIST = select!("org_id = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3");
    LIST_COUNT = "SELECT COUNT(*) AS n FROM users WHERE deleted_at IS NULL AND org_id = $1";
    ADMINS = "SELECT COUNT(*) AS n FROM users WHERE deleted_at IS NULL AND disabled_at IS NULL AND org_id = $1
        AND role = 'admin'";
    UPDATE = "UPDATE users SET name = $2, role = $3, password_hash = $4, updated_at = $5, disabled_at = $6
        WHERE id = $1 AND deleted_at IS NULL";
    REHASH = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    LOGGED_IN = "UPDATE users SET last_login_at = $2 WHERE id = $1";
    DELETE = "UPDATE users SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL";
}

/// Makes a user.
///
/// # Errors
/// [`StoreError::Conflict`] if the email address is another one's.
pub async fn insert(s: &mut Session, user: &User) -> Result<(), StoreError> {
    let args = args![
        &user.id,
        &user.org_id,
        &user.email,
        &user.name,
        user.role,
        &user.password_hash,
        user.created_at,
        user.updated_at,
    ];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// A user.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &UserId) -> Result<Option<User>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// A user, which nobody else changes until the transaction ends.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds it for too long.
pub async fn lock(s: &mut Session, id: &UserId) -> Result<Option<User>, StoreError> {
    s.optional(s.locking(GET), args![id], read).await
}

/// The user with this address, in lower case.
///
/// # Errors
/// Those of the database.
pub async fn by_email(s: &mut Session, email: &str) -> Result<Option<User>, StoreError> {
    // Whoever logs in may type anything. PostgreSQL has no text with a zero in it, and fails over one that is asked for.
    if email.contains('\0') {
        return Ok(None);
    }
    s.optional(BY_EMAIL, args![email], read).await
}

/// The users of an org, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list(s: &mut Session, org: &OrgId, limit: u32, offset: u32) -> Result<Page<User>, StoreError> {
    let items = s.all(LIST, args![org, limit, offset], read).await?;
    Ok(Page { items, total: count(s, LIST_COUNT, args![org]).await? })
}

/// How many admins of an org can log in.
///
/// # Errors
/// Those of the database.
pub async fn admins(s: &mut Session, org: &OrgId) -> Result<u64, StoreError> {
    count(s, ADMINS, args![org]).await
}

/// Writes a user's name, role, hash and state.
///
/// # Errors
/// Those of the database.
pub async fn update(s: &mut Session, user: &User) -> Result<bool, StoreError> {
    let args = args![&user.id, &user.name, user.role, &user.password_hash, user.updated_at, user.disabled_at];
    Ok(s.execute(UPDATE, args).await? > 0)
}

/// Replaces the hash of a password that has not changed meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn rehash(s: &mut Session, id: &UserId, old: &str, new: &str) -> Result<(), StoreError> {
    s.execute(REHASH, args![id, old, new]).await?;
    Ok(())
}

/// Notes a login.
///
/// # Errors
/// Those of the database.
pub async fn logged_in(s: &mut Session, id: &UserId, now: Timestamp) -> Result<(), StoreError> {
    s.execute(LOGGED_IN, args![id, now]).await?;
    Ok(())
}

/// Takes a user out; its address becomes free.
///
/// # Errors
/// Those of the database.
pub async fn delete(s: &mut Session, id: &UserId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(s.execute(DELETE, args![id, now]).await? > 0)
}

fn read(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        email: row.text("email")?,
        name: row.text("name")?,
        role: row.parse("role")?,
        password_hash: row.text("password_hash")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        last_login_at: row.opt_time("last_login_at")?,
        disabled_at: row.opt_time("disabled_at")?,
    })
}
