//! Secrets of the host, as they are kept: sealed by `control` under a master key that is not in the database.

use ringfence_model::{OrgId, Timestamp};

use crate::session::{Arg, Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// A secret, sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it is found by.
    pub id: String,
    /// Whose it is.
    pub org_id: OrgId,
    /// What it is for.
    pub kind: String,
    /// The sealed bytes, as text.
    pub sealed: String,
    /// The master key that opens it.
    pub master_key_id: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Without the sealed bytes.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

statements! {
    INSERT = "INSERT INTO secrets (id, org_id, kind, sealed, master_key_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING";
    OF_KIND = "SELECT id, org_id, kind, sealed, master_key_id, created_at FROM secrets WHERE kind = $1
        ORDER BY created_at, id";
    PUT = "INSERT INTO secrets (id, org_id, kind, sealed, master_key_id, created_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed,
        master_key_id = excluded.master_key_id, created_at = excluded.created_at";
    IDS = "SELECT id, created_at FROM secrets WHERE kind = $1 ORDER BY created_at, id";
    ANY = "SELECT id FROM secrets LIMIT 1";
    PAGE = "SELECT id, org_id, kind, sealed, master_key_id, created_at FROM secrets WHERE id > $1 ORDER BY id LIMIT $2";
    RESEAL = "UPDATE secrets SET sealed = $2, master_key_id = $3 WHERE id = $1 AND master_key_id = $4";
    DELETE = "DELETE FROM secrets WHERE id = $1";
    DELETE_KIND = "DELETE FROM secrets WHERE kind = $1";
}

/// Keeps a secret, unless there is one of this id. Whether there was none.
///
/// # Errors
/// Those of the database.
pub async fn insert(s: &mut Session, secret: &Secret) -> Result<bool, StoreError> {
    Ok(s.execute(INSERT, columns(secret)).await? > 0)
}

/// Keeps a secret, in the place of the one of this id if there is one.
///
/// # Errors
/// Those of the database.
pub async fn put(s: &mut Session, secret: &Secret) -> Result<(), StoreError> {
    s.execute(PUT, columns(secret)).await?;
    Ok(())
}

fn columns(secret: &Secret) -> Vec<Arg> {
    args![&secret.id, &secret.org_id, &secret.kind, &secret.sealed, &secret.master_key_id, secret.created_at,]
}

/// The secrets of a kind, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn of_kind(s: &mut Session, kind: &str) -> Result<Vec<Secret>, StoreError> {
    s.all(OF_KIND, args![kind], read).await
}

/// The ids of a kind's secrets and when each was kept, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn ids(s: &mut Session, kind: &str) -> Result<Vec<(String, Timestamp)>, StoreError> {
    s.all(IDS, args![kind], |row| Ok((row.text("id")?, row.time("created_at")?))).await
}

/// Whether there is any secret.
///
/// # Errors
/// Those of the database.
pub async fn any(s: &mut Session) -> Result<bool, StoreError> {
    Ok(s.optional(ANY, Vec::new(), |_| Ok(())).await?.is_some())
}

/// The secrets behind an id, in the order of ids; nobody else changes them until the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn page(s: &mut Session, after: &str, limit: u32) -> Result<Vec<Secret>, StoreError> {
    s.all(s.locking(PAGE), args![after, limit], read).await
}

/// Replaces a secret's seal, if it is still the one of `old_key`.
///
/// # Errors
/// Those of the database.
pub async fn reseal(
    s: &mut Session,
    id: &str,
    sealed: &str,
    master_key_id: &str,
    old_key: &str,
) -> Result<bool, StoreError> {
    Ok(s.execute(RESEAL, args![id, sealed, master_key_id, old_key]).await? > 0)
}

/// Forgets a secret; whether it was there.
///
/// # Errors
/// Those of the database.
pub async fn delete(s: &mut Session, id: &str) -> Result<bool, StoreError> {
    Ok(s.execute(DELETE, args![id]).await? > 0)
}

/// Forgets all secrets of a kind.
///
/// # Errors
/// Those of the database.
pub async fn delete_kind(s: &mut Session, kind: &str) -> Result<(), StoreError> {
    s.execute(DELETE_KIND, args![kind]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Secret, StoreError> {
    Ok(Secret {
        id: row.text("id")?,
        org_id: row.parse("org_id")?,
        kind: row.text("kind")?,
        sealed: row.text("sealed")?,
        master_key_id: row.text("master_key_id")?,
        created_at: row.time("created_at")?,
    })
}
