use std::time::Duration;

use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, guest, on_both_engines};
use serde_json::{Value, json};

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(
    create_get_list_update_delete,
    invoke_and_look_back,
    bad_deployments_are_refused,
    what_hostile_guests_get,
    a_store_of_its_own,
    a_bot_runs_so_many_instances,
    creating_twice_under_one_key
);

async fn create_get_list_update_delete(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    refuses_without_a_key(&client, Method::GET, "/bots").await;
    let id = Market::deploy(
        &client,
        &ada,
        "echo",
        json!({ "description": "says it again", "config": { "a": "b" } }),
    )
    .await;
    let path = format!("/bots/{id}");

    let bot = client.get(&path, &ada.key).await.expect(200);
    assert_eq!(
        (bot["version"].as_u64(), bot["status"].as_str(), bot["kind"].as_str()),
        (Some(1), Some("running"), Some("bot"))
    );
    assert_eq!(bot["config"], json!({ "a": "b" }));
    assert!(bot["limits"]["fuel"].as_u64().unwrap() > 0, "what is absent has its default");
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let request = client.request(method, &path, &bob.key).json(&json!({}));
        expect_problem(&ringfence_testkit::send(request).await, 404, "bot_not_found");
    }
    expect_problem(
        &client.post(&format!("{path}/invoke"), &bob.key, &json!({ "input": 1 })).await,
        404,
        "bot_not_found",
    );

    let changed = client
        .patch(&path, &ada.key, &json!({ "name": "parrot", "limits": { "fuel": 5_000_000 } }))
        .await
        .expect(200);
    assert_eq!((changed["version"].as_u64(), changed["name"].as_str()), (Some(2), Some("parrot")));
    assert_eq!((&changed["limits"]["fuel"], &changed["config"]), (&json!(5_000_000), &json!({ "a": "b" })));

    let oracle = Market::deploy(&client, &ada, "hostile/oracle-accept", json!({})).await;
    let list = |query: &'static str| {
        let (client, key) = (client.clone(), ada.key.clone());
        async move { client.get(&format!("/bots{query}"), &key).await.expect(200) }
    };
    assert_eq!(list("").await["total"], 2);
    assert_eq!(list("?kind=oracle").await["bots"][0]["bot_id"], oracle.as_str());
    assert_eq!(list("?name=parrot").await["bots"][0]["bot_id"], id.as_str());
    assert_eq!(list("?limit=1&offset=1").await["bots"][0]["bot_id"], id.as_str(), "newest first");
    expect_problem(&client.get("/bots?kind=robot", &ada.key).await, 422, "invalid_query");
    expect_problem(&client.get("/bots?colour=red", &ada.key).await, 422, "invalid_query");

    assert_eq!(client.delete(&path, &ada.key).await.status, 204);
    assert_eq!(client.get(&path, &ada.key).await.expect(200)["status"], "terminated");
    expect_problem(
        &client.post(&format!("{path}/invoke"), &ada.key, &json!({ "input": 1 })).await,
        409,
        "bot_terminated",
    );
    expect_problem(&client.patch(&path, &ada.key, &json!({ "name": "x" })).await, 409, "bot_terminated");
    assert_eq!(list("?status=running").await["total"], 1);
    let again = Market::deploy(&client, &ada, "echo", json!({ "name": "parrot" })).await;
    assert_ne!(again, id, "the name is free again");
}

