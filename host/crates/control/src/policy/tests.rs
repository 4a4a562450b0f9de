use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use ringfence_model::{
    AgentId, ApiKeyId, ManualClock, OrgId, PolicyId, Role, SeededRng, SessionId, Sha256, Timestamp, UserId,
};
use ringfence_store::policies::Policy;

use super::engine::{Engine, Verdict, check};
use super::entities::{Principal, Resource};
use super::matrix::{Action, Reach};
use super::{ALL_SCOPES, scopes};
use crate::caller::{Identity, KeyBounds, Quotas};
use crate::{Caller, Origin};

struct World {
    clock: ManualClock,
    rng: SeededRng,
    org: OrgId,
    agent: AgentId,
}

impl World {
    fn new() -> Self {
        let (clock, rng) = (ManualClock::new("2026-01-01T03:00:00Z".parse().unwrap()), SeededRng::new(1));
        let (org, agent) = (OrgId::new(&clock, &rng), AgentId::new(&clock, &rng));
        Self { clock, rng, org, agent }
    }

    fn user(&self, org: &OrgId, role: Role) -> Caller {
        let identity = Identity::User {
            id: UserId::new(&self.clock, &self.rng),
            session: SessionId::new(&self.clock, &self.rng),
            role,
        };
        Caller::new(identity, org.clone(), None, Origin::default(), Instant::now())
    }

    fn agent(&self) -> Caller {
        let identity = Identity::Agent { id: self.agent.clone(), key: ApiKeyId::new(&self.clock, &self.rng) };
        let scopes = Arc::from([ALL_SCOPES.to_owned()]);
        let bounds = KeyBounds { scopes, quotas: Quotas::default(), expires_at: None };
        Caller::new(identity, self.org.clone(), Some(bounds), Origin::default(), Instant::now())
    }

