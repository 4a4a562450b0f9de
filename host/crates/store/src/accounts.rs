//! Orgs and agents.

use ringfence_model::{AgentId, OrgId, Timestamp, WalletAddress};

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Session, StoreError};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A market identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its org.
    pub org_id: OrgId,
    /// What people call it.
    pub name: String,
    /// Where payouts on a chain go.
    pub wallet_address: Option<WalletAddress>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

statements! {
    INSERT_ORG = "INSERT INTO orgs (id, name, created_at) VALUES ($1, $2, $3)";
    GET_ORG = "SELECT id, name, created_at FROM orgs WHERE id = $1";
    INSERT_AGENT = "INSERT INTO agents (id, org_id, name, wallet_address, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    GET_AGENT = "SELECT id, org_id, name, wallet_address, created_at, updated_at FROM agents WHERE id = $1";
    UPDATE_AGENT = "UPDATE agents SET name = $2, wallet_address = $3, updated_at = $4 WHERE id = $1";
}

/// Makes an org.
///
/// # Errors
/// [`StoreError::Conflict`] if there is one of this id.
pub async fn insert_org(s: &mut Session, org: &Org) -> Result<(), StoreError> {
    s.execute(INSERT_ORG, args![&org.id, &org.name, org.created_at]).await?;
    Ok(())
}

/// An org, which nobody else changes until the transaction ends: two changes to its users take turns.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds it for too long.
pub async fn lock_org(s: &mut Session, id: &OrgId) -> Result<Option<Org>, StoreError> {
    s.optional(s.locking(GET_ORG), args![id], |row| {
        Ok(Org { id: row.parse("id")?, name: row.text("name")?, created_at: row.time("created_at")? })
    })
    .await
}

/// Makes an agent.
///
/// # Errors
/// [`StoreError::Conflict`] if there is one of this id.
pub async fn insert_agent(s: &mut Session, agent: &Agent) -> Result<(), StoreError> {
    let wallet = agent.wallet_address.as_ref().map(WalletAddress::as_str);
    let args = args![&agent.id, &agent.org_id, &agent.name, wallet, agent.created_at, agent.updated_at];
    s.execute(INSERT_AGENT, args).await?;
    Ok(())
}

/// An agent.
///
/// # Errors
/// Those of the database.
pub async fn agent(s: &mut Session, id: &AgentId) -> Result<Option<Agent>, StoreError> {
    s.optional(GET_AGENT, args![id], read_agent).await
}

/// An agent, which nobody else changes until the transaction ends.
///
/// # Errors
/// [`StoreError::Busy`] if another transaction holds it for too long.
pub async fn lock_agent(s: &mut Session, id: &AgentId) -> Result<Option<Agent>, StoreError> {
    s.optional(s.locking(GET_AGENT), args![id], read_agent).await
}

/// Writes an agent's name, wallet address and time of change. Whether there is such an agent.
///
/// # Errors
/// Those of the database.
pub async fn update_agent(s: &mut Session, agent: &Agent) -> Result<bool, StoreError> {
    let wallet = agent.wallet_address.as_ref().map(WalletAddress::as_str);
    Ok(s.execute(UPDATE_AGENT, args![&agent.id, &agent.name, wallet, agent.updated_at]).await? > 0)
}

fn read_agent(row: &Row) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        name: row.text("name")?,
        wallet_address: row
            .opt_text("wallet_address")?
            .map(WalletAddress::try_from)
            .transpose()
            .map_err(|error| StoreError::corrupt("wallet_address", error))?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
