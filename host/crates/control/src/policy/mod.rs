//! Who may: the permission matrix, and the Cedar policies that operators add to it.
//!
//! Every use case asks [`Control::permit`] before it does or shows anything. Denied is what nothing permits, and what
//! anything forbids. The fence between orgs is a `forbid`, so no policy opens it.

mod engine;
mod entities;
mod matrix;
mod rules;

use std::sync::Arc;
use std::time::Instant;

use ringfence_store::{Store, policies};

pub use engine::BadPolicy;
use engine::{Engine, Verdict};
use entities::Principal;
pub(crate) use entities::{AGENT, Resource};
pub(crate) use matrix::{ALL_SCOPES, scopes};
pub use matrix::{Action, Permission, Reach, markdown as permission_table};
pub use rules::{NewPolicy, PolicyChanges, PolicyError, PolicyView};

use crate::access::{LEASE, Renewed};
use crate::{Caller, Control, Internal};

/// The Cedar schema that policies are validated against.
#[must_use]
pub fn policy_schema() -> String {
    engine::schema_text()
}

/// Why a caller may not.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The key was revoked, or the session ended, since the request came in.
    #[error("the credential is not good any more")]
    Gone,
    /// The key was not made for this.
    #[error("the key lacks the scope `{scope}`, which `{action}` needs")]
    Scope {
        /// What was asked.
        action: &'static str,
        /// What the key would need.
        scope: &'static str,
    },
    /// The matrix does not have it.
    #[error("`{role}` may not do `{action}` here")]
    Role {
        /// What was asked.
        action: &'static str,
        /// What the caller is.
        role: &'static str,
        /// Whether it is for members of the operators' org alone, and the caller is none.
        platform_only: bool,
    },
    /// A policy of the operators forbids it.
    #[error("the policy `{policy}` forbids `{action}`")]
    Policy {
        /// What was asked.
        action: &'static str,
        /// The policy's name.
        policy: String,
    },
    /// It could not be found out.
    #[error(transparent)]
    Internal(#[from] Internal),
}

/// The engine that is in force. A change of the policies makes a new one; requests never wait for that.
pub(crate) struct Policies(Renewed<Arc<Engine>>);

impl Policies {
    /// Reads the policies.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) async fn load(store: &Store) -> Result<Self, Internal> {
        let read_at = Instant::now();
        Ok(Self(Renewed::new(Arc::new(read(store).await?), read_at)))
    }

    /// The engine in force, which is at most [`LEASE`] old.
    async fn current(&self, store: &Store) -> Result<Arc<Engine>, Internal> {
        self.0.at_most(LEASE, |engine| changed(store, engine)).await
    }

    /// Lets the next request look for changes.
    pub(crate) fn forget(&self) {
        self.0.forget();
    }
}

/// The engine that is in force now, which may be this one.
async fn changed(store: &Store, engine: Arc<Engine>) -> Result<Arc<Engine>, Internal> {
    let version = policies::version(&mut store.reader().await?).await?;
    if version == engine.version { Ok(engine) } else { Ok(Arc::new(read(store).await?)) }
}

async fn read(store: &Store) -> Result<Engine, Internal> {
    // One connection, the version first: a change in between is found at the next look.
    let mut reader = store.reader().await?;
    let version = policies::version(&mut reader).await?;
    let all = policies::all(&mut reader).await?;
    match Engine::new(&all, version) {
        Ok(engine) => Ok(engine),
        // It may be one that forbids, so nothing goes on without it but what mends it.
        Err(BadPolicy(reason)) => {
            tracing::error!(
                reason,
                "a policy is not valid any more: everything is denied until it is changed or removed"
            );
            Engine::closed(version).map_err(|BadPolicy(reason)| Internal::Policy(reason))
        }
    }
}

impl Control {
    /// Whether the caller may do this to that. What is denied is put into the audit log, in a transaction of its own: so
    /// the caller of this holds neither a transaction nor a connection.
    ///
    /// # Errors
    /// [`Denied`] says what is missing.
    pub(crate) async fn permit(
        &self,
        caller: &Caller,
        action: Action,
        resource: Resource<'_>,
    ) -> Result<(), Denied> {
        match self.decide(caller, action, &resource).await {
            Err(denied) if !matches!(denied, Denied::Internal(_)) => {
                self.audit_denial(caller, action, &resource, &denied).await;
                Err(denied)
            }
            decided => decided,
        }
    }

    async fn decide(&self, caller: &Caller, action: Action, resource: &Resource<'_>) -> Result<(), Denied> {
        let permission = action.permission();
        if !self.is_still(caller).await? {
            return Err(Denied::Gone);
        }
        if !caller.has_scope(permission.scope) {
            return Err(Denied::Scope { action: permission.name, scope: permission.scope });
        }
        let engine = self.policies.current(&self.store).await?;
        let asked = (&Principal(caller), caller.origin().address);
        match engine.decide(asked, action, resource, self.clock.now())? {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(Denied::Role {
                action: permission.name,
                role: caller.role_name(),
                platform_only: permission.reach == Reach::Platform && !caller.is_platform(),
            }),
            Verdict::Forbidden(policy) => Err(Denied::Policy { action: permission.name, policy }),
        }
    }
}

#[cfg(test)]
mod tests;
