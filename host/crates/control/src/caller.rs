use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ringfence_model::{AgentId, ApiKeyId, BotId, OrgId, Role, SessionId, Timestamp, UserId};

use crate::policy::{ALL_SCOPES, Action};

/// Who calls, as far as it has been proved, and where the call came from.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Identity,
    org: OrgId,
    /// What binds a key besides its role; nothing of it binds users.
    bounds: Option<KeyBounds>,
    origin: Origin,
    /// When it was found out, counted from before the database was asked.
    proved_at: Instant,
}

/// What binds a key besides its role. What it makes is bound by the same.
#[derive(Debug, Clone)]
pub(crate) struct KeyBounds {
    /// What it may be used for.
    pub(crate) scopes: Arc<[String]>,
    /// How often.
    pub(crate) quotas: Quotas,
    /// How long.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What a key may do a minute, where that is not the host's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Requests that read.
    pub reads_per_minute: Option<u32>,
    /// Requests that change something.
    pub writes_per_minute: Option<u32>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// An agent, by one of its keys.
    Agent {
        /// The agent.
        id: AgentId,
        /// The key.
        key: ApiKeyId,
    },
    /// A bot that works by itself, as an agent of its org.
    Bot {
        /// The bot.
        id: BotId,
        /// As whom it works.
        agent: AgentId,
    },
    /// A machine, by a service key.
    Service {
        /// The key.
        key: ApiKeyId,
        /// What it may do.
        role: Role,
    },
    /// A person who has logged in.
    User {
        /// The user.
        id: UserId,
        /// The login.
        session: SessionId,
        /// What it may do.
        role: Role,
    },
}

/// Where a request came from: for policies and for the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The request, as it stands in the host's log.
    pub request_id: Option<String>,
    /// The client's address.
    pub address: Option<IpAddr>,
}

impl Caller {
    pub(crate) fn new(
        identity: Identity,
        org: OrgId,
        bounds: Option<KeyBounds>,
        origin: Origin,
        proved_at: Instant,
    ) -> Self {
        Self { identity, org, bounds, origin, proved_at }
    }

    /// Who calls.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The org whose things the caller may use.
    #[must_use]
    pub const fn org(&self) -> &OrgId {
        &self.org
    }

    /// Where the request came from.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What the caller's key may be used for; `None` for users, who may do whatever their role has.
    #[must_use]
    pub fn scopes(&self) -> Option<&[String]> {
        self.bounds.as_ref().map(|bounds| &*bounds.scopes)
    }

    /// What the caller's key may do a minute.
    pub(crate) fn quotas(&self) -> Quotas {
        self.bounds.as_ref().map_or_else(Quotas::default, |bounds| bounds.quotas)
    }

    /// When the caller's key ends, if it does.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.bounds.as_ref().and_then(|bounds| bounds.expires_at)
    }

    /// When it was found out who calls.
    pub(crate) const fn proved_at(&self) -> Instant {
        self.proved_at
    }

    /// The agent that calls, or for which a bot works.
    #[must_use]
    pub const fn agent(&self) -> Option<&AgentId> {
        match &self.identity {
            Identity::Agent { id, .. } | Identity::Bot { agent: id, .. } => Some(id),
            _ => None,
        }
    }

    /// The key of the call, if it was made by one.
    #[must_use]
    pub const fn key(&self) -> Option<&ApiKeyId> {
        match &self.identity {
            Identity::Agent { key, .. } | Identity::Service { key, .. } => Some(key),
            Identity::User { .. } | Identity::Bot { .. } => None,
        }
    }

    /// The role of a user or a service key; agents have none.
    #[must_use]
    pub const fn role(&self) -> Option<Role> {
        match &self.identity {
            Identity::Agent { .. } | Identity::Bot { .. } => None,
            Identity::Service { role, .. } | Identity::User { role, .. } => Some(*role),
        }
    }

    pub(crate) fn role_name(&self) -> &'static str {
        self.role().map_or(crate::policy::AGENT, Role::as_str)
    }

    /// Whether the caller belongs to the operators' org.
    pub(crate) fn is_platform(&self) -> bool {
        self.org == OrgId::platform()
    }

    /// Whether an org's things are there at all for the caller: those of its own, and for operators those of all.
    pub(crate) fn reaches(&self, org: &OrgId) -> bool {
        self.org == *org || self.is_platform()
    }

    /// Whether the caller's key may be used for this. A user may do whatever its role has.
    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        let has = |scopes: &[String]| scopes.iter().any(|has| has == ALL_SCOPES || has == scope);
        // What everyone may do needs no scope.
        scope.is_empty() || self.scopes().is_none_or(has)
    }

    /// Whether the caller may do all that one of this role may: nobody makes anyone who may more.
    pub(crate) fn covers(&self, role: Role) -> bool {
        let scoped = |action: &Action| {
            let permission = action.permission();
            !permission.roles.contains(&role.as_str()) || self.has_scope(permission.scope)
        };
        self.role().is_some_and(|own| own.covers(role)) && Action::ALL.iter().all(scoped)
    }

    /// Whose idempotency keys and limits these are, and who stands in the audit log.
    pub(crate) fn principal(&self) -> &str {
        match &self.identity {
            Identity::Agent { id, .. } => id.as_str(),
            Identity::Bot { id, .. } => id.as_str(),
            Identity::Service { key, .. } => key.as_str(),
            Identity::User { id, .. } => id.as_str(),
        }
    }

    /// What the caller proved itself by: a key's or a session's id; of a bot, the agent as whom it works.
    pub(crate) fn credential(&self) -> &str {
        match &self.identity {
            Identity::Agent { key, .. } | Identity::Service { key, .. } => key.as_str(),
            Identity::User { session, .. } => session.as_str(),
            Identity::Bot { agent, .. } => agent.as_str(),
        }
    }
}
