use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::json;

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(register, profiles, refusals);

const WALLET: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

async fn register(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let answer = client.post("/agents", "", &json!({ "name": "Ada" })).await;
    let agent = answer.expect(201);
    assert!(agent["api_key"].as_str().unwrap().starts_with("rf_live_"));
    assert!(agent["agent_id"].as_str().unwrap().starts_with("agent_"));
    assert!(agent["warnings"][0].as_str().unwrap().contains("wallet_address not set"));

    let agent =
        client.post("/agents", "", &json!({ "name": "Ada", "wallet_address": WALLET })).await.expect(201);
    assert_eq!(agent["warnings"], json!([]));
    assert_eq!(agent["wallet_address"], WALLET);

    // The key is nowhere to be had again, and nowhere in the log.
    let key = agent["api_key"].as_str().unwrap();
    let path = format!("/agents/{}", agent["agent_id"].as_str().unwrap());
    assert!(!client.get(&path, key).await.text.contains("api_key"));
    assert!(!host.log().contains(key));
}

async fn profiles(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    let path = format!("/agents/{}", ada.id);

    let own = client.get(&path, &ada.key).await.expect(200);
    assert_eq!((own["name"].as_str(), own["wallet_address"].is_null()), (Some("Ada"), true));
    let public = client.get(&path, &bob.key).await.expect(200);
    assert_eq!(public["name"], "Ada");
    assert!(public.get("wallet_address").is_none() && public.get("org_id").is_none(), "{public}");

    let changed = client
        .patch(&path, &ada.key, &json!({ "name": "Ada L.", "wallet_address": WALLET }))
        .await
        .expect(200);
    assert_eq!(
        (changed["name"].as_str(), changed["wallet_address"].as_str()),
        (Some("Ada L."), Some(WALLET))
    );
    let kept = client.patch(&path, &ada.key, &json!({ "name": "Ada" })).await.expect(200);
    assert_eq!(kept["wallet_address"], WALLET, "what is absent stays");
    let removed = client.patch(&path, &ada.key, &json!({ "wallet_address": null })).await.expect(200);
    assert!(removed["wallet_address"].is_null());
}

async fn refusals(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    let path = format!("/agents/{}", ada.id);

    refuses_without_a_key(&client, Method::GET, &path).await;
    refuses_without_a_key(&client, Method::PATCH, &path).await;
    expect_problem(&client.patch(&path, &bob.key, &json!({ "name": "Eve" })).await, 403, "not_your_agent");
    expect_problem(
        &client.patch(&path, &host.operator_key(), &json!({ "name": "Eve" })).await,
        403,
        "not_your_agent",
    );
    assert_eq!(client.get(&path, &ada.key).await.expect(200)["name"], "Ada");

    for wallet in ["0x12", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", &WALLET.replace("5aA", "5aa")] {
        let body = json!({ "name": "Ada", "wallet_address": wallet });
        expect_problem(&client.post("/agents", "", &body).await, 400, "invalid_wallet");
        expect_problem(&client.patch(&path, &ada.key, &body).await, 400, "invalid_wallet");
    }
    for name in ["", " Ada", "a\u{0}b", &"x".repeat(101)] {
        let answer = client.post("/agents", "", &json!({ "name": name })).await;
        expect_problem(&answer, 422, "invalid_fields");
        assert_eq!(answer.body["errors"][0]["field"], "name");
    }
    expect_problem(
        &client.post("/agents", "", &json!({ "name": "Ada", "role": "admin" })).await,
        422,
        "invalid_body",
    );
    expect_problem(&client.post("/agents", "", &json!({ "name": 7 })).await, 422, "invalid_body");
    expect_problem(&client.post("/agents", "", &json!([])).await, 422, "invalid_body");
    let text = client.request(Method::POST, "/agents", "").body("{\"name\":");
    expect_problem(&ringfence_testkit::send(text).await, 415, "unsupported_media_type");
    let broken = client
        .request(Method::POST, "/agents", "")
        .header("content-type", "application/json")
        .body("{\"name\":");
    expect_problem(&ringfence_testkit::send(broken).await, 400, "malformed_json");

    let nobody = ada.id.replace("agent_0", "agent_7");
    expect_problem(&client.get(&format!("/agents/{nobody}"), &ada.key).await, 404, "agent_not_found");
    expect_problem(&client.get("/agents/../../etc/passwd", &ada.key).await, 404, "no_such_route");
    expect_problem(&client.get("/agents/job_01JZ0000000000000000000000", &ada.key).await, 404, "no_such_id");
    expect_problem(&client.delete(&path, &ada.key).await, 405, "method_not_allowed");
}
