//! Agents: registration with a key that is shown once, profiles; and the operator's key.

use std::sync::Arc;

use ringfence_model::{
    AgentId, ApiKey, ApiKeyId, HostId, InvalidWallet, OrgId, Timestamp, WalletAddress, hex,
};
use ringfence_store::accounts::{self, Agent, Key, Org};
use ringfence_store::{Session, Store, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Checks, rules};
use crate::{Caller, Control, Internal, Invalid, Settings};

/// Said wherever a missing wallet will matter.
pub(crate) const NO_WALLET: &str =
    "wallet_address not set: payouts stay in the built-in ledger; payouts on a chain will be skipped";

/// A registration.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    /// What people call it, 1 to 100 characters.
    #[garde(custom(agent_name))]
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Where payouts on a chain go: an EVM address.
    #[garde(skip)]
    pub wallet_address: Option<String>,
}

/// Changes to one's own profile. What is absent stays; a `wallet_address` of `null` removes it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct AgentChanges {
    /// The new name, 1 to 100 characters.
    #[garde(inner(custom(agent_name)))]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// The new wallet address, or `null` for none.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub wallet_address: Option<Option<String>>,
}

/// Tells a field that is `null` from one that is absent.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What anyone may know of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// The agent.
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// What people call it.
    pub name: String,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// What only the agent itself sees.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnAgentView>,
}

/// What only the agent itself sees of its profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnAgentView {
    /// The org that it belongs to.
    #[schema(value_type = String)]
    pub org_id: OrgId,
    /// Where payouts on a chain go.
    #[schema(value_type = Option<String>)]
    pub wallet_address: Option<WalletAddress>,
    /// When the profile last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A new agent and its key.
pub struct RegisteredAgent {
    /// The profile.
    pub agent: AgentView,
    /// The key. This is the only time that it can be seen.
    pub api_key: ApiKey,
    /// What the new agent should know.
    pub warnings: Vec<String>,
}

