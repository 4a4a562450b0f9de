//! Rate limits: per principal and per address, told in headers, and held by several hosts together.

use reqwest::Method;
use ringfence_testkit::{Answer, Client, Engine, HostOptions, Market, expect_problem, on_both_engines, send};
use serde_json::json;

use crate::host_with;

on_both_engines!(
    a_principal_has_a_limit,
    an_address_has_a_limit,
    a_proxy_is_believed_if_it_is_trusted,
    guessing_keys_ends
);

fn limits(more: &[(&str, &str)]) -> HostOptions {
    let env = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HostOptions { env, ..HostOptions::default() }
}

fn left(answer: &Answer) -> u32 {
    let header = answer.headers["ratelimit"].to_str().unwrap();
    header.split("r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap()
}

async fn a_principal_has_a_limit(engine: Engine) {
    let reads = ("RINGFENCE_READS_PER_MINUTE", "5");
    let host = host_with(engine, limits(&[reads, ("RINGFENCE_WRITES_PER_MINUTE", "2")])).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    for expected in (0..5).rev() {
        let answer = client.get("/bots", &ada.key).await;
        assert_eq!((answer.status, left(&answer)), (200, expected), "{}", answer.text);
        assert_eq!(answer.headers["ratelimit-policy"], "\"reads\";q=5;w=60");
    }
    let limited = client.get("/bots", &ada.key).await;
    expect_problem(&limited, 429, "rate_limited");
    let wait: u32 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(left(&limited), 0);
    // Another principal, and another kind of request, have their own.
    let _ = client.get("/bots", &bob.key).await.expect(200);
    let path = format!("/agents/{}", ada.id);
    for _ in 0..2 {
        let _ = client.patch(&path, &ada.key, &json!({ "name": "Ada" })).await.expect(200);
    }
    expect_problem(&client.patch(&path, &ada.key, &json!({ "name": "Ada" })).await, 429, "rate_limited");
    // A second key of the same agent has the same account.
    let key =
        client.post("/keys", &bob.key, &json!({ "name": "second", "agent_id": bob.id })).await.expect(201);
    let second = client.get("/bots", key["api_key"].as_str().unwrap()).await;
    assert_eq!(left(&second), 3, "{}", second.text);
    // The operators give a key limits of its own.
    let path = format!("/admin/keys/{}/limits", key["key_id"].as_str().unwrap());
    let more = json!({ "reads_per_minute": 1000, "writes_per_minute": null });
    expect_problem(&client.put(&path, &bob.key, &more).await, 403, "operator_only");
    let set = client.put(&path, &host.operator_key(), &more).await.expect(200);
    assert_eq!(set["reads_per_minute"], 1000);
    let widened = client.get("/bots", key["api_key"].as_str().unwrap()).await;
    assert_eq!(widened.headers["ratelimit-policy"], "\"reads\";q=1000;w=60");
}

async fn an_address_has_a_limit(engine: Engine) {
    let host = host_with(engine, limits(&[("RINGFENCE_ANONYMOUS_PER_MINUTE", "3")])).await;
    let client = host.client();
    for _ in 0..3 {
        Market::register(&client, "Ada").await;
    }
    let limited = client.post("/agents", "", &json!({ "name": "Ada" })).await;
    expect_problem(&limited, 429, "rate_limited");
    assert_eq!(limited.headers["ratelimit-policy"], "\"anonymous\";q=3;w=60");
    // Nobody gets another account by saying that they come from elsewhere.
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "true-client-ip"] {
        let value = if header == "forwarded" { "for=192.0.2.1" } else { "192.0.2.1" };
        let request = client.request(Method::POST, "/agents", "").header(header, value);
        expect_problem(&send(request.json(&json!({ "name": "Ada" }))).await, 429, "rate_limited");
    }
    // Whoever watches the host is always answered.
    for _ in 0..20 {
        let _ = client.get("//health", "").await.expect(200);
    }
}

async fn from(client: &Client, lines: &[&str]) -> u16 {
    let mut request = client.request(Method::GET, "//openapi.json", "");
    for line in lines {
        request = request.header("x-forwarded-for", *line);
    }
    send(request).await.status
}

async fn a_proxy_is_believed_if_it_is_trusted(engine: Engine) {
    let trusted = ("RINGFENCE_TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8");
    let host = host_with(engine, limits(&[("RINGFENCE_ANONYMOUS_PER_MINUTE", "2"), trusted])).await;
    let client = host.client();
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        assert_eq!(from(&client, &[address]).await, 200);
        assert_eq!(from(&client, &[address]).await, 200);
        assert_eq!(from(&client, &[address]).await, 429);
    }
    // What a client writes itself stands before what the proxy adds.
    for smuggled in
        [&["198.51.100.1, 192.0.2.1"][..], &["198.51.100.2", "192.0.2.1"], &["10.0.0.9, 192.0.2.1, 10.0.0.1"]]
    {
        assert_eq!(from(&client, smuggled).await, 429, "{smuggled:?}");
    }
    // A household has one account.
    assert_eq!(from(&client, &["2001:db8::ffff:1"]).await, 429);
}

async fn guessing_keys_ends(engine: Engine) {
    let host = host_with(engine, limits(&[("RINGFENCE_ANONYMOUS_PER_MINUTE", "5")])).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let rng = ringfence_model::SystemRng::new();
    let mut codes = Vec::new();
    for _ in 0..8 {
        let guess = ringfence_model::ApiKey::generate(&rng);
        let _ = client.get("/bots", &ada.key).await.expect(200);
        codes.push(client.get("/bots", guess.reveal()).await.status);
    }
    assert_eq!(codes, [401, 401, 401, 401, 401, 429, 429, 429]);
    // A key that the host has just seen is good all the while.
    let _ = client.get("/bots", &ada.key).await.expect(200);
}

/// Two hosts, one PostgreSQL, one client that asks both as fast as it can: together they let through the limit, what
/// comes back meanwhile, and a block for each host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hosts_hold_one_limit() {
    const LIMIT: u32 = 24;
    let reads = LIMIT.to_string();
    let first = host_with(Engine::Postgres, limits(&[("RINGFENCE_READS_PER_MINUTE", &reads)])).await;
    let second = first.another().await;
    let ada = Market::register(&first.client(), "Ada").await;
    let clients = [first.client(), second.client()];
    let begun = std::time::Instant::now();
    let asked = (0..100).map(|number| clients[number % 2].get("/bots", &ada.key));
    let answers = futures::future::join_all(asked).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let limited = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!(passed + limited, 100);
    let came_back = u32::try_from(begun.elapsed().as_secs()).unwrap() * LIMIT / 60 + 1;
    let most = LIMIT + came_back + 2 * (LIMIT / 12);
    // Blocks that one host holds and the other lacks are the most that can be missing.
    let least = LIMIT - 2 * (LIMIT / 12);
    assert!((least..=most).contains(&u32::try_from(passed).unwrap()), "{least} ≤ {passed} ≤ {most}");
}
