//! Components: immutable, under the digest of their bytes.

use ringfence_model::{OrgId, Sha256, Timestamp, words};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

words! {
    /// What a component is, by the world that it exports.
    ComponentKind ("component kind") {
        /// It does tasks.
        Bot = "bot",
        /// It judges submissions.
        Oracle = "oracle",
    }
}

/// A component, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Whose it is.
    pub org_id: OrgId,
    /// The SHA-256 of its bytes.
    pub digest: Sha256,
    /// What it is.
    pub kind: ComponentKind,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// All that it imports.
    pub imports: Vec<String>,
    /// The grants that it needs.
    pub capabilities: Vec<String>,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

macro_rules! columns {
    () => {
        "org_id, digest, kind, size_bytes, imports, capabilities, created_at"
    };
}

statements! {
    INSERT = "INSERT INTO components (org_id, digest, kind, size_bytes, imports, capabilities, wasm, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (org_id, digest) DO NOTHING";
    GET = concat!("SELECT ", columns!(), " FROM components WHERE org_id = $1 AND digest = $2");
    LIST = concat!("SELECT ", columns!(), " FROM components WHERE org_id = $1
        ORDER BY created_at DESC, digest DESC LIMIT $2 OFFSET $3");
    COUNT = "SELECT COUNT(*) AS n FROM components WHERE org_id = $1";
    WASM = "SELECT wasm FROM components WHERE digest = $1 LIMIT 1";
}

/// Stores a component; whether it was not there before.
///
/// # Errors
/// Those of the database.
pub async fn insert(s: &mut Session, component: &Component, wasm: &[u8]) -> Result<bool, StoreError> {
    let args = args![
        &component.org_id,
        &component.digest,
        component.kind.as_str(),
        i64::try_from(component.size_bytes).unwrap_or(i64::MAX),
        serde_json::to_string(&component.imports)?,
        serde_json::to_string(&component.capabilities)?,
        wasm,
        component.created_at,
    ];
    Ok(s.execute(INSERT, args).await? > 0)
}

/// An org's component.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, org: &OrgId, digest: &Sha256) -> Result<Option<Component>, StoreError> {
    s.optional(GET, args![org, digest], read).await
}

/// An org's components, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    s: &mut Session,
    org: &OrgId,
    limit: u32,
    offset: u32,
) -> Result<Page<Component>, StoreError> {
    let total = count(s, COUNT, args![org]).await?;
    Ok(Page { items: s.all(LIST, args![org, limit, offset], read).await?, total })
}

/// The bytes behind a digest, whoever uploaded them: they are the same for all.
///
/// # Errors
/// Those of the database.
pub async fn wasm(s: &mut Session, digest: &Sha256) -> Result<Option<Vec<u8>>, StoreError> {
    // A list of one, for it may be long.
    Ok(s.all(WASM, args![digest], |row| row.bytes("wasm")).await?.pop())
}

fn read(row: &Row) -> Result<Component, StoreError> {
    Ok(Component {
        org_id: row.parse("org_id")?,
        digest: row.parse("digest")?,
        kind: row.parse("kind")?,
        size_bytes: row.count("size_bytes")?,
        imports: row.json("imports")?,
        capabilities: row.json("capabilities")?,
        created_at: row.time("created_at")?,
    })
}
