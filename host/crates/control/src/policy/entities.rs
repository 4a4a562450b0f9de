//! The things that policies speak of, as Cedar has them.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Entity, RestrictedExpression as Value};
use ringfence_model::{AgentId, ApiKeyId, JobId, OrgId, Role, Sha256, UserId};
use ringfence_store::bots::Bot;
use ringfence_store::jobs::Job;
use ringfence_store::submissions::Submission;

use super::engine::{failed, uid};
use crate::caller::Identity;
use crate::{Caller, Internal};

/// Who asks.
pub(super) struct Principal<'a>(pub(super) &'a Caller);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Resource<'a> {
    /// Whoever asks.
    Caller(&'a Caller),
    /// An org, where something is made in it or listed.
    Org(&'a OrgId),
    /// An agent.
    Agent(&'a OrgId, &'a AgentId),
    /// A user.
    User(&'a OrgId, &'a UserId, Role),
    /// A key, and the agent whose it is.
    Key(&'a OrgId, &'a ApiKeyId, Option<&'a AgentId>, Option<Role>),
    /// A component.
    Component(&'a OrgId, &'a Sha256),
    /// A bot or an oracle.
    Bot(&'a Bot),
    /// A job.
    Job(&'a Job),
    /// A submission.
    Submission(&'a Submission),
}

impl Principal<'_> {
    pub(super) fn entity(&self) -> Result<Entity, Internal> {
        let caller = self.0;
        let (kind, id) = match caller.identity() {
            Identity::Agent { id, .. } | Identity::Bot { agent: id, .. } => ("Agent", id.as_str()),
            Identity::Service { key, .. } => ("Service", key.as_str()),
            Identity::User { id, .. } => ("User", id.as_str()),
        };
        member(kind, id, caller.org(), caller.role_name())
    }
}

impl Resource<'_> {
    /// Whose it is.
    pub(crate) const fn org(&self) -> &OrgId {
        match self {
            Self::Caller(caller) => caller.org(),
            Self::Org(org)
            | Self::Agent(org, _)
            | Self::User(org, ..)
            | Self::Key(org, ..)
            | Self::Component(org, _) => org,
            Self::Bot(bot) => &bot.org_id,
            Self::Job(job) => &job.org_id,
            Self::Submission(submission) => &submission.org_id,
        }
    }

    /// What it is called in the audit log.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Caller(caller) => caller.principal().to_owned(),
            Self::Org(org) => org.to_string(),
            Self::Agent(_, id) => id.to_string(),
            Self::User(_, id, _) => id.to_string(),
            Self::Key(_, id, ..) => id.to_string(),
            Self::Component(_, digest) => digest.to_string(),
            Self::Bot(bot) => bot.id.to_string(),
            Self::Job(job) => job.id.to_string(),
            Self::Submission(submission) => submission.id.to_string(),
        }
    }

    pub(super) fn entity(&self) -> Result<Entity, Internal> {
        let id = self.id();
        match self {
            Self::Caller(caller) => Principal(caller).entity(),
            Self::Org(_) => entity("Org", &id, self.org(), []),
            Self::Agent(org, _) => member("Agent", &id, org, AGENT),
            Self::User(org, _, role) => member("User", &id, org, role.as_str()),
            Self::Key(org, _, owner, role) => {
                // A service key is nobody's: its owner is an agent that does not exist.
                let owner = owner.map_or("", AgentId::as_str);
                let role = role.map_or(AGENT, Role::as_str);
                entity("Key", &id, org, [("owner", reference("Agent", owner)), ("role", text(role))])
            }
            Self::Component(org, _) => entity("Component", &id, org, []),
            Self::Bot(bot) => entity(
                "Bot",
                &id,
                &bot.org_id,
                [
                    ("name", text(&bot.name)),
                    ("kind", text(bot.kind.as_str())),
                    ("status", text(bot.status.as_str())),
                ],
            ),
            Self::Job(job) => entity(
                "Job",
                &id,
                &job.org_id,
                [
                    ("buyer", reference("Agent", job.buyer_id.as_str())),
                    ("status", text(job.status.as_str())),
                    ("artifact_type", text(&job.artifact_type)),
                    ("price_micros", Value::new_long(job.price.as_micros())),
                ],
            ),
            Self::Submission(submission) => entity(
                "Submission",
                &id,
                &submission.org_id,
                [
                    ("worker", reference("Agent", submission.worker_id.as_str())),
                    ("job", reference("Job", JobId::as_str(&submission.job_id))),
                    ("status", text(submission.status.as_str())),
                ],
            ),
        }
    }
}

/// The word for agents where others have a role.
pub(crate) const AGENT: &str = "agent";

fn member(kind: &str, id: &str, org: &OrgId, role: &str) -> Result<Entity, Internal> {
    let platform = Value::new_bool(*org == OrgId::platform());
    entity(kind, id, org, [("role", text(role)), ("platform", platform)])
}

fn entity<const N: usize>(
    kind: &str,
    id: &str,
    org: &OrgId,
    attributes: [(&str, Value); N],
) -> Result<Entity, Internal> {
    let org = ("org".to_owned(), reference("Org", org.as_str()));
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).chain([org]);
    Entity::new(uid(kind, id), attributes.collect::<HashMap<_, _>>(), HashSet::new()).map_err(failed)
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn reference(kind: &str, id: &str) -> Value {
    Value::new_entity_uid(uid(kind, id))
}