async fn invoke_and_look_back(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let id = Market::deploy(&client, &ada, "echo", json!({})).await;
    let input = json!({ "text": "grüß dich", "numbers": [1, 2.5, null] });
    let call =
        client.post(&format!("/bots/{id}/invoke"), &ada.key, &json!({ "input": input })).await.expect(200);
    assert_eq!((call["outcome"].as_str(), &call["output"]), (Some("completed"), &input));
    assert!(call["usage"]["fuel"].as_u64().unwrap() > 1000);
    assert!(call["usage"]["wall_us"].as_u64().unwrap() > 0);

    let list = client.get(&format!("/bots/{id}/invocations"), &ada.key).await.expect(200);
    assert_eq!(list["total"], 1);
    let kept = &list["invocations"][0];
    for field in [
        "invocation_id",
        "outcome",
        "usage",
        "input_digest",
        "output_digest",
        "component",
        "engine",
        "started_at",
    ] {
        assert_eq!(kept[field], call[field], "{field}");
    }
    let one = format!("/bots/{id}/invocations/{}", kept["invocation_id"].as_str().unwrap());
    assert_eq!(&client.get(&one, &ada.key).await.expect(200), kept);
    assert_eq!(client.get(&format!("{one}/logs"), &ada.key).await.expect(200)["lines"], json!([]));

    let bob = Market::register(&client, "Bob").await;
    for path in [one.clone(), format!("{one}/logs"), format!("/bots/{id}/invocations")] {
        expect_problem(&client.get(&path, &bob.key).await, 404, "bot_not_found");
        refuses_without_a_key(&client, Method::GET, &path).await;
    }
    let other = Market::deploy(&client, &ada, "hostile/trap", json!({})).await;
    let crossed = one.replace(&id, &other);
    expect_problem(&client.get(&crossed, &ada.key).await, 404, "invocation_not_found");

    for (body, code, status) in [
        (json!({}), "invalid_body", 422),
        (json!({ "input": 1, "fuel": 9 }), "invalid_body", 422),
        (json!("x"), "invalid_body", 422),
    ] {
        expect_problem(&client.post(&format!("/bots/{id}/invoke"), &ada.key, &body).await, status, code);
    }
    let oracle = Market::deploy(&client, &ada, "hostile/oracle-accept", json!({})).await;
    let answer = client.post(&format!("/bots/{oracle}/invoke"), &ada.key, &json!({ "input": 1 })).await;
    expect_problem(&answer, 409, "not_callable");
}

async fn bad_deployments_are_refused(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    let digest = |answer: Value| answer["digest"].as_str().unwrap().to_owned();
    let echo = digest(client.upload(&ada.key, guest("echo")).await.expect(201));
    let notes = digest(client.upload(&ada.key, guest("notes")).await.expect(201));
    let oracle = digest(client.upload(&ada.key, guest("hostile/oracle-accept")).await.expect(201));
    let theirs = digest(client.upload(&bob.key, guest("hostile/spin")).await.expect(201));
    let unknown = format!("sha256:{}", "0".repeat(64));
    for (body, code) in [
        (json!({ "name": "x", "component": unknown }), "unknown_component"),
        (json!({ "name": "x", "component": theirs }), "unknown_component"),
        (json!({ "name": "x", "component": notes }), "grant_missing"),
        (json!({ "name": "Big Bot", "component": echo }), "invalid_fields"),
        (json!({ "name": "", "component": echo }), "invalid_fields"),
        (json!({ "name": "x", "component": echo, "limits": { "fuel": 0 } }), "invalid_fields"),
        (
            json!({ "name": "x", "component": echo, "limits": { "wall_time_ms": 99_999_999 } }),
            "invalid_fields",
        ),
        (
            json!({ "name": "x", "component": echo, "grants": { "kv": { "quota_bytes": 0 } } }),
            "invalid_fields",
        ),
        (
            json!({ "name": "x", "component": oracle, "grants": { "kv": { "quota_bytes": 10 } } }),
            "invalid_fields",
        ),
        (json!({ "name": "x", "component": echo, "grants": { "http": { "hosts": [] } } }), "invalid_fields"),
        (
            json!({ "name": "x", "component": echo, "grants": { "http": { "hosts": ["a.test/b"] } } }),
            "invalid_fields",
        ),
        (
            json!({ "name": "x", "component": oracle, "grants": { "http": { "hosts": ["a.test"] } } }),
            "invalid_fields",
        ),
        (json!({ "name": "x", "component": echo, "grants": { "root": {} } }), "invalid_body"),
        (json!({ "name": "x", "component": echo, "limits": { "speed": 1 } }), "invalid_body"),
        (json!({ "name": "x", "component": "abc" }), "invalid_body"),
        (json!({ "name": "x", "component": echo, "status": "running" }), "invalid_body"),
    ] {
        let answer = client.post("/bots", &ada.key, &body).await;
        expect_problem(&answer, 422, code);
        if code == "grant_missing" {
            assert!(answer.text_at("/detail").contains("kv"), "the grant is named");
        }
    }
    let limits = client
        .post("/bots", &ada.key, &json!({ "name": "x", "component": echo, "limits": { "fuel": 0 } }))
        .await;
    assert_eq!(limits.body["errors"][0]["field"], "limits.fuel");
    assert_eq!(client.get("/bots", &ada.key).await.expect(200)["total"], 0, "nothing is stored");

    let id = Market::deploy(&client, &ada, "echo", json!({})).await;
    let twice = client.post("/bots", &ada.key, &json!({ "name": "echo", "component": echo })).await;
    expect_problem(&twice, 409, "bot_name_taken");
    let wrong = json!({
        "name": "-x", "description": "\u{7}", "config": { "": "x" },
        "grants": { "kv": { "quota_bytes": 0 } }, "limits": { "fuel": 0 },
    });
    let mut new = wrong.clone();
    new["component"] = json!(echo);
    for answer in [
        client.post("/bots", &ada.key, &new).await,
        client.patch(&format!("/bots/{id}"), &ada.key, &wrong).await,
    ] {
        expect_problem(&answer, 422, "invalid_fields");
        let errors = answer.body["errors"].as_array().unwrap();
        let mut fields: Vec<_> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
        fields.sort_unstable();
        let all = ["config", "description", "grants.kv.quota_bytes", "limits.fuel", "name"];
        assert_eq!(fields, all, "a change is held to the same rules, and all that is wrong is told");
    }
    let other_kind = client.patch(&format!("/bots/{id}"), &ada.key, &json!({ "component": oracle })).await;
    expect_problem(&other_kind, 422, "invalid_fields");
    let other_needs = client.patch(&format!("/bots/{id}"), &ada.key, &json!({ "component": notes })).await;
    expect_problem(&other_needs, 422, "grant_missing");
    assert_eq!(client.get(&format!("/bots/{id}"), &ada.key).await.expect(200)["version"], 1);
}

