//! API keys: further ones for agents, service keys for other machines; replaced, limited, revoked.

use std::time::Duration;

use ringfence_model::{AgentId, ApiKey, ApiKeyId, Clock, OrgId, Rng, Role, Timestamp};
use ringfence_store::keys::{self, Key};
use ringfence_store::{StoreError, Tx, accounts};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::error::{Checks, rules};
use crate::policy::{ALL_SCOPES, Action, Denied, Resource, scopes};
use crate::{Caller, Control, Internal, Invalid, Page, Quotas};

/// How many keys of an org may count at a time.
const MAX_LIVE: u64 = 1000;
/// How long a replaced key may go on counting.
const MAX_GRACE_SECONDS: u32 = 24 * 3600;
/// What a key's own limits may be.
const PER_MINUTE: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// A new key.
#[derive(Debug, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What people call it: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    #[garde(custom(rules::label(100)))]
    pub name: String,
    /// Whose it is, for a key of an agent; a service key is nobody's.
    #[schema(value_type = Option<String>)]
    #[garde(skip)]
    pub agent_id: Option<AgentId>,
    /// What a service key may do: `admin`, `operator`, `user` or `viewer`. An agent's key has none.
    #[schema(value_type = Option<String>)]
    #[garde(custom(for_service_keys(self.agent_id.is_some())))]
    pub role: Option<Role>,
    /// What it may be used for, as in the permission matrix; `["*"]`, which is the default, for all of it.
    #[schema(example = json!(["bots:read", "bots:invoke"]))]
    #[garde(inner(custom(known_scopes)))]
    pub scopes: Option<Vec<String>>,
    /// From when on it counts no more.
    #[schema(value_type = Option<String>, format = DateTime)]
    #[garde(skip)]
    pub expires_at: Option<Timestamp>,
}

/// How an agent's key is replaced.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// For how many seconds the old key goes on counting, 0 to 86,400.
    #[serde(default)]
    #[garde(custom(rules::within(0..=MAX_GRACE_SECONDS, "must be 0 to 86400")))]
    pub grace_seconds: u32,
}

/// Requests a minute of one key; `null` is the host's default.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// That read: 1 to 1,000,000.
    #[garde(inner(custom(rules::within(
        PER_MINUTE,
        "must be 1 to 1000000, or null for the host's default"
    ))))]
    pub reads_per_minute: Option<u32>,
    /// That change something: 1 to 1,000,000.
    #[garde(inner(custom(rules::within(
        PER_MINUTE,
        "must be 1 to 1000000, or null for the host's default"
    ))))]
    pub writes_per_minute: Option<u32>,
}

/// What is known of a key.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KeyView {
    /// The key.
    #[schema(value_type = String)]
    pub key_id: ApiKeyId,
    /// Its org.
    #[schema(value_type = String)]
    pub org_id: OrgId,
    /// Whose it is; `null` for a service key.
    #[schema(value_type = Option<String>)]
    pub agent_id: Option<AgentId>,
    /// What a service key may do.
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// What people call it.
    pub name: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// Its first characters.
    #[schema(example = "rf_live_4fK2")]
    pub prefix: String,
    /// Requests that read a minute, where that is not the host's default.
    pub reads_per_minute: Option<u32>,
    /// Requests that change something a minute, where that is not the host's default.
    pub writes_per_minute: Option<u32>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// From when on it counts no more.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to about a minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}

/// A new key, with its secret.
pub struct MadeKey {
    /// What is known of it.
    pub key: KeyView,
    /// The key. This is the only time that it can be seen.
    pub api_key: ApiKey,
}

