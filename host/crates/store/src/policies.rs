//! The Cedar policies that operators have added.

use ringfence_model::{OrgId, PolicyId, Timestamp};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// The operators' org.
    pub org_id: OrgId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it says, in Cedar.
    pub text: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

statements! {
    INSERT = "INSERT INTO policies (id, org_id, name, description, text, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    GET = "SELECT id, org_id, name, description, text, created_at, updated_at FROM policies WHERE id = $1";
    ALL = "SELECT id, org_id, name, description, text, created_at, updated_at FROM policies ORDER BY name";
    UPDATE = "UPDATE policies SET name = $2, description = $3, text = $4, updated_at = $5 WHERE id = $1";
    DELETE = "DELETE FROM policies WHERE id = $1";
    VERSION = "SELECT version FROM policy_version WHERE org_id = $1";
    CHANGED = "INSERT INTO policy_version (org_id, version) VALUES ($1, 1)
        ON CONFLICT (org_id) DO UPDATE SET version = policy_version.version + 1";
}

/// Says that policies change: the first statement of a transaction that does, so that such transactions take turns.
///
/// # Errors
/// [`StoreError::Busy`] if another one holds the version for too long.
pub async fn changing(s: &mut Session) -> Result<(), StoreError> {
    s.execute(CHANGED, args![&OrgId::platform()]).await?;
    Ok(())
}

/// A number that every change raises; 0 before the first.
///
/// # Errors
/// Those of the database.
pub async fn version(s: &mut Session) -> Result<i64, StoreError> {
    let version = s.optional(VERSION, args![&OrgId::platform()], |row| row.int("version")).await?;
    Ok(version.unwrap_or(0))
}

/// Adds a policy.
///
/// # Errors
/// [`StoreError::Conflict`] if there is one of this name.
pub async fn insert(s: &mut Session, policy: &Policy) -> Result<(), StoreError> {
    let args = args![
        &policy.id,
        &policy.org_id,
        &policy.name,
        &policy.description,
        &policy.text,
        policy.created_at,
        policy.updated_at,
    ];
    s.execute(INSERT, args).await?;
    Ok(())
}

/// A policy.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// All of them, by name. They are few: `control` bounds their number.
///
/// # Errors
/// Those of the database.
pub async fn all(s: &mut Session) -> Result<Vec<Policy>, StoreError> {
    s.all(ALL, Vec::new(), read).await
}

/// Writes a policy's name, description and text.
///
/// # Errors
/// [`StoreError::Conflict`] if there is another one of this name.
pub async fn update(s: &mut Session, policy: &Policy) -> Result<bool, StoreError> {
    let args = args![&policy.id, &policy.name, &policy.description, &policy.text, policy.updated_at];
    Ok(s.execute(UPDATE, args).await? > 0)
}

/// Removes a policy.
///
/// # Errors
/// Those of the database.
pub async fn delete(s: &mut Session, id: &PolicyId) -> Result<bool, StoreError> {
    Ok(s.execute(DELETE, args![id]).await? > 0)
}

fn read(row: &Row) -> Result<Policy, StoreError> {
    Ok(Policy {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        name: row.text("name")?,
        description: row.text("description")?,
        text: row.text("text")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
