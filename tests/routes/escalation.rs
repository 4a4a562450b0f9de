//! Nobody gets more than they were given: not by changing users, not by making keys.

use std::collections::BTreeMap;

use ringfence_testkit::{Answer, Engine, expect_problem, guest, on_both_engines};
use serde_json::{Value, json};

use super::world::{Caller, Who, World};
use crate::host;

on_both_engines!(
    a_role_is_an_admins_to_give,
    no_key_makes_a_wider_one,
    no_policy_lets_anyone_give_more,
    who_deploys_does_not_grant,
);

/// Every user's role and org.
async fn roles(world: &World) -> BTreeMap<String, Value> {
    let mut roles = BTreeMap::new();
    for org in [&world.org_a, &world.org_b, &world.operators] {
        let path = format!("/users?limit=200&org_id={org}");
        let users = world.client.get(&path, &world.root).await.expect(200);
        for user in users["users"].as_array().unwrap() {
            let id = user["user_id"].as_str().unwrap().to_owned();
            roles.insert(id, json!([user["role"], user["org_id"], user["disabled"]]));
        }
    }
    roles
}

fn named<'a>(world: &'a World, name: &str) -> &'a Caller {
    world.callers.iter().find(|caller| caller.name == name).unwrap()
}

async fn id_of(world: &World, caller: &Caller) -> String {
    world.client.who_is(&caller.credential).await["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn expect_refused(answer: &Answer, by: &str) {
    assert!(matches!(answer.status, 401 | 403 | 404), "{by}: {} {}", answer.status, answer.text);
}

async fn a_role_is_an_admins_to_give(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let client = &world.client;
    let before = roles(&world).await;
    let viewer = id_of(&world, named(&world, "A's viewer")).await;
    for caller in &world.callers {
        // These two may.
        if ["A's admin", "the operators' admin"].contains(&caller.name) {
            continue;
        }
        let mut targets = vec![viewer.clone()];
        if let Who::User { .. } = caller.who {
            targets.push(id_of(&world, caller).await);
        }
        // An admin may well change itself: it has no more to get.
        let targets = targets.iter().take(if caller.name == "B's admin" { 1 } else { 2 });
        for target in targets {
            let path = format!("/users/{target}");
            for change in [json!({ "role": "admin" }), json!({ "password": "a password of mine" })] {
                expect_refused(&client.patch(&path, &caller.credential, &change).await, caller.name);
            }
        }
        let new = json!({ "email": "mine@example.test", "name": "Mine", "role": "admin",
            "password": "a password of mine", "org_id": world.org_a });
        expect_refused(&client.post("/users", &caller.credential, &new).await, caller.name);
    }
    moving_to_another_org_is_refused(&world, &viewer).await;
    assert_eq!(roles(&world).await, before);
}

async fn moving_to_another_org_is_refused(world: &World, viewer: &str) {
    let (client, admin) = (&world.client, &named(world, "A's admin").credential);
    for (key, org) in [(admin, &world.org_b), (admin, &world.operators), (&world.root, &world.org_b)] {
        let moved = client.patch(&format!("/users/{viewer}"), key, &json!({ "org_id": org })).await;
        expect_problem(&moved, 422, "invalid_body");
        assert!(moved.text_at("/detail").contains("unknown field `org_id`"), "{}", moved.text);
    }
    for org in [&world.org_b, &world.operators] {
        let new = json!({ "email": "mine@example.test", "name": "Mine", "role": "viewer",
            "password": "a password of mine", "org_id": org });
        expect_problem(&client.post("/users", admin, &new).await, 404, "org_not_found");
    }
}

/// Makes a key and uses it from then on.
async fn key(world: &World, maker: &str, body: Value) -> String {
    world.client.post("/keys", maker, &body).await.expect(201)["api_key"].as_str().unwrap().to_owned()
}

async fn no_key_makes_a_wider_one(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    roles_of_keys(&world).await;
    scopes_of_an_agents_keys(&world).await;
    scopes_of_service_keys(&world).await;
    agents_and_service_keys(&world).await;
}

async fn roles_of_keys(world: &World) {
    let (client, admin) = (&world.client, &named(world, "A's admin").credential);
    for role in ["operator", "user", "viewer"] {
        let maker = key(world, admin, json!({ "name": role, "role": role })).await;
        for wanted in ["admin", "operator", "user", "viewer"] {
            let answer = client.post("/keys", &maker, &json!({ "name": "x", "role": wanted })).await;
            expect_problem(&answer, 403, "forbidden");
        }
    }
    let answer = client.post("/keys", &world.market.operator, &json!({ "name": "x", "role": "admin" })).await;
    expect_problem(&answer, 403, "forbidden");
}

async fn scopes_of_an_agents_keys(world: &World) {
    let (client, buyer) = (&world.client, &world.market.buyer);
    let own = |scopes: Value| {
        let mut key = json!({ "name": "x", "agent_id": buyer.id });
        if !scopes.is_null() {
            key["scopes"] = scopes;
        }
        key
    };
    let narrow = key(world, &buyer.key, own(json!(["keys:write", "bots:read"]))).await;
    for wanted in [json!(null), json!(["*"]), json!(["jobs:write"]), json!(["bots:read", "bots:write"])] {
        expect_problem(&client.post("/keys", &narrow, &own(wanted)).await, 403, "more_than_yours");
    }
    let narrower = key(world, &narrow, own(json!(["bots:read"]))).await;
    expect_problem(&client.post("/keys", &narrower, &own(json!(["bots:read"]))).await, 403, "scope_missing");
    let rotated = client.post_empty(&format!("/agents/{}/rotate-key", buyer.id), &narrow).await.expect(200);
    assert_eq!(
        rotated["scopes"],
        json!(["keys:write", "bots:read"]),
        "a new key is as narrow as the old one"
    );
}

async fn scopes_of_service_keys(world: &World) {
    let (client, buyer) = (&world.client, &world.market.buyer);
    let admin = &named(world, "A's admin").credential;
    let scoped = |scopes: Value| json!({ "name": "x", "role": "admin", "scopes": scopes });
    let narrow = key(world, admin, scoped(json!(["keys:write"]))).await;
    for wanted in [
        json!({ "name": "x", "role": "admin" }),
        json!({ "name": "x", "role": "viewer" }),
        scoped(json!(["keys:read"])),
        json!({ "name": "x", "agent_id": buyer.id }),
    ] {
        expect_problem(&client.post("/keys", &narrow, &wanted).await, 403, "more_than_yours");
    }
    // Nor does it come by one that is there already, or by a new agent's.
    let rotated = client.post_empty(&format!("/agents/{}/rotate-key", buyer.id), &narrow).await;
    expect_problem(&rotated, 403, "more_than_yours");
    assert_eq!(client.get("/bots", &buyer.key).await.status, 200, "the agent's key is still good");
    let registrar = key(world, admin, scoped(json!(["agents:write"]))).await;
    let agent = client.post("/agents", &registrar, &json!({ "name": "New" })).await.expect(201);
    let (id, its_key) = (agent["agent_id"].as_str().unwrap(), agent["api_key"].as_str().unwrap());
    expect_problem(&client.get("/bots", its_key).await, 403, "scope_missing");
    let renamed = client.patch(&format!("/agents/{id}"), its_key, &json!({ "name": "Renamed" })).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text);
}