/// Why a use case of keys was refused.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such key, or another org's.
    #[error("there is no key with this id")]
    NotFound,
    /// No such agent, or another org's.
    #[error("there is no agent with this id")]
    NoSuchAgent,
    /// Another agent's key.
    #[error("an agent has to do with its own keys only")]
    NotYours,
    /// The new key would do more than the caller may.
    #[error("nobody gives more than they have")]
    MoreThanYours,
    /// The org has as many keys as it can.
    #[error("the org has {MAX_LIVE} keys")]
    TooMany,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl Control {
    /// Makes a service key, or a further key of an agent.
    ///
    /// # Errors
    /// [`KeyError::MoreThanYours`] for a role or a scope that the caller does not have itself.
    pub async fn create_key(&self, caller: &Caller, new: NewKey) -> Result<MadeKey, KeyError> {
        if let Some(agent) = &new.agent_id {
            let found = accounts::agent(&mut self.store.reader().await?, agent).await?;
            found.filter(|found| found.org_id == *caller.org()).ok_or(KeyError::NoSuchAgent)?;
            own_agent(caller, agent)?;
            self.permit(caller, Action::KeysCreate, Resource::Agent(caller.org(), agent)).await?;
        } else {
            self.permit(caller, Action::KeysCreate, Resource::Org(caller.org())).await?;
        }
        let mut checks = Checks::of(&new);
        let future = new.expires_at.is_none_or(|at| at > self.clock.now());
        checks.require(future, "expires_at", "must lie in the future");
        checks.done()?;
        let scopes = new.scopes.unwrap_or_else(|| vec![ALL_SCOPES.to_owned()]);
        let role_covered = new.role.is_none_or(|role| caller.role().is_some_and(|own| own.covers(role)));
        // A key that ends makes none that outlives it.
        let expires_at = new.expires_at.or(caller.expires_at());
        let ends = caller.expires_at().is_none_or(|end| expires_at.is_some_and(|at| at <= end));
        if !role_covered || !ends || !scopes.iter().all(|scope| caller.has_scope(scope)) {
            return Err(KeyError::MoreThanYours);
        }
        let mut tx = self.store.begin().await?;
        // Those who make keys of one org take turns, so that each counts what the one before has made.
        accounts::lock_org(&mut tx, caller.org()).await?;
        if keys::live_count(&mut tx, caller.org(), self.clock.now()).await? >= MAX_LIVE {
            return Err(KeyError::TooMany);
        }
        let (mut row, api_key) = fresh(&*self.clock, &*self.rng, caller.org());
        (row.agent_id, row.role, row.name) = (new.agent_id, new.role, new.name);
        (row.scopes, row.expires_at) = (scopes, expires_at);
        let Quotas { reads_per_minute, writes_per_minute } = caller.quotas();
        (row.reads_per_minute, row.writes_per_minute) = (reads_per_minute, writes_per_minute);
        keys::insert(&mut tx, &row, &api_key.hash()).await?;
        let detail = json!({ "agent_id": row.agent_id, "role": row.role, "scopes": row.scopes });
        self.audit(&mut tx, caller, Action::KeysCreate, resource(&row), detail).await?;
        tx.commit().await?;
        Ok(MadeKey { key: view(row), api_key })
    }

    /// The keys of the caller's org, newest first; for an agent, its own.
    ///
    /// # Errors
    /// [`KeyError::Denied`].
    pub async fn keys(&self, caller: &Caller, limit: u32, offset: u32) -> Result<Page<KeyView>, KeyError> {
        let page = if let Some(agent) = caller.agent() {
            self.permit(caller, Action::KeysList, Resource::Agent(caller.org(), agent)).await?;
            keys::list_of_agent(&mut self.store.reader().await?, agent, limit, offset).await?
        } else {
            self.permit(caller, Action::KeysList, Resource::Org(caller.org())).await?;
            keys::list(&mut self.store.reader().await?, caller.org(), limit, offset).await?
        };
        Ok(Page::of(page, view))
    }

    /// What is known of a key.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], also for another org's.
    pub async fn key(&self, caller: &Caller, id: &ApiKeyId) -> Result<KeyView, KeyError> {
        let key = keys::get(&mut self.store.reader().await?, id).await?;
        let key = key.filter(|key| key.org_id == *caller.org()).ok_or(KeyError::NotFound)?;
        key.agent_id.as_ref().map_or(Ok(()), |agent| own_agent(caller, agent))?;
        self.permit(caller, Action::KeysRead, resource(&key)).await?;
        Ok(view(key))
    }

    /// Revokes a key. When this answers, no host takes it any more.
    ///
    /// # Errors
    /// [`KeyError::NotFound`], also for another org's, unless the caller is an admin of the operators.
    pub async fn revoke_key(&self, caller: &Caller, id: &ApiKeyId) -> Result<(), KeyError> {
        let key = keys::get(&mut self.store.reader().await?, id).await?;
        let key = key.filter(|key| caller.reaches(&key.org_id)).ok_or(KeyError::NotFound)?;
        key.agent_id.as_ref().map_or(Ok(()), |agent| own_agent(caller, agent))?;
        self.permit(caller, Action::KeysRevoke, resource(&key)).await?;
        let mut tx = self.store.begin().await?;
        self.confirm(&mut tx, caller).await?;
        if keys::revoke(&mut tx, id, self.clock.now()).await? {
            self.audit_end(&mut tx, caller, Action::KeysRevoke, resource(&key), json!({})).await?;
        }
        tx.commit().await?;
        self.in_force().await;
        Ok(())
    }

    /// Replaces an agent's key: the one that the agent calls with, or all of them if an admin asks. The new one may be
    /// used for the same.
    ///
    /// # Errors
    /// [`KeyError::NotYours`] for another agent's; [`KeyError::MoreThanYours`] if the new key would have a scope that the
    /// caller's key lacks.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        agent: &AgentId,
        how: RotateKey,
    ) -> Result<MadeKey, KeyError> {
        let found = accounts::agent(&mut self.store.reader().await?, agent).await?;
        let found = found.filter(|found| found.org_id == *caller.org()).ok_or(KeyError::NoSuchAgent)?;
        own_agent(caller, agent)?;
        let target = Resource::Agent(&found.org_id, agent);
        self.permit(caller, Action::AgentsRotateKey, target).await?;
        Checks::of(&how).done()?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        accounts::lock_org(&mut tx, &found.org_id).await?;
        accounts::lock_agent(&mut tx, agent).await?;
        let mut old = keys::lock_valid_of_agent(&mut tx, agent, now).await?;
        self.confirm(&mut tx, caller).await?;
        // With a grace the old ones go on counting.
        if how.grace_seconds > 0 && keys::live_count(&mut tx, &found.org_id, now).await? >= MAX_LIVE {
            return Err(KeyError::TooMany);
        }
        if caller.agent().is_some() {
            old.retain(|key| Some(&key.id) == caller.key());
            // It was revoked since the call came in: whoever did that would not want it replaced.
            if old.is_empty() {
                return Err(KeyError::NotFound);
            }
        }
        for key in &old {
            if how.grace_seconds == 0 {
                keys::revoke(&mut tx, &key.id, now).await?;
            } else {
                keys::expire(&mut tx, &key.id, now.plus(Duration::from_secs(how.grace_seconds.into())))
                    .await?;
            }
        }
        let (mut row, api_key) = fresh(&*self.clock, &*self.rng, &found.org_id);
        row.agent_id = Some(agent.clone());
        // Nothing is to be had for longer than it was, and a key that ends makes none that outlives it.
        let ends = old.iter().map(|key| key.expires_at).chain([caller.expires_at()]);
        row.expires_at = ends.flatten().min();
        let quotas = old.last().map_or(caller.quotas(), |last| Quotas {
            reads_per_minute: last.reads_per_minute,
            writes_per_minute: last.writes_per_minute,
        });
        (row.reads_per_minute, row.writes_per_minute) = (quotas.reads_per_minute, quotas.writes_per_minute);
        if let Some(last) = old.last() {
            (row.name, row.scopes) = (last.name.clone(), all_scopes(&old));
        }
        // A service key for few things must not come by an agent's key for all of them.
        if !row.scopes.iter().all(|scope| caller.has_scope(scope)) {
            return Err(KeyError::MoreThanYours);
        }
        keys::insert(&mut tx, &row, &api_key.hash()).await?;
        let detail = json!({ "new_key": row.id, "grace_seconds": how.grace_seconds });
        self.audit_end(&mut tx, caller, Action::AgentsRotateKey, target, detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(MadeKey { key: view(row), api_key })
    }

    /// Sets how many requests a minute a key may make, whatever its org.
    ///
    /// # Errors
    /// [`KeyError::NotFound`].
    pub async fn limit_key(
        &self,
        caller: &Caller,
        id: &ApiKeyId,
        limits: KeyLimits,
    ) -> Result<KeyView, KeyError> {
        let key = keys::get(&mut self.store.reader().await?, id).await?;
        let mut key = key.filter(|key| caller.reaches(&key.org_id)).ok_or(KeyError::NotFound)?;
        self.permit(caller, Action::KeysLimit, resource(&key)).await?;
        Checks::of(&limits).done()?;
        (key.reads_per_minute, key.writes_per_minute) = (limits.reads_per_minute, limits.writes_per_minute);
        let mut tx = self.store.begin().await?;
        keys::set_limits(&mut tx, id, limits.reads_per_minute, limits.writes_per_minute).await?;
        let detail =
            json!({ "reads_per_minute": key.reads_per_minute, "writes_per_minute": key.writes_per_minute });
        self.audit(&mut tx, caller, Action::KeysLimit, resource(&key), detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(view(key))
    }
}

/// A key of an agent concerns that agent, and the admins of its org.
fn own_agent(caller: &Caller, agent: &AgentId) -> Result<(), KeyError> {
    if caller.agent().is_none_or(|own| own == agent) { Ok(()) } else { Err(KeyError::NotYours) }
}

/// What some keys may be used for between them.
fn all_scopes(keys: &[Key]) -> Vec<String> {
    if let [one] = keys {
        return one.scopes.clone();
    }
    let held = |scope: &str| keys.iter().any(|key| key.scopes.iter().any(|has| has == scope));
    let held = if held(ALL_SCOPES) {
        vec![ALL_SCOPES]
    } else {
        scopes().into_iter().filter(|scope| held(scope)).collect()
    };
    held.into_iter().map(str::to_owned).collect()
}

/// A service key has a role, an agent's key does what agents may.
fn for_service_keys(of_agent: bool) -> impl Fn(&Option<Role>, &()) -> garde::Result {
    move |role, ()| match (of_agent, role) {
        (true, Some(_)) => rules::require(false, "must be absent: an agent's key does what agents may"),
        (false, None) => rules::require(false, "must be given: what the service key may do"),
        _ => Ok(()),
    }
}

fn known_scopes(wanted: &[String], (): &()) -> garde::Result {
    let known = scopes();
    let holds = !wanted.is_empty()
        && wanted.len() <= known.len()
        && wanted.iter().all(|scope| known.contains(&scope.as_str()));
    rules::require(holds, format!("must name at least one, none twice, each of: {}", known.join(", ")))
}

/// A new key that may be used for everything, for good, and is nobody's yet.
pub(crate) fn fresh(clock: &dyn Clock, rng: &dyn Rng, org: &OrgId) -> (Key, ApiKey) {
    let key = ApiKey::generate(rng);
    let row = Key {
        id: ApiKeyId::new(clock, rng),
        org_id: org.clone(),
        agent_id: None,
        role: None,
        name: String::new(),
        scopes: vec![ALL_SCOPES.to_owned()],
        prefix: key.prefix().to_owned(),
        reads_per_minute: None,
        writes_per_minute: None,
        created_at: clock.now(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    };
    (row, key)
}

/// Makes a service key for operators: what a new installation begins with.
pub(crate) async fn first_operator_key(
    tx: &mut Tx,
    clock: &dyn Clock,
    rng: &dyn Rng,
    name: &str,
) -> Result<(ApiKeyId, ApiKey), StoreError> {
    let (mut row, key) = fresh(clock, rng, &OrgId::platform());
    (row.role, row.name) = (Some(Role::Operator), name.to_owned());
    keys::insert(tx, &row, &key.hash()).await?;
    Ok((row.id, key))
}

fn resource(key: &Key) -> Resource<'_> {
    Resource::Key(&key.org_id, &key.id, key.agent_id.as_ref(), key.role)
}

fn view(key: Key) -> KeyView {
    KeyView {
        key_id: key.id,
        org_id: key.org_id,
        agent_id: key.agent_id,
        role: key.role,
        name: key.name,
        scopes: key.scopes,
        prefix: key.prefix,
        reads_per_minute: key.reads_per_minute,
        writes_per_minute: key.writes_per_minute,
        created_at: key.created_at,
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
        revoked_at: key.revoked_at,
    }
}