/// Why a use case of agents was refused.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The wallet address is wrong.
    #[error(transparent)]
    Wallet(#[from] InvalidWallet),
    /// No such agent.
    #[error("there is no agent with this id")]
    NotFound,
    /// Another agent's profile.
    #[error("an agent can change its own profile only")]
    NotYours,
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

fn agent_name(name: &str, context: &()) -> garde::Result {
    rules::label(100)(name, context)
}

impl Control {
    /// Starts the use cases. On a new database it makes the operator's org and key: the key is in the second part
    /// of the answer, and is never to be had again.
    ///
    /// # Errors
    /// [`Internal`] if the database fails.
    pub async fn start(
        store: Store,
        runtime: ringfence_runtime::Runtime,
        clock: Arc<dyn ringfence_model::Clock>,
        rng: Arc<dyn ringfence_model::Rng>,
        settings: Settings,
    ) -> Result<(Self, Option<ApiKey>), Internal> {
        let mut tx = store.begin().await?;
        let org = Org { id: OrgId::platform(), name: "operators".to_owned(), created_at: clock.now() };
        // Of several hosts that start at once, one inserts the org, and with it the key.
        let operator_key = match accounts::insert_org(&mut tx, &org).await {
            Ok(()) => {
                let key = insert_key(&mut tx, &*clock, &*rng, &org.id, None).await?;
                tx.commit().await?;
                Some(key)
            }
            Err(StoreError::Conflict(_)) => {
                drop(tx);
                None
            }
            Err(error) => return Err(error.into()),
        };
        let host_id = HostId::new(&*clock, &*rng);
        Ok((
            Self {
                store,
                runtime,
                clock,
                rng,
                settings,
                evaluation_bell: Arc::default(),
                expiry_bell: Arc::default(),
                host_id,
            },
            operator_key,
        ))
    }

    /// Makes one more operator key, for an operator who has lost the first.
    ///
    /// # Errors
    /// [`Internal`] if the database fails.
    pub async fn add_operator_key(&self) -> Result<ApiKey, Internal> {
        let mut tx = self.store.begin().await?;
        let key = insert_key(&mut tx, &*self.clock, &*self.rng, &OrgId::platform(), None).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// A name for a request that came without one: 128 random bits in hexadecimal.
    #[must_use]
    pub fn request_id(&self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill(&mut bytes);
        hex(&bytes)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Internal`] if it does not.
    pub async fn ready(&self) -> Result<(), Internal> {
        let mut reader = self.store.reader().await?;
        accounts::agent(&mut reader, &AgentId::new(&*self.clock, &*self.rng)).await?;
        Ok(())
    }

    /// Registers an agent in an org of its own. Anyone may.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] or [`AccountError::Wallet`] for wrong fields.
    pub async fn register_agent(&self, new: NewAgent) -> Result<RegisteredAgent, AccountError> {
        Checks::of(&new).done()?;
        let wallet_address = new.wallet_address.map(WalletAddress::try_from).transpose()?;
        let now = self.clock.now();
        let org = Org { id: OrgId::new(&*self.clock, &*self.rng), name: new.name.clone(), created_at: now };
        let agent = Agent {
            id: AgentId::new(&*self.clock, &*self.rng),
            org_id: org.id.clone(),
            name: new.name,
            wallet_address,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.store.begin().await?;
        accounts::insert_org(&mut tx, &org).await?;
        accounts::insert_agent(&mut tx, &agent).await?;
        let api_key = insert_key(&mut tx, &*self.clock, &*self.rng, &org.id, Some(&agent.id)).await?;
        tx.commit().await?;
        let warnings = if agent.wallet_address.is_none() { vec![NO_WALLET.to_owned()] } else { Vec::new() };
        Ok(RegisteredAgent { agent: own_view(agent), api_key, warnings })
    }

    /// An agent's profile: all of it for the agent itself, the public part for others.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn agent(&self, caller: &Caller, id: &AgentId) -> Result<AgentView, AccountError> {
        let mut reader = self.store.reader().await?;
        let agent = accounts::agent(&mut reader, id).await?.ok_or(AccountError::NotFound)?;
        Ok(match caller {
            Caller::Agent { id: own, .. } if own == id => own_view(agent),
            _ => AgentView { own: None, ..own_view(agent) },
        })
    }

    /// Changes the caller's own profile.
    ///
    /// # Errors
    /// [`AccountError::NotYours`] for another agent's; otherwise as [`Self::register_agent`].
    pub async fn update_agent(
        &self,
        caller: &Caller,
        id: &AgentId,
        changes: AgentChanges,
    ) -> Result<AgentView, AccountError> {
        let mut tx = self.store.begin().await?;
        let mut agent = accounts::lock_agent(&mut tx, id).await?.ok_or(AccountError::NotFound)?;
        if caller.agent() != Some(id) {
            return Err(AccountError::NotYours);
        }
        Checks::of(&changes).done()?;
        if let Some(name) = changes.name {
            agent.name = name;
        }
        if let Some(wallet) = changes.wallet_address {
            agent.wallet_address = wallet.map(WalletAddress::try_from).transpose()?;
        }
        agent.updated_at = self.clock.now();
        accounts::update_agent(&mut tx, &agent).await?;
        tx.commit().await?;
        Ok(own_view(agent))
    }
}

fn own_view(agent: Agent) -> AgentView {
    AgentView {
        agent_id: agent.id,
        name: agent.name,
        created_at: agent.created_at,
        own: Some(OwnAgentView {
            org_id: agent.org_id,
            wallet_address: agent.wallet_address,
            updated_at: agent.updated_at,
        }),
    }
}

async fn insert_key(
    session: &mut Session,
    clock: &dyn ringfence_model::Clock,
    rng: &dyn ringfence_model::Rng,
    org: &OrgId,
    agent: Option<&AgentId>,
) -> Result<ApiKey, StoreError> {
    let key = ApiKey::generate(rng);
    let row = Key {
        id: ApiKeyId::new(clock, rng),
        org_id: org.clone(),
        agent_id: agent.cloned(),
        prefix: key.prefix().to_owned(),
        created_at: clock.now(),
        revoked_at: None,
    };
    accounts::insert_key(session, &row, &key.hash()).await?;
    Ok(key)
}
