use reqwest::Method;
use ringfence_testkit::{Client, Engine, Market, expect_problem, on_both_engines, send};
use serde_json::json;

use super::ACCEPTS;
use crate::host;

on_both_engines!(
    g01_registration_returns_a_key_that_opens,
    g01_a_missing_or_wrong_key_is_401,
    g01_a_key_cannot_act_as_another_agent,
    g02_wallet_and_name_are_updated,
    g02_an_invalid_wallet_is_400,
    g02_an_unknown_agent_is_404,
    g02_anothers_profile_is_403,
    g08_the_buyer_is_the_keys_agent,
    g20_a_missing_wallet_is_told_at_registration_and_claim,
);

const WALLET: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

async fn g01_registration_returns_a_key_that_opens(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = client.post("/agents", "", &json!({ "name": "Ada" })).await;
    let (id, key) = (ada.text_at("/agent_id").to_owned(), ada.text_at("/api_key").to_owned());
    assert_eq!(ada.status, 201);
    assert_eq!(client.get(&format!("/agents/{id}"), &key).await.expect(200)["name"], "Ada");
    assert!(host.database().tables_with(&key).await.is_empty(), "only its hash is kept");
}

async fn g01_a_missing_or_wrong_key_is_401(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let job = "job_01JZ0000000000000000000000";
    let mut wrong = ada.key.clone();
    wrong.replace_range(10..11, if &wrong[10..11] == "a" { "b" } else { "a" });
    for key in ["", "nonsense", &wrong] {
        for (method, path) in [
            (Method::POST, "/jobs".to_owned()),
            (Method::GET, "/jobs".to_owned()),
            (Method::PATCH, format!("/jobs/{job}")),
            (Method::POST, format!("/jobs/{job}/fund")),
            (Method::POST, format!("/jobs/{job}/claim")),
            (Method::POST, format!("/jobs/{job}/unclaim")),
            (Method::POST, format!("/jobs/{job}/submit")),
            (Method::POST, format!("/jobs/{job}/cancel")),
            (Method::GET, format!("/jobs/{job}/participants")),
            (Method::GET, format!("/agents/{}", ada.id)),
            (Method::PATCH, format!("/agents/{}", ada.id)),
            (Method::GET, format!("/agents/{}/reputation", ada.id)),
            (Method::GET, "/leaderboard".to_owned()),
        ] {
            let answer = send(client.request(method, &path, key).json(&json!({}))).await;
            expect_problem(&answer, 401, "unauthorized");
        }
    }
}

async fn g01_a_key_cannot_act_as_another_agent(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let posted = market.job(json!({ "buyer_id": market.worker.id }));
    expect_problem(&client.post("/jobs", &market.buyer.key, &posted).await, 403, "other_agent");
    let job = market.funded(json!({})).await;
    let as_buyer = json!({ "worker_id": market.buyer.id });
    let claim = format!("/jobs/{job}/claim");
    expect_problem(&client.post(&claim, &market.worker.key, &as_buyer).await, 403, "other_agent");
    market.claim(&market.worker, &job).await;
    let unclaim = client.post(&format!("/jobs/{job}/unclaim"), &market.worker.key, &as_buyer).await;
    expect_problem(&unclaim, 403, "other_agent");
    let submission = json!({ "worker_id": market.buyer.id, "content": 1 });
    let submit = client.post(&format!("/jobs/{job}/submit"), &market.worker.key, &submission).await;
    expect_problem(&submit, 403, "other_agent");
    for (path, body) in [("fund", json!({})), ("cancel", json!({}))] {
        let answer = client.post(&format!("/jobs/{job}/{path}"), &market.worker.key, &body).await;
        expect_problem(&answer, 403, "not_the_buyer");
    }
    let change = client.patch(&format!("/jobs/{job}"), &market.worker.key, &json!({ "title": "Mine" })).await;
    expect_problem(&change, 403, "not_the_buyer");
}

