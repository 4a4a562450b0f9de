//! API keys: scopes, expiry, replacement, revocation.

use std::time::{Duration, Instant};

use ringfence_testkit::{Client, Engine, Market, PASSWORD, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::host;

on_both_engines!(
    a_key_is_replaced,
    a_key_does_what_its_scopes_say,
    a_key_expires,
    a_revoked_key_is_good_nowhere,
    a_service_key_has_a_role,
    malformed_keys_are_refused,
    a_slow_body_does_not_outlive_its_key,
    a_bound_key_makes_bound_ones,
);

async fn works(client: &Client, key: &str) -> bool {
    let answer = client.get("/auth/me", key).await;
    assert!(matches!(answer.status, 200 | 401), "{}", answer.text);
    answer.status == 200
}

async fn a_key_is_replaced(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let path = format!("/agents/{}/rotate-key", ada.id);
    expect_problem(&client.post_empty(&path, &bob.key).await, 404, "agent_not_found");

    let new = client.post_empty(&path, &ada.key).await.expect(200);
    let second = new["api_key"].as_str().unwrap();
    assert_eq!((new["agent_id"].as_str(), new["scopes"].clone()), (Some(&*ada.id), json!(["*"])));
    assert!(!works(&client, &ada.key).await, "the old key is good no more");
    assert!(works(&client, second).await);

    // With a grace, both are good for a while.
    let third = client.post(&path, second, &json!({ "grace_seconds": 60 })).await.expect(200);
    let third = third["api_key"].as_str().unwrap();
    assert!(works(&client, second).await && works(&client, third).await);
    let too_long = client.post(&path, third, &json!({ "grace_seconds": 86_401 })).await;
    expect_problem(&too_long, 422, "invalid_fields");
    // Of two who replace one key at once, one gets a new one.
    let (one, two) = tokio::join!(client.post_empty(&path, third), client.post_empty(&path, third));
    let good = [&one, &two].iter().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 1, "{} {}", one.text, two.text);

    // An admin of the agent's org replaces all of its keys.
    let admin = host.first_admin().await;
    let org = client.get(&format!("/agents/{}", bob.id), &bob.key).await.text_at("/org_id").to_owned();
    let boss = client.new_user(&admin, "boss@example.org", "admin", Some(&org)).await;
    let further =
        client.post("/keys", &bob.key, &json!({ "name": "further", "agent_id": bob.id })).await.expect(201);
    let path = format!("/agents/{}/rotate-key", bob.id);
    expect_problem(&client.post_empty(&path, &admin.access).await, 404, "agent_not_found");
    let new = client.post_empty(&path, &boss.access).await.expect(200);
    assert!(!works(&client, &bob.key).await && !works(&client, further["api_key"].as_str().unwrap()).await);
    assert!(works(&client, new["api_key"].as_str().unwrap()).await);
}

async fn narrow(client: &Client, owner: &ringfence_testkit::Agent, more: Value) -> Value {
    let mut key = json!({ "name": "narrow", "agent_id": owner.id });
    key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/keys", &owner.key, &key).await.expect(201)
}

async fn a_key_does_what_its_scopes_say(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let reader = narrow(&client, &ada, json!({ "scopes": ["bots:read", "keys:write"] })).await;
    let key = reader["api_key"].as_str().unwrap();
    let _ = client.get("/bots", key).await.expect(200);
    let refused = client
        .post("/bots", key, &json!({ "name": "x", "component": format!("sha256:{}", "0".repeat(64)) }))
        .await;
    expect_problem(&refused, 403, "scope_missing");
    assert!(refused.body["detail"].as_str().unwrap().contains("`bots:write`"), "{}", refused.text);
    expect_problem(&client.get("/jobs", key).await, 403, "scope_missing");
    // Nobody gives more than they have.
    for scopes in [json!(["*"]), json!(["bots:write"]), json!(["bots:read", "jobs:read"])] {
        let wider = json!({ "name": "wider", "agent_id": ada.id, "scopes": scopes });
        expect_problem(&client.post("/keys", key, &wider).await, 403, "more_than_yours");
    }
    let _ = client
        .post("/keys", key, &json!({ "name": "same", "agent_id": ada.id, "scopes": ["bots:read"] }))
        .await
        .expect(201);
    // A replaced key keeps its scopes.
    let path = format!("/agents/{}/rotate-key", ada.id);
    let new = client.post_empty(&path, key).await.expect(200);
    assert_eq!(new["scopes"], json!(["bots:read", "keys:write"]));
    for bad in [json!([]), json!(["bots:fly"]), json!("bots:read"), json!(["bots:read", "*", "nothing"])] {
        let answer = client
            .post("/keys", &ada.key, &json!({ "name": "bad", "agent_id": ada.id, "scopes": bad }))
            .await;
        assert_eq!(answer.status, 422, "{}", answer.text);
    }
    let listed = client.get("/keys", &ada.key).await.expect(200);
    assert_eq!(listed["total"], 4, "{listed}");
    assert!(
        !listed.to_string().contains("api_key") && !listed.to_string().contains(&ada.key[13..]),
        "{listed}"
    );
}

