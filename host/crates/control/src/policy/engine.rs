use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    Policy, PolicyId, PolicySet, Request, RestrictedExpression as Value, Schema, ValidationMode, Validator,
};
use ringfence_model::Timestamp;
use ringfence_store::policies;

use super::matrix::{Action, Reach};
use super::{Principal, Resource};
use crate::Internal;

/// The schema of what policies can speak of; the actions are added from the matrix.
const ENTITIES: &str = include_str!("entities.cedarschema");

/// The matrix and the operators' policies, ready to be asked.
pub(super) struct Engine {
    authorizer: Authorizer,
    slices: HashMap<Action, Slice>,
    /// What people call the operators' policies, by their ids.
    names: HashMap<String, String>,
    /// Whether one of the operators' policies could not be read: everything is denied then but to mend it.
    closed: bool,
    /// The change of the policies that this is after.
    pub(super) version: i64,
}

/// What is asked for one action: only the policies that can say something of it, so that many policies cost little.
struct Slice {
    action: EntityUid,
    policies: PolicySet,
    entities: Vec<Entity>,
    /// Where the matrix alone decides: what it has said so far.
    said: Option<Mutex<HashMap<MatrixQuestion, Verdict>>>,
}

/// All that the matrix looks at, unless an action is for oneself: see [`base_policies`].
#[derive(PartialEq, Eq, Hash)]
struct MatrixQuestion {
    role: &'static str,
    is_platform: bool,
    own_org: bool,
}

impl MatrixQuestion {
    fn of(Principal(caller): &Principal<'_>, resource: &Resource<'_>) -> Self {
        let own_org = caller.org() == resource.org();
        Self { role: caller.role_name(), is_platform: caller.is_platform(), own_org }
    }
}

/// What the engine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// By the matrix.
    Denied,
    /// By the operators' policy of this name.
    Forbidden(String),
}

/// Why a policy cannot be added.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadPolicy(pub String);

impl Engine {
    /// Puts the matrix and these policies together. A policy that has become invalid is an error, never left out: it
    /// may be one that forbids.
    pub(super) fn new(custom: &[policies::Policy], version: i64) -> Result<Self, BadPolicy> {
        let schema = schema()?;
        let mut parsed = Vec::new();
        let mut names = HashMap::new();
        for policy in custom {
            let id = policy.id.to_string();
            parsed.push(parse(&schema, &id, &policy.text)?);
            names.insert(id, policy.name.clone());
        }
        let mut slices = HashMap::new();
        for action in Action::ALL {
            slices.insert(*action, slice(*action, &parsed)?);
        }
        Ok(Self { authorizer: Authorizer::new(), slices, names, closed: false, version })
    }

    /// What is in force while a policy of the operators is not valid.
    pub(super) fn closed(version: i64) -> Result<Self, BadPolicy> {
        Ok(Self { closed: true, ..Self::new(&[], version)? })
    }

    /// Whether the principal may.
    pub(super) fn decide(
        &self,
        (principal, address): (&Principal<'_>, Option<IpAddr>),
        action: Action,
        resource: &Resource<'_>,
        now: Timestamp,
    ) -> Result<Verdict, Internal> {
        if self.closed && !mends_policies(action) {
            return Ok(Verdict::Forbidden("(one that is not valid any more)".to_owned()));
        }
        let slice = self.slices.get(&action).ok_or(Internal::Invariant("an action has no policies"))?;
        let Some(said) = &slice.said else {
            return self.ask(slice, (principal, address), action, resource, now);
        };
        let question = MatrixQuestion::of(principal, resource);
        if let Some(verdict) = held(said).get(&question) {
            return Ok(verdict.clone());
        }
        let verdict = self.ask(slice, (principal, address), action, resource, now)?;
        held(said).insert(question, verdict.clone());
        Ok(verdict)
    }

    /// Asks Cedar.
    fn ask(
        &self,
        slice: &Slice,
        (principal, address): (&Principal<'_>, Option<IpAddr>),
        action: Action,
        resource: &Resource<'_>,
        now: Timestamp,
    ) -> Result<Verdict, Internal> {
        let (caller, target) = (principal.entity()?, resource.entity()?);
        let (caller_id, target_id) = (caller.uid(), target.uid());
        let same = caller_id == target_id;
        let entities = slice.entities.iter().cloned().chain([caller]);
        // An agent that does something to itself is one entity, as the principal has it.
        let entities = entities.chain((!same).then_some(target));
        let entities = Entities::from_entities(entities, None).map_err(failed)?;
        let request = Request::new(caller_id, slice.action.clone(), target_id, context(address, now)?, None)
            .map_err(failed)?;
        let answer = self.authorizer.is_authorized(&request, &slice.policies, &entities);
        if let Some(error) = answer.diagnostics().errors().next() {
            // Cedar leaves out a policy that fails, and it may be one that forbids.
            tracing::warn!(action = action.name(), %error, "a policy failed; the request is denied");
            return Ok(Verdict::Denied);
        }
        if answer.decision() == Decision::Allow {
            return Ok(Verdict::Allowed);
        }
        let mut reasons = answer.diagnostics().reason();
        let named = reasons.find_map(|id| self.names.get(id.to_string().as_str()));
        Ok(named.map_or(Verdict::Denied, |name| Verdict::Forbidden(name.clone())))
    }
}

/// Whether a policy could be added: it is one policy, and what it speaks of exists.
pub(super) fn check(text: &str) -> Result<(), BadPolicy> {
    parse(&schema()?, "policy", text).map(drop)
}

fn parse(schema: &Schema, id: &str, text: &str) -> Result<Policy, BadPolicy> {
    let policy = Policy::parse(Some(PolicyId::new(id)), text)
        .map_err(|error| BadPolicy(format!("it is not one Cedar policy: {}", explained(&error))))?;
    let set = PolicySet::from_policies([policy.clone()]).map_err(|error| BadPolicy(error.to_string()))?;
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let errors: Vec<_> = result.validation_errors().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(policy) } else { Err(BadPolicy(errors.join("; "))) }
}

/// An error and what lies behind it, in one line.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn slice(action: Action, custom: &[Policy]) -> Result<Slice, BadPolicy> {
    let broken = |error: &dyn std::error::Error| BadPolicy(format!("the matrix: {}", explained(error)));
    let mut policies = PolicySet::from_str(&base_policies(action)).map_err(|error| broken(&error))?;
    let (uid, group) = (action_uid(action.name()), action_uid(action.group()));
    let mut matrix_alone = !action.of_itself() && !of_ones_account(action);
    // The operators can always take back what they forbade.
    if !mends_policies(action) {
        for policy in custom {
            let concerns = match policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(named) => named == uid,
                ActionConstraint::In(named) => named.contains(&uid) || named.contains(&group),
            };
            if concerns {
                matrix_alone = false;
                policies.add(policy.clone()).map_err(|error| broken(&error))?;
            }
        }
    }
    let entities = vec![
        Entity::new_no_attrs(uid.clone(), HashSet::from([group.clone()])),
        Entity::new_no_attrs(group, HashSet::new()),
    ];
    Ok(Slice { action: uid, policies, entities, said: matrix_alone.then(Mutex::default) })
}

