use ringfence_model::{AgentId, ApiKey, OrgId};
use ringfence_store::accounts;

use crate::{Control, Internal};

/// Who calls, as far as it has been proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An agent, by its API key.
    Agent {
        /// The agent.
        id: AgentId,
        /// The org that it acts for.
        org: OrgId,
    },
    /// An operator of this installation.
    Operator {
        /// The operators' org, which owns the platform's accounts.
        org: OrgId,
    },
}

/// Why a key was not accepted. What the caller hears is the same for all but `Internal`.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Not a key of ours, or with a typing error.
    #[error("the API key is malformed")]
    Malformed,
    /// No such key, or it was revoked.
    #[error("the API key is not known")]
    Unknown,
    /// The key could not be looked up.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl Caller {
    /// The org whose things the caller may use.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        match self {
            Self::Agent { org, .. } | Self::Operator { org } => org,
        }
    }

    /// The agent that calls, if an agent does.
    #[must_use]
    pub const fn agent(&self) -> Option<&AgentId> {
        match self {
            Self::Agent { id, .. } => Some(id),
            Self::Operator { .. } => None,
        }
    }

    /// Whose idempotency keys these are.
    pub(crate) fn principal(&self) -> &str {
        match self {
            Self::Agent { id, .. } => id.as_str(),
            Self::Operator { .. } => "operator",
        }
    }
}

impl Control {
    /// Finds out who holds `key`.
    ///
    /// # Errors
    /// [`AuthenticationError`]; a malformed key is refused without asking the database.
    pub async fn authenticate(&self, key: &str) -> Result<Caller, AuthenticationError> {
        let key = ApiKey::parse(key).map_err(|_| AuthenticationError::Malformed)?;
        let mut reader = self.store.reader().await.map_err(Internal::from)?;
        let found = accounts::find_key(&mut reader, &key.hash()).await.map_err(Internal::from)?;
        let found = found.ok_or(AuthenticationError::Unknown)?;
        Ok(match found.agent_id {
            Some(id) => Caller::Agent { id, org: found.org_id },
            None => Caller::Operator { org: found.org_id },
        })
    }
}