async fn g02_wallet_and_name_are_updated(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let path = format!("/agents/{}", ada.id);
    let changed = client.patch(&path, &ada.key, &json!({ "wallet_address": WALLET })).await.expect(200);
    assert_eq!((changed["wallet_address"].as_str(), changed["name"].as_str()), (Some(WALLET), Some("Ada")));
    let changed = client.patch(&path, &ada.key, &json!({ "name": "Ada L." })).await.expect(200);
    assert_eq!(
        (changed["wallet_address"].as_str(), changed["name"].as_str()),
        (Some(WALLET), Some("Ada L."))
    );
    assert_eq!(client.get(&path, &ada.key).await.expect(200)["name"], "Ada L.");
    // Of one case alone, there is no checksum to be wrong.
    for wallet in [WALLET.to_lowercase(), WALLET.to_uppercase().replace("0X", "0x")] {
        let changed = client.patch(&path, &ada.key, &json!({ "wallet_address": wallet })).await.expect(200);
        assert_eq!(changed["wallet_address"], wallet.as_str());
    }
}

async fn g02_an_invalid_wallet_is_400(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let wrong_checksum = WALLET.replace("5aA", "5aa");
    for wallet in ["", "0x12", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", &wrong_checksum] {
        let body = json!({ "name": "Ada", "wallet_address": wallet });
        let changed = client.patch(&format!("/agents/{}", ada.id), &ada.key, &body).await;
        expect_problem(&changed, 400, "invalid_wallet");
        expect_problem(&client.post("/agents", "", &body).await, 400, "invalid_wallet");
    }
}

async fn g02_an_unknown_agent_is_404(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let nobody = format!("/agents/{}", ada.id.replace("agent_0", "agent_7"));
    expect_problem(&client.patch(&nobody, &ada.key, &json!({ "name": "Eve" })).await, 404, "agent_not_found");
}

async fn g02_anothers_profile_is_403(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let path = format!("/agents/{}", ada.id);
    expect_problem(&client.patch(&path, &bob.key, &json!({ "name": "Eve" })).await, 403, "not_your_agent");
    assert_eq!(client.get(&path, &ada.key).await.expect(200)["name"], "Ada");
}

async fn g08_the_buyer_is_the_keys_agent(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client: &Client = &market.client;
    let id = market.post(json!({})).await;
    assert_eq!(super::job(&market, &id).await["buyer_id"], market.buyer.id.as_str());
    let nobody = market.buyer.id.replace("agent_0", "agent_7");
    let posted = client.post("/jobs", &market.buyer.key, &market.job(json!({ "buyer_id": nobody }))).await;
    expect_problem(&posted, 403, "other_agent");
    let key = client.post("/jobs", &market.operator, &market.job(json!({}))).await;
    expect_problem(&key, 403, "agent_only");
    // Not even past the program.
    let job = format!("UPDATE jobs SET buyer_id = '{nobody}' WHERE id = '{id}'");
    let refused = match engine {
        Engine::Postgres => host.database().meddle(&job).await,
        // A connection of SQLite has to ask for it, and the host's do.
        Engine::Sqlite => return,
    };
    assert!(refused.unwrap_err().contains("foreign key"));
}

async fn g20_a_missing_wallet_is_told_at_registration_and_claim(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let told = |warnings: &serde_json::Value| {
        warnings[0].as_str().is_some_and(|warning| warning.contains("wallet_address not set"))
    };
    let without = client.post("/agents", "", &json!({ "name": "Ada" })).await.expect(201);
    assert!(told(&without["warnings"]), "{without}");
    let with = client.post("/agents", "", &json!({ "name": "Ada", "wallet_address": WALLET })).await;
    let with = with.expect(201);
    assert_eq!(with["warnings"], json!([]));
    let claim = format!("/jobs/{}/claim", market.funded(json!({})).await);
    let claimed = client.post_empty(&claim, without["api_key"].as_str().unwrap()).await.expect(201);
    assert!(told(&claimed["warnings"]), "{claimed}");
    let claimed = client.post_empty(&claim, with["api_key"].as_str().unwrap()).await.expect(201);
    assert_eq!(claimed["warnings"], json!([]));
}
