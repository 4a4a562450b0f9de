//! Agents: registration with a key that is shown once, profiles; and the operator's key.

use std::sync::Arc;

use ringfence_model::{AgentId, ApiKey, HostId, InvalidWallet, OrgId, Timestamp, WalletAddress, hex};
use ringfence_store::accounts::{self, Agent, Org};
use ringfence_store::{Store, StoreError, keys};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::access::{Access, Leased, first_operator_key, fresh};
use crate::audit::{ANONYMOUS, AuditOutcome, Deed};
use crate::error::{Checks, rules};
use crate::limits::Limits;
use crate::live::Live;
use crate::policy::{Action, Policies, Resource};
use crate::recorder::Recorder;
use crate::{Caller, Control, Denied, Internal, Invalid, MasterKeys, Origin, Settings};

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
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
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
        master: MasterKeys,
        clock: Arc<dyn ringfence_model::Clock>,
        rng: Arc<dyn ringfence_model::Rng>,
        settings: Settings,
    ) -> Result<(Self, Option<ApiKey>), Internal> {
        let mut tx = store.begin().await?;
        let org = Org { id: OrgId::platform(), name: "operators".to_owned(), created_at: clock.now() };
        // Of several hosts that start at once, one inserts the org, and with it the key.
        let operator_key = match accounts::insert_org(&mut tx, &org).await {
            Ok(()) => Some(first_operator_key(&mut tx, &*clock, &*rng, "first operator key").await?.1),
            Err(StoreError::Conflict(_)) => {
                drop(tx);
                tx = store.begin().await?;
                None
            }
            Err(error) => return Err(error.into()),
        };
        // With the key, or not at all: a key that nobody was shown would be lost.
        Access::seed(&mut tx, &master, (&*clock, &*rng)).await?;
        tx.commit().await?;
        let access = Access::open(&store, master).await?;
        let policies = Policies::load(&store).await?;
        let host_id = HostId::new(&*clock, &*rng);
        Ok((
            Self {
                access: Arc::new(access),
                policies: Arc::new(policies),
                limits: Arc::new(Limits::new(settings.rate_limits)),
                deployed: Arc::new(Leased::new(crate::bots::KEPT)),
                running: crate::bots::Running::default(),
                recorder: Arc::new(Recorder::start(store.clone())),
                live: Arc::new(Live::new()),
                store,
                runtime,
                clock,
                rng,
                settings,
                evaluation_bell: Arc::default(),
                expiry_bell: Arc::default(),
                work_bell: Arc::default(),
                host_id,
            },
            operator_key,
        ))
    }

    /// Returns when every call that has ended is recorded.
    pub async fn settled(&self) {
        self.recorder.settled().await;
    }

    /// Ends what is followed live, now and from now on: the host is about to stop.
    pub fn stop_following(&self) {
        self.live.close();
    }

    /// Makes one more operator key, for an operator who has lost the first.
    ///
    /// # Errors
    /// [`Internal`] if the database fails.
    pub async fn add_operator_key(&self) -> Result<ApiKey, Internal> {
        let mut tx = self.store.begin().await?;
        let (id, key) = first_operator_key(&mut tx, &*self.clock, &*self.rng, "made by command").await?;
        self.audit_command(&mut tx, Action::KeysCreate.name(), id.as_str(), json!({ "role": "operator" }))
            .await?;
        tx.commit().await?;
        Ok(key)
    }

    /// Notes in the audit log that the secrets are sealed under another master key.
    ///
    /// # Errors
    /// [`Internal`] if the database fails.
    pub async fn note_master_key(&self, id: &str) -> Result<(), Internal> {
        let mut tx = self.store.begin().await?;
        let platform = OrgId::platform();
        let detail = json!({ "master_key_id": id });
        self.audit_command(&mut tx, "master-key:rotate", platform.as_str(), detail).await?;
        Ok(tx.commit().await?)
    }

    /// Signs tokens with a new key from now on, from the host's command line.
    ///
    /// # Errors
    /// [`Internal`] if the database fails.
    pub async fn rotate_signing_key_by_command(&self, forget_old: bool) -> Result<(), Internal> {
        let mut tx = self.store.begin().await?;
        self.replace_signing_key(&mut tx, forget_old).await?;
        let (action, platform) = (Action::SigningKeysRotate.name(), OrgId::platform());
        self.audit_command(&mut tx, action, platform.as_str(), json!({ "forget_old": forget_old })).await?;
        Ok(tx.commit().await?)
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

    /// Registers an agent. Anyone may: the agent gets an org of its own. Whoever has proved who it is, and may, registers
    /// it in its own org; if that was by a key, the agent's key may be used for no more than that one.
    ///
    /// # Errors
    /// [`AccountError::Invalid`] or [`AccountError::Wallet`] for wrong fields.
    pub async fn register_agent(
        &self,
        caller: Option<&Caller>,
        origin: &Origin,
        new: NewAgent,
    ) -> Result<RegisteredAgent, AccountError> {
        if let Some(caller) = caller {
            self.permit(caller, Action::AgentsRegister, Resource::Org(caller.org())).await?;
        }
        Checks::of(&new).done()?;
        let wallet_address = new.wallet_address.map(WalletAddress::try_from).transpose()?;
        let now = self.clock.now();
        let id = AgentId::new(&*self.clock, &*self.rng);
        let org_id =
            caller.map_or_else(|| OrgId::new(&*self.clock, &*self.rng), |caller| caller.org().clone());
        let agent = Agent { id, org_id, name: new.name, wallet_address, created_at: now, updated_at: now };
        let (mut key, api_key) = fresh(&*self.clock, &*self.rng, &agent.org_id);
        (key.agent_id, key.name) = (Some(agent.id.clone()), "first key".to_owned());
        // A key for few things must not come by one for all of them.
        if let Some(scopes) = caller.and_then(Caller::scopes) {
            key.scopes = scopes.to_vec();
            key.expires_at = caller.and_then(Caller::expires_at);
            let quotas = caller.map(Caller::quotas).unwrap_or_default();
            (key.reads_per_minute, key.writes_per_minute) =
                (quotas.reads_per_minute, quotas.writes_per_minute);
        }
        let mut tx = self.store.begin().await?;
        if caller.is_none() {
            let org = Org { id: agent.org_id.clone(), name: agent.name.clone(), created_at: now };
            accounts::insert_org(&mut tx, &org).await?;
        }
        accounts::insert_agent(&mut tx, &agent).await?;
        keys::insert(&mut tx, &key, &api_key.hash()).await?;
        let deed = Deed {
            actor: caller.map_or(ANONYMOUS, Caller::principal),
            credential: caller.map(Caller::credential),
            org: &agent.org_id,
            action: Action::AgentsRegister.name(),
            resource: agent.id.as_str().into(),
            resource_org: &agent.org_id,
            outcome: AuditOutcome::Done,
            origin,
            detail: json!({ "key_id": key.id }),
        };
        self.record(&mut tx, &deed).await?;
        tx.commit().await?;
        let warnings = if agent.wallet_address.is_none() { vec![NO_WALLET.to_owned()] } else { Vec::new() };
        Ok(RegisteredAgent { agent: own_view(agent), api_key, warnings })
    }

    /// An agent's profile: all of it for the agent itself, the public part for others.
    ///
    /// # Errors
    /// [`AccountError::NotFound`].
    pub async fn agent(&self, caller: &Caller, id: &AgentId) -> Result<AgentView, AccountError> {
        let agent = accounts::agent(&mut self.store.reader().await?, id).await?;
        let agent = agent.ok_or(AccountError::NotFound)?;
        self.permit(caller, Action::AgentsRead, Resource::Agent(&agent.org_id, id)).await?;
        // People of the agent's own org see all of it, another agent of the org does not.
        let own = caller.agent().map_or(agent.org_id == *caller.org(), |own| own == id);
        Ok(if own { own_view(agent) } else { AgentView { own: None, ..own_view(agent) } })
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
        let found =
            accounts::agent(&mut self.store.reader().await?, id).await?.ok_or(AccountError::NotFound)?;
        if caller.agent().is_some_and(|own| own != id) || found.org_id != *caller.org() {
            return Err(AccountError::NotYours);
        }
        let resource = Resource::Agent(&found.org_id, id);
        self.permit(caller, Action::AgentsUpdate, resource).await?;
        Checks::of(&changes).done()?;
        let mut tx = self.store.begin().await?;
        let mut agent = accounts::lock_agent(&mut tx, id).await?.ok_or(AccountError::NotFound)?;
        if let Some(name) = changes.name {
            agent.name = name;
        }
        if let Some(wallet) = changes.wallet_address {
            agent.wallet_address = wallet.map(WalletAddress::try_from).transpose()?;
        }
        agent.updated_at = self.clock.now();
        accounts::update_agent(&mut tx, &agent).await?;
        let detail = json!({ "name": agent.name, "wallet_address": agent.wallet_address });
        self.audit(&mut tx, caller, Action::AgentsUpdate, resource, detail).await?;
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
