//! The policies that operators add to the matrix.

use ringfence_model::{OrgId, PolicyId, Timestamp};
use ringfence_store::policies::{self, Policy};
use ringfence_store::{StoreError, Tx};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::engine::{BadPolicy, check};
use super::{Action, Denied, Resource};
use crate::error::{Checks, rules};
use crate::{Caller, Control, Internal, Invalid};

/// How many policies there may be: every request is tested against those that concern it.
const MAX_POLICIES: usize = 200;
const MAX_TEXT_BYTES: usize = 10_000;

/// A new policy.
#[derive(Debug, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewPolicy {
    /// Unique: 1 to 63 lower-case letters, digits and hyphens. Whoever is refused by the policy is told its name.
    #[schema(example = "no-deploys-at-night", min_length = 1, max_length = 63)]
    #[garde(custom(slug))]
    pub name: String,
    /// What it is for, up to 2,000 characters.
    #[serde(default)]
    #[schema(max_length = 2000)]
    #[garde(custom(rules::text(0, 2000)))]
    pub description: String,
    /// One Cedar policy, up to 10,000 bytes.
    #[schema(
        example = "forbid (principal, action == Ringfence::Action::\"bots:create\", resource) when { context.hour < 6 };"
    )]
    #[garde(custom(short))]
    pub text: String,
}

/// Changes to a policy. What is absent stays.
#[derive(Debug, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct PolicyChanges {
    /// The new name.
    #[garde(inner(custom(slug)))]
    pub name: Option<String>,
    /// The new description.
    #[garde(inner(custom(rules::text(0, 2000))))]
    pub description: Option<String>,
    /// The new text.
    #[garde(inner(custom(short)))]
    pub text: Option<String>,
}

/// A policy.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PolicyView {
    /// The policy.
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it says, in Cedar.
    pub text: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Why a use case of policies was refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The text is no policy, or speaks of what does not exist.
    #[error(transparent)]
    Bad(#[from] BadPolicy),
    /// No such policy.
    #[error("there is no policy with this id")]
    NotFound,
    /// Another policy has it.
    #[error("another policy has this name")]
    NameTaken,
    /// There are as many as there can be.
    #[error("there are {MAX_POLICIES} policies")]
    TooMany,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for PolicyError {
    fn from(error: StoreError) -> Self {
        match error {
            // The name is the only thing of a policy that a caller chooses and that must be unique.
            StoreError::Conflict(_) => Self::NameTaken,
            error => Self::Internal(error.into()),
        }
    }
}

impl Control {
    /// Adds a policy. When this answers, every host goes by it.
    ///
    /// # Errors
    /// [`PolicyError::Bad`] for a text that is not valid: then nothing changes.
    pub async fn create_policy(&self, caller: &Caller, new: NewPolicy) -> Result<PolicyView, PolicyError> {
        self.permit(caller, Action::PoliciesWrite, Resource::Org(&OrgId::platform())).await?;
        Checks::of(&new).done()?;
        check(&new.text)?;
        let now = self.clock.now();
        let policy = Policy {
            id: PolicyId::new(&*self.clock, &*self.rng),
            org_id: OrgId::platform(),
            name: new.name,
            description: new.description,
            text: new.text,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.store.begin().await?;
        policies::changing(&mut tx).await?;
        if policies::all(&mut tx).await?.len() >= MAX_POLICIES {
            return Err(PolicyError::TooMany);
        }
        policies::insert(&mut tx, &policy).await?;
        self.finish_policies(
            tx,
            caller,
            json!({ "added": policy.id, "name": policy.name, "text": policy.text }),
        )
        .await?;
        Ok(view(policy))
    }

    /// The policies, by name.
    ///
    /// # Errors
    /// [`PolicyError::Denied`] for all but the operators.
    pub async fn policies(&self, caller: &Caller) -> Result<Vec<PolicyView>, PolicyError> {
        self.permit(caller, Action::PoliciesRead, Resource::Org(&OrgId::platform())).await?;
        let all = policies::all(&mut self.store.reader().await?).await?;
        Ok(all.into_iter().map(view).collect())
    }

    /// A policy.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`].
    pub async fn policy(&self, caller: &Caller, id: &PolicyId) -> Result<PolicyView, PolicyError> {
        self.permit(caller, Action::PoliciesRead, Resource::Org(&OrgId::platform())).await?;
        let found = policies::get(&mut self.store.reader().await?, id).await?;
        found.map(view).ok_or(PolicyError::NotFound)
    }

    /// Changes a policy. When this answers, every host goes by what it says now.
    ///
    /// # Errors
    /// As [`Self::create_policy`].
    pub async fn update_policy(
        &self,
        caller: &Caller,
        id: &PolicyId,
        changes: PolicyChanges,
    ) -> Result<PolicyView, PolicyError> {
        self.permit(caller, Action::PoliciesWrite, Resource::Org(&OrgId::platform())).await?;
        Checks::of(&changes).done()?;
        changes.text.as_deref().map_or(Ok(()), check)?;
        let mut tx = self.store.begin().await?;
        policies::changing(&mut tx).await?;
        let mut policy = policies::get(&mut tx, id).await?.ok_or(PolicyError::NotFound)?;
        policy.name = changes.name.unwrap_or(policy.name);
        policy.description = changes.description.unwrap_or(policy.description);
        policy.text = changes.text.unwrap_or(policy.text);
        policy.updated_at = self.clock.now();
        policies::update(&mut tx, &policy).await?;
        self.finish_policies(tx, caller, json!({ "changed": id, "name": policy.name, "text": policy.text }))
            .await?;
        Ok(view(policy))
    }

    /// Removes a policy. When this answers, no host goes by it any more.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`].
    pub async fn delete_policy(&self, caller: &Caller, id: &PolicyId) -> Result<(), PolicyError> {
        self.permit(caller, Action::PoliciesWrite, Resource::Org(&OrgId::platform())).await?;
        let mut tx = self.store.begin().await?;
        policies::changing(&mut tx).await?;
        if !policies::delete(&mut tx, id).await? {
            return Err(PolicyError::NotFound);
        }
        self.finish_policies(tx, caller, json!({ "removed": id })).await?;
        Ok(())
    }

    async fn finish_policies(
        &self,
        mut tx: Tx,
        caller: &Caller,
        detail: serde_json::Value,
    ) -> Result<(), PolicyError> {
        self.audit(&mut tx, caller, Action::PoliciesWrite, Resource::Org(&OrgId::platform()), detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(())
    }
}

fn slug(name: &str, (): &()) -> garde::Result {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let holds = (1..=63).contains(&name.len()) && name.bytes().all(plain);
    rules::require(holds, "must have 1 to 63 lower-case letters, digits and hyphens")
}

fn short(text: &str, (): &()) -> garde::Result {
    rules::require(text.len() <= MAX_TEXT_BYTES, "must have at most 10000 bytes")?;
    rules::require(rules::is_plain(text), rules::PLAIN)
}

fn view(policy: Policy) -> PolicyView {
    PolicyView {
        policy_id: policy.id,
        name: policy.name,
        description: policy.description,
        text: policy.text,
        created_at: policy.created_at,
        updated_at: policy.updated_at,
    }
}