    fn custom(&self, name: &str, text: &str) -> Policy {
        Policy {
            id: PolicyId::new(&self.clock, &self.rng),
            org_id: OrgId::platform(),
            name: name.to_owned(),
            description: String::new(),
            text: text.to_owned(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
        }
    }
}

fn decide(engine: &Engine, caller: &Caller, action: Action, resource: Resource<'_>) -> Verdict {
    let now = "2026-01-01T03:00:00Z".parse().unwrap();
    let address = Some("192.0.2.7".parse().unwrap());
    engine.decide((&Principal(caller), address), action, &resource, now).unwrap()
}

/// For every action, every role and every org: what Cedar says is what the matrix says.
#[test]
fn cedar_says_what_the_matrix_says() {
    let world = World::new();
    let engine = Engine::new(&[], 0).unwrap();
    let other = OrgId::new(&world.clock, &world.rng);
    let platform = OrgId::platform();
    for action in Action::ALL {
        if action.permission().resources != ["Org"] {
            continue;
        }
        for caller_org in [&world.org, &platform] {
            for role in Role::ALL {
                for target in [&world.org, &other, &platform] {
                    let caller = world.user(caller_org, *role);
                    let fence = match action.permission().reach {
                        Reach::Own => caller_org == target,
                        Reach::Staff => caller_org == target || *caller_org == platform,
                        Reach::Platform => *caller_org == platform,
                        Reach::Market => true,
                    };
                    let expected = fence && action.permission().roles.contains(&role.as_str());
                    let verdict = decide(&engine, &caller, *action, Resource::Org(target));
                    assert_eq!(
                        verdict == Verdict::Allowed,
                        expected,
                        "{role} {action:?} {caller_org} {target}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_agent_reaches_itself_and_no_other() {
    let world = World::new();
    let engine = Engine::new(&[], 0).unwrap();
    let (agent, other) = (world.agent(), AgentId::new(&world.clock, &world.rng));
    for action in [
        Action::AgentsUpdate,
        Action::AgentsRotateKey,
        Action::KeysList,
        Action::KeysCreate,
        Action::LedgerTransfers,
    ] {
        let own = decide(&engine, &agent, action, Resource::Agent(&world.org, &world.agent));
        assert_eq!(own, Verdict::Allowed, "{action:?}");
        let others = decide(&engine, &agent, action, Resource::Agent(&world.org, &other));
        assert_eq!(others, Verdict::Denied, "{action:?}");
    }
    let key = ApiKeyId::new(&world.clock, &world.rng);
    for (owner, expected) in
        [(Some(&world.agent), Verdict::Allowed), (Some(&other), Verdict::Denied), (None, Verdict::Denied)]
    {
        let resource = Resource::Key(&world.org, &key, owner, None);
        assert_eq!(decide(&engine, &agent, Action::KeysRevoke, resource), expected, "{owner:?}");
    }
    // Nobody makes service keys with an agent's.
    assert_eq!(decide(&engine, &agent, Action::KeysCreate, Resource::Org(&world.org)), Verdict::Denied);
}

#[test]
fn what_is_forbidden_wins_and_names_itself() {
    let world = World::new();
    let night = "forbid (principal, action == Ringfence::Action::\"bots:create\", resource) when { context.hour < 6 };";
    let frozen = "forbid (principal, action in Ringfence::Action::\"write\", resource) when { resource.org == Ringfence::Org::\"ORG\" };";
    let frozen = frozen.replace("ORG", world.org.as_str());
    let engine = Engine::new(&[world.custom("night", night)], 1).unwrap();
    let admin = world.user(&world.org, Role::Admin);
    let forbidden = |name: &str| Verdict::Forbidden(name.to_owned());
    assert_eq!(decide(&engine, &admin, Action::BotsCreate, Resource::Org(&world.org)), forbidden("night"));
    assert_eq!(decide(&engine, &admin, Action::BotsList, Resource::Org(&world.org)), Verdict::Allowed);
    let engine = Engine::new(&[world.custom("frozen", &frozen)], 1).unwrap();
    assert_eq!(
        decide(&engine, &admin, Action::ComponentsUpload, Resource::Org(&world.org)),
        forbidden("frozen")
    );
    assert_eq!(decide(&engine, &admin, Action::ComponentsList, Resource::Org(&world.org)), Verdict::Allowed);
}

#[test]
fn a_policy_widens_a_role_but_opens_no_fence() {
    let world = World::new();
    let wide = world.custom("wide", "permit (principal, action, resource);");
    let engine = Engine::new(&[wide], 1).unwrap();
    let viewer = world.user(&world.org, Role::Viewer);
    let other = OrgId::new(&world.clock, &world.rng);
    assert_eq!(decide(&engine, &viewer, Action::BotsCreate, Resource::Org(&world.org)), Verdict::Allowed);
    assert_eq!(decide(&engine, &viewer, Action::BotsCreate, Resource::Org(&other)), Verdict::Denied);
    let digest = Sha256::of(b"x");
    let theirs = Resource::Component(&other, &digest);
    assert_eq!(decide(&engine, &viewer, Action::ComponentsRead, theirs), Verdict::Denied);
    let platform = OrgId::platform();
    let deposit = Resource::Agent(&platform, &world.agent);
    assert_eq!(decide(&engine, &viewer, Action::LedgerDeposit, deposit), Verdict::Denied);
    // Policies are changed by those whom the matrix names, whatever policies say.
    let operator = world.user(&platform, Role::Operator);
    assert_eq!(decide(&engine, &operator, Action::PoliciesWrite, Resource::Org(&platform)), Verdict::Denied);
}

#[test]
fn operators_can_take_back_what_they_forbade() {
    let world = World::new();
    let nothing = world.custom("nothing", "forbid (principal, action, resource);");
    let engine = Engine::new(&[nothing], 1).unwrap();
    let (platform, admin) = (OrgId::platform(), world.user(&OrgId::platform(), Role::Admin));
    assert_eq!(
        decide(&engine, &admin, Action::UsersList, Resource::Org(&platform)),
        Verdict::Forbidden("nothing".to_owned())
    );
    assert_eq!(decide(&engine, &admin, Action::PoliciesWrite, Resource::Org(&platform)), Verdict::Allowed);
}

#[test]
fn a_policy_that_has_become_invalid_closes_all_but_its_mending() {
    let world = World::new();
    let old = world.custom("old", "forbid (principal, action == Ringfence::Action::\"bots:fly\", resource);");
    assert!(Engine::new(&[old], 7).is_err());
    let engine = Engine::closed(7).unwrap();
    let (platform, admin) = (OrgId::platform(), world.user(&OrgId::platform(), Role::Admin));
    assert!(matches!(
        decide(&engine, &admin, Action::UsersList, Resource::Org(&platform)),
        Verdict::Forbidden(_)
    ));
    assert_eq!(decide(&engine, &admin, Action::PoliciesWrite, Resource::Org(&platform)), Verdict::Allowed);
    assert_eq!(engine.version, 7);
}

/// Integer overflow is the one thing that strict validation lets through.
#[test]
fn a_policy_that_fails_denies() {
    let world = World::new();
    let overflow = "forbid (principal, action == Ringfence::Action::\"bots:list\", resource) when { context.time * 9223372036854775807 > 0 };";
    check(overflow).unwrap();
    let engine = Engine::new(&[world.custom("overflow", overflow)], 1).unwrap();
    let admin = world.user(&world.org, Role::Admin);
    assert_eq!(decide(&engine, &admin, Action::BotsList, Resource::Org(&world.org)), Verdict::Denied);
    assert_eq!(decide(&engine, &admin, Action::ComponentsList, Resource::Org(&world.org)), Verdict::Allowed);
}

#[test]
fn what_is_no_policy_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "not one Cedar policy"),
        ("let me in", "not one Cedar policy"),
        (
            "permit (principal, action, resource); permit (principal, action, resource);",
            "not one Cedar policy",
        ),
        ("permit (principal == ?principal, action, resource);", "not one Cedar policy"),
        ("permit (principal, action == Ringfence::Action::\"bots:fly\", resource);", "bots:fly"),
        ("permit (principal, action, resource) when { principal.salary > 3 };", "salary"),
        ("permit (principal, action, resource) when { context.address.isLoopback() };", "address"),
        ("permit (principal, action, resource) when { principal.role == 3 };", "type"),
    ] {
        let error = check(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    check("forbid (principal, action, resource) when { context has address && context.address.isInRange(ip(\"192.0.2.0/24\")) };").unwrap();
    check("permit (principal is Ringfence::User, action == Ringfence::Action::\"jobs:read\", resource) when { resource.price_micros < 5000000 };").unwrap();
}

#[test]
fn names_are_unique_and_scopes_are_whole() {
    let names: BTreeSet<_> = Action::ALL.iter().map(|action| action.name()).collect();
    assert_eq!(names.len(), Action::ALL.len());
    for action in Action::ALL {
        assert!(
            !action.permission().roles.is_empty() && !action.permission().resources.is_empty(),
            "{action:?}"
        );
        let scope = action.permission().scope;
        assert!(scope.is_empty() || scopes().contains(&scope));
    }
}