const fn mends_policies(action: Action) -> bool {
    matches!(action, Action::PoliciesRead | Action::PoliciesWrite)
}

/// Whether an action is for oneself alone.
const fn of_ones_account(action: Action) -> bool {
    matches!(action, Action::AccountRead | Action::AccountChange)
}

fn held(said: &Mutex<HashMap<MatrixQuestion, Verdict>>) -> MutexGuard<'_, HashMap<MatrixQuestion, Verdict>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The matrix's row as policies: who may, and the fence between orgs, which no other policy can open, for `forbid` wins.
fn base_policies(action: Action) -> String {
    let permission = action.permission();
    let roles: Vec<_> = permission.roles.iter().map(|role| format!("\"{role}\"")).collect();
    let head = format!("action == Ringfence::Action::\"{}\", resource", permission.name);
    let mut text =
        format!("permit (principal, {head}) when {{ [{}].contains(principal.role) }};\n", roles.join(", "));
    let unless = match permission.reach {
        Reach::Own => Some("resource.org == principal.org"),
        Reach::Staff => Some("resource.org == principal.org || principal.platform"),
        Reach::Platform => Some("principal.platform"),
        Reach::Market => None,
    };
    if let Some(unless) = unless {
        text.push_str(&format!("forbid (principal, {head}) unless {{ {unless} }};\n"));
    }
    if action.of_itself() {
        text.push_str(&format!(
            "forbid (principal is Ringfence::Agent, {head}) unless {{ resource == principal || \
             (resource is Ringfence::Key && resource.owner == principal) }};\n"
        ));
    }
    if of_ones_account(action) {
        text.push_str(&format!("forbid (principal, {head}) unless {{ resource == principal }};\n"));
    }
    text
}

/// All of what policies can speak of, as a Cedar schema.
pub(super) fn schema_text() -> String {
    let mut text = ENTITIES.trim_end().trim_end_matches('}').to_owned();
    text.push_str("\n  action \"read\", \"write\";\n");
    for action in Action::ALL {
        let permission = action.permission();
        text.push_str(&format!(
            "  action \"{}\" in [\"{}\"] appliesTo {{ principal: [User, Service, Agent], resource: [{}], context: Context }};\n",
            permission.name,
            action.group(),
            permission.resources.join(", ")
        ));
    }
    text.push_str("}\n");
    text
}

fn schema() -> Result<Schema, BadPolicy> {
    let (schema, _) = Schema::from_cedarschema_str(&schema_text())
        .map_err(|error| BadPolicy(format!("the schema: {}", explained(&error))))?;
    Ok(schema)
}

fn context(address: Option<IpAddr>, now: Timestamp) -> Result<Context, Internal> {
    let seconds = now.as_micros().div_euclid(1_000_000);
    let mut pairs = vec![
        ("time".to_owned(), Value::new_long(seconds)),
        ("hour".to_owned(), Value::new_long(seconds.rem_euclid(86_400) / 3600)),
    ];
    if let Some(address) = address {
        pairs.push(("address".to_owned(), Value::new_ip(address.to_string())));
    }
    Context::from_pairs(pairs).map_err(failed)
}

fn action_uid(name: &str) -> EntityUid {
    uid("Action", name)
}

/// A name under `Ringfence`. The type names are this crate's own, and valid.
#[expect(clippy::expect_used, reason = "the type names are constants, and a test asks for each of them")]
pub(super) fn uid(kind: &str, id: &str) -> EntityUid {
    let kind = EntityTypeName::from_str(&format!("Ringfence::{kind}")).expect("a valid type name");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

pub(super) fn failed(error: impl std::fmt::Display) -> Internal {
    Internal::Policy(error.to_string())
}