async fn agents_and_service_keys(world: &World) {
    let (client, market) = (&world.client, &world.market);
    let second = id_of(world, named(world, "A's second agent")).await;
    for role in ["admin", "operator", "user", "viewer"] {
        let service = json!({ "name": "x", "role": role });
        expect_problem(&client.post("/keys", &market.buyer.key, &service).await, 403, "forbidden");
        let own = json!({ "name": "x", "role": role, "agent_id": market.buyer.id });
        expect_problem(&client.post("/keys", &market.buyer.key, &own).await, 422, "invalid_fields");
    }
    let of_second = json!({ "name": "x", "agent_id": second });
    expect_problem(&client.post("/keys", &market.buyer.key, &of_second).await, 403, "not_your_agent");
    for other in [&market.worker.key, &named(world, "B's admin").credential, &world.root] {
        let of_buyer = json!({ "name": "x", "agent_id": market.buyer.id });
        expect_problem(&client.post("/keys", other, &of_buyer).await, 404, "agent_not_found");
    }
}

/// A policy can let others than admins make users and keys. It cannot let them make admins.
async fn no_policy_lets_anyone_give_more(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let client = &world.client;
    for action in ["users:create", "users:update", "keys:create"] {
        let text = format!("permit (principal, action == Ringfence::Action::\"{action}\", resource);");
        let policy = json!({ "name": action.replace(':', "-"), "text": text });
        let _ = client.post("/admin/policies", &world.root, &policy).await.expect(201);
    }
    let operator = &named(&world, "A's operator").credential;
    let admin = id_of(&world, named(&world, "A's admin")).await;
    let own = id_of(&world, named(&world, "A's operator")).await;
    for (role, status) in [("admin", 403), ("operator", 201), ("viewer", 201)] {
        let email = format!("new-{role}@example.test");
        let user = json!({ "email": email, "name": "x", "role": role, "password": "a password of mine" });
        let key = json!({ "name": "x", "role": role });
        for (path, body) in [("/users", user), ("/keys", key)] {
            let answer = client.post(path, operator, &body).await;
            assert_eq!(answer.status, status, "{path} {role}: {}", answer.text);
            if status == 403 {
                expect_problem(&answer, 403, "more_than_yours");
            }
        }
    }
    let password = json!({ "password": "a password of mine" });
    for (user, change) in [(&own, json!({ "role": "admin" })), (&admin, password)] {
        let answer = client.patch(&format!("/users/{user}"), operator, &change).await;
        expect_problem(&answer, 403, "more_than_yours");
    }
    // Agents have no role that they could give.
    let agent = &world.market.buyer.key;
    let answer = client.patch(&format!("/users/{own}"), agent, &json!({ "role": "viewer" })).await;
    expect_problem(&answer, 403, "more_than_yours");
    // The fence between orgs stays.
    let own_org = named(&world, "B's admin");
    let answer = client.patch(&format!("/users/{own}"), &own_org.credential, &json!({ "name": "x" })).await;
    expect_problem(&answer, 404, "user_not_found");
}