async fn a_bot_runs_so_many_instances(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bot = Market::deploy(&client, &ada, "hostile/park", json!({ "limits": { "instances": 1 } })).await;
    let path = format!("/bots/{bot}/invoke");
    let mut tries = 0..20;
    let (first, refused) = loop {
        assert!(tries.next().is_some(), "two run at once");
        let (asking, to, key) = (client.clone(), path.clone(), ada.key.clone());
        let first = tokio::spawn(async move { asking.post(&to, &key, &json!({ "input": 3000 })).await });
        // Until it runs: the second must not come before it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let next = client.post(&path, &ada.key, &json!({ "input": 0 })).await;
        if next.status != 200 {
            break (first, next);
        }
        let _ = first.await.unwrap();
    };
    expect_problem(&refused, 503, "bot_busy");
    assert!(refused.headers.contains_key("retry-after"));
    let _ = first.await.unwrap().expect(200);
    let _ = client.post(&path, &ada.key, &json!({ "input": 0 })).await.expect(200);
    let none = json!({ "limits": { "instances": 0 } });
    expect_problem(&client.patch(&format!("/bots/{bot}"), &ada.key, &none).await, 422, "invalid_fields");
}

async fn what_hostile_guests_get(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let limits = json!({ "fuel": 300_000_000u64, "wall_time_ms": 1500, "memory_bytes": 33_554_432, "host_calls": 2000 });
    for (name, input, outcome) in [
        ("spin", json!(null), "out_of_fuel"),
        ("memory", json!({ "mode": "abort" }), "out_of_memory"),
        ("recurse", json!(null), "stack_overflow"),
        ("log-flood", json!("all"), "log_limit"),
        ("big-output", json!(3_000_000), "output_too_large"),
        ("trap", json!("unreachable"), "trapped"),
        ("park", json!(60_000), "timed_out"),
        ("chatty", json!({ "calls": 1_000_000, "what": "clock" }), "host_call_limit"),
    ] {
        let more = json!({ "limits": limits });
        let id = Market::deploy(&client, &ada, &format!("hostile/{name}"), more).await;
        let call = client
            .post(&format!("/bots/{id}/invoke"), &ada.key, &json!({ "input": input }))
            .await
            .expect(200);
        assert_eq!(call["outcome"], outcome, "{name}: {call}");
        assert!(call["output"].is_null(), "{name}");
        assert!(call["detail"].as_str().unwrap().len() > 10, "{name}: {call}");
        assert!(call["usage"]["fuel"].as_u64().unwrap() > 0, "{name}: the usage so far");
        let kept = client.get(&format!("/bots/{id}/invocations"), &ada.key).await.expect(200);
        assert_eq!(kept["invocations"][0]["outcome"], outcome, "{name}");
    }
    let echo = Market::deploy(&client, &ada, "echo", json!({})).await;
    let call =
        client.post(&format!("/bots/{echo}/invoke"), &ada.key, &json!({ "input": 1 })).await.expect(200);
    assert_eq!(call["output"], 1, "the host is as well as before");
}