async fn a_key_expires(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let past = json!({ "name": "past", "agent_id": ada.id, "expires_at": "2020-01-01T00:00:00Z" });
    expect_problem(&client.post("/keys", &ada.key, &past).await, 422, "invalid_fields");
    let soon = ringfence_model::Clock::now(&ringfence_model::SystemClock).plus(Duration::from_secs(2));
    let short = narrow(&client, &ada, json!({ "expires_at": soon })).await;
    let key = short["api_key"].as_str().unwrap();
    assert!(works(&client, key).await);
    let begun = Instant::now();
    while works(&client, key).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not expire");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // When it was used is noted, beside the requests.
    let path = format!("/keys/{}", short["key_id"].as_str().unwrap());
    loop {
        let view = client.get(&path, &ada.key).await.expect(200);
        if !view["last_used_at"].is_null() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_revoked_key_is_good_nowhere(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let key = narrow(&client, &ada, json!({})).await;
    let (path, secret) =
        (format!("/keys/{}", key["key_id"].as_str().unwrap()), key["api_key"].as_str().unwrap());
    let other = match engine {
        Engine::Postgres => Some(host.another().await),
        Engine::Sqlite => None,
    };
    let elsewhere = other.as_ref().map_or_else(|| client.clone(), ringfence_testkit::Host::client);
    // Every host has just seen it and goes by what it has in memory.
    assert!(works(&client, secret).await && works(&elsewhere, secret).await);
    expect_problem(&client.delete(&path, &bob.key).await, 404, "key_not_found");
    assert_eq!(client.delete(&path, &ada.key).await.status, 204);
    assert!(!works(&elsewhere, secret).await && !works(&client, secret).await);
    assert_eq!(client.delete(&path, &ada.key).await.status, 204, "revoked is revoked");
    // The operators' admins stop a key of any org; their operators do not.
    expect_problem(&client.get(&format!("/agents/{}", ada.id), secret).await, 401, "unauthorized");
    let admin = host.first_admin().await;
    let bobs =
        client.get("/keys", &bob.key).await.expect(200)["keys"][0]["key_id"].as_str().unwrap().to_owned();
    let path = format!("/keys/{bobs}");
    expect_problem(&client.delete(&path, &host.operator_key()).await, 403, "forbidden");
    assert_eq!(client.delete(&path, &admin.access).await.status, 204);
    assert!(!works(&elsewhere, &bob.key).await && !works(&client, &bob.key).await);
}

async fn a_service_key_has_a_role(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (admin, ada) = (host.first_admin().await, Market::register(&host.client(), "Ada").await);
    let new = |role: &str| json!({ "name": "robot", "role": role });
    let robot = client.post("/keys", &admin.access, &new("operator")).await.expect(201);
    let key = robot["api_key"].as_str().unwrap();
    let me = client.get("/auth/me", key).await.expect(200);
    assert_eq!((me["kind"].as_str(), me["role"].as_str()), (Some("service"), Some("operator")));
    let deposit = json!({ "agent_id": ada.id, "amount": "1", "external_reference": "one" });
    let _ = client.post("/admin/ledger/deposits", key, &deposit).await.expect(201);
    expect_problem(&client.post("/keys", key, &new("viewer")).await, 403, "forbidden");
    expect_problem(&client.post("/keys", &ada.key, &new("viewer")).await, 403, "forbidden");
    expect_problem(
        &client.post("/keys", &admin.access, &json!({ "name": "robot" })).await,
        422,
        "invalid_fields",
    );
    // A key of an agent of another org is not to be had by its id.
    let theirs = json!({ "name": "theirs", "agent_id": ada.id });
    expect_problem(&client.post("/keys", &admin.access, &theirs).await, 404, "agent_not_found");
    let with_role = json!({ "name": "x", "agent_id": ada.id, "role": "admin" });
    expect_problem(&client.post("/keys", &ada.key, &with_role).await, 422, "invalid_fields");
}

async fn malformed_keys_are_refused(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let last = ada.key.chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    let typing_error = format!("{}{other}", &ada.key[..ada.key.len() - 1]);
    for key in [
        typing_error,
        ada.key[..ada.key.len() - 1].to_owned(),
        format!("{}0", ada.key),
        ada.key.to_uppercase(),
        ada.key.replace("rf_live_", "rf_test_"),
        format!("rf_live_{}", "é".repeat(19)),
        "rf_live_".to_owned(),
    ] {
        let request = client.request(reqwest::Method::GET, "/auth/me", "");
        let value = reqwest::header::HeaderValue::from_bytes(format!("Bearer {key}").as_bytes()).unwrap();
        expect_problem(
            &ringfence_testkit::send(request.header("authorization", value)).await,
            401,
            "unauthorized",
        );
    }
    for header in ["Basic cm9vdDpyb290", "Bearer", "Bearer  ", &format!("Token {}", ada.key), &ada.key] {
        let request = client.request(reqwest::Method::GET, "/auth/me", "").header("authorization", header);
        expect_problem(&ringfence_testkit::send(request).await, 401, "unauthorized");
    }
}

/// A request takes long between its head, which proves who asks, and its body. What was revoked meanwhile changes nothing.
async fn a_slow_body_does_not_outlive_its_key(engine: Engine) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let key = narrow(&client, &ada, json!({})).await;
    let body = json!({ "name": "Eve" }).to_string();
    let mut stream = tokio::net::TcpStream::connect(host.address()).await.unwrap();
    let head = format!(
        "PATCH /api/v1/agents/{} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        ada.id,
        key["api_key"].as_str().unwrap(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The host has seen the head when it has counted the request.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let path = format!("/keys/{}", key["key_id"].as_str().unwrap());
    assert_eq!(client.delete(&path, &ada.key).await.status, 204);
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(client.get(&format!("/agents/{}", ada.id), &ada.key).await.text_at("/name"), "Ada");
}

/// What a key makes is bound by what binds the key.
async fn a_bound_key_makes_bound_ones(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let end = ringfence_model::Clock::now(&ringfence_model::SystemClock).plus(Duration::from_secs(3600));
    let bound = narrow(&client, &ada, json!({ "expires_at": end })).await;
    let path = format!("/admin/keys/{}/limits", bound["key_id"].as_str().unwrap());
    let few = json!({ "reads_per_minute": 30, "writes_per_minute": 30 });
    let _ = client.put(&path, &host.operator_key(), &few).await.expect(200);
    let key = bound["api_key"].as_str().unwrap();
    let child = client.post("/keys", key, &json!({ "name": "child", "agent_id": ada.id })).await.expect(201);
    assert_eq!((&child["expires_at"], &child["reads_per_minute"]), (&bound["expires_at"], &json!(30)));
    let later =
        json!({ "name": "later", "agent_id": ada.id, "expires_at": end.plus(Duration::from_secs(1)) });
    expect_problem(&client.post("/keys", key, &later).await, 403, "more_than_yours");
    // Users do not end, so a key that does makes none; and what it rotates ends when it does.
    let admin = host.first_admin().await;
    let robot = json!({ "name": "robot", "role": "admin", "expires_at": end });
    let robot = client.post("/keys", &admin.access, &robot).await.expect(201);
    let user = json!({ "email": "x@example.org", "name": "X", "role": "viewer", "password": PASSWORD });
    let made = client.post("/users", robot["api_key"].as_str().unwrap(), &user).await;
    expect_problem(&made, 403, "more_than_yours");
    let agent = client.post("/agents", &admin.access, &json!({ "name": "Ours" })).await.expect(201);
    let rotate = format!("/agents/{}/rotate-key", agent["agent_id"].as_str().unwrap());
    let rotated = client.post_empty(&rotate, robot["api_key"].as_str().unwrap()).await.expect(200);
    assert_eq!(rotated["expires_at"], robot["expires_at"]);
    // Also where there is no key left whose end it could take over.
    let _ = client.delete(&format!("/keys/{}", rotated["key_id"].as_str().unwrap()), &admin.access).await;
    let anew = client.post_empty(&rotate, robot["api_key"].as_str().unwrap()).await.expect(200);
    assert_eq!(anew["expires_at"], robot["expires_at"]);
    // Two keys of one limit have one account.
    let left = |answer: &ringfence_testkit::Answer| answer.headers["ratelimit"].to_str().unwrap().to_owned();
    let one = client.get("/bots", key).await;
    let two = client.get("/bots", child["api_key"].as_str().unwrap()).await;
    assert!(left(&one).contains("r=29") && left(&two).contains("r=28"), "{} {}", left(&one), left(&two));
}

/// A request that waits for others, in the middle of its transaction, is not carried out once its key is revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_asked_again() {
    let host = host(Engine::Postgres).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let key = narrow(&client, &ada, json!({})).await;
    let held = host.database().hold("SELECT id FROM orgs FOR NO KEY UPDATE").await;
    let secret = key["api_key"].as_str().unwrap().to_owned();
    let (asking, body) = (client.clone(), json!({ "name": "late", "agent_id": ada.id }));
    let waiting = tokio::spawn(async move { asking.post("/keys", &secret, &body).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let path = format!("/keys/{}", key["key_id"].as_str().unwrap());
    assert_eq!(client.delete(&path, &ada.key).await.status, 204);
    assert!(!waiting.is_finished());
    held.release().await;
    expect_problem(&waiting.await.unwrap(), 401, "unauthorized");
    let keys = client.get("/keys", &ada.key).await.expect(200);
    assert_eq!(keys["total"], 2, "{keys}");
}