/// A key that deploys new versions leaves a bot's grants as they are, whichever way it goes about it.
async fn who_deploys_does_not_grant(engine: Engine) {
    let host = host(engine).await;
    let world = World::new(&host).await;
    let (client, buyer) = (&world.client, &world.market.buyer);
    let notes = client.upload(&buyer.key, guest("notes")).await.expect(201)["digest"].clone();
    let own = |scopes: Value| json!({ "name": "x", "agent_id": buyer.id, "scopes": scopes });
    let deployer = key(&world, &buyer.key, own(json!(["bots:write", "bots:read"]))).await;
    let granter = key(&world, &buyer.key, own(json!(["bots:grant"]))).await;
    let both = key(&world, &buyer.key, own(json!(["bots:write", "bots:grant"]))).await;
    let grants = |bytes: u32| json!({ "kv": { "quota_bytes": bytes } });
    let bot = |name: &str, grants: Value| json!({ "name": name, "component": notes, "grants": grants });

    for (by, scope) in [(&deployer, "`bots:grant`"), (&granter, "`bots:write`")] {
        let refused = client.post("/bots", by, &bot("notes", grants(1000))).await;
        expect_problem(&refused, 403, "scope_missing");
        assert!(refused.text_at("/detail").contains(scope), "{}", refused.text);
    }
    let made = client.post("/bots", &both, &bot("notes", grants(1000))).await.expect(201);
    let path = format!("/bots/{}", made["bot_id"].as_str().unwrap());
    for other in [grants(1001), grants(999), json!({})] {
        let change = json!({ "grants": other, "description": "and more" });
        expect_problem(&client.patch(&path, &deployer, &change).await, 403, "scope_missing");
    }
    let before = client.get(&path, &buyer.key).await.expect(200);
    assert_eq!((&before["grants"], &before["version"]), (&grants(1000), &json!(1)), "nothing was changed");
    // What leaves them as they are is a deployer's to do.
    for change in [json!({ "component": notes }), json!({ "grants": grants(1000), "description": "new" })] {
        let _ = client.patch(&path, &deployer, &change).await.expect(200);
    }
    let none = json!({ "name": "plain", "component": world.common_component(), "grants": {} });
    let _ = client.post("/bots", &deployer, &none).await.expect(201);
    expect_problem(
        &client.patch(&path, &granter, &json!({ "grants": grants(1) })).await,
        403,
        "scope_missing",
    );
    let widened = client.patch(&path, &both, &json!({ "grants": grants(2000) })).await.expect(200);
    assert_eq!(widened["grants"], grants(2000));

    // Operators can take the right away from all who have it by their role.
    let text = "forbid (principal, action == Ringfence::Action::\"bots:grant\", resource);";
    let policy = json!({ "name": "no-grants", "text": text });
    let _ = client.post("/admin/policies", &world.root, &policy).await.expect(201);
    for change in
        [json!({ "grants": grants(3000) }), json!({ "grants": {}, "component": world.common_component() })]
    {
        expect_problem(&client.patch(&path, &buyer.key, &change).await, 403, "forbidden_by_policy");
    }
    let answer = client.post("/bots", &buyer.key, &bot("another", grants(1))).await;
    expect_problem(&answer, 403, "forbidden_by_policy");
    let _ = client.patch(&path, &buyer.key, &json!({ "grants": grants(2000) })).await.expect(200);
}