async fn a_store_of_its_own(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let more = json!({ "grants": { "kv": { "quota_bytes": 400 } } });
    let id = Market::deploy(&client, &ada, "notes", more.clone()).await;
    let call = |client: ringfence_testkit::Client, id: String, input: Value| {
        let key = ada.key.clone();
        async move {
            let call = json!({ "input": input, "durable": true });
            client.post(&format!("/bots/{id}/invoke"), &key, &call).await.expect(200)
        }
    };
    let add = |name: &str, text: &str| json!({ "do": "add", "name": name, "text": text });
    let added = call(client.clone(), id.clone(), add("milk", "two litres")).await;
    assert_eq!(added["outcome"], "completed", "{added}");
    host.kill();
    host.restart().await;
    let client = host.client();
    let kept = call(client.clone(), id.clone(), json!({ "do": "get", "name": "milk" })).await;
    assert!(kept["output"].to_string().contains("two litres"), "it lives on, also through a crash: {kept}");
    let full = call(client.clone(), id.clone(), add("long", &"x".repeat(1000))).await;
    assert_eq!(
        (full["outcome"].as_str(), full["failure_code"].as_str()),
        (Some("failed"), Some("kv_quota_exceeded")),
        "{full}"
    );

    let counts = (0..8).map(|_| call(client.clone(), id.clone(), json!({ "do": "count" })));
    let counts = futures::future::join_all(counts).await;
    let mut counts: Vec<_> = counts.iter().map(|call| call["output"]["count"].as_u64().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8], "calls that count at the same time");

    let other = Market::deploy(
        &client,
        &ada,
        "notes",
        json!({ "name": "other", "grants": { "kv": { "quota_bytes": 400 } } }),
    )
    .await;
    let foreign = call(client.clone(), other, json!({ "do": "get", "name": "milk" })).await;
    assert!(!foreign["output"].to_string().contains("two litres"), "one bot never sees another's: {foreign}");

    let invocation = added["invocation_id"].as_str().unwrap();
    let logs = client.get(&format!("/bots/{id}/invocations/{invocation}/logs"), &ada.key).await.expect(200);
    assert!(!logs["lines"].as_array().unwrap().is_empty(), "{logs}");
}

async fn creating_twice_under_one_key(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let digest = client.upload(&ada.key, guest("echo")).await.expect(201)["digest"].clone();
    let body = json!({ "name": "echo", "component": digest });
    let first = client.post_once("/bots", &ada.key, "k1", &body).await.expect(201);
    let second = client.post_once("/bots", &ada.key, "k1", &body).await;
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.expect(201), first);
    let other = json!({ "name": "other", "component": digest });
    expect_problem(&client.post_once("/bots", &ada.key, "k1", &other).await, 422, "idempotency_key_reused");
    expect_problem(
        &client.post_once("/bots", &ada.key, "a b", &other).await,
        400,
        "malformed_idempotency_key",
    );
    assert_eq!(client.get("/bots", &ada.key).await.expect(200)["total"], 1);
}
