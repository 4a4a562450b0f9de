use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::json;

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(deposits_are_booked_once, bad_deposits_are_refused, parallel_deposits_count_once);

async fn deposits_are_booked_once(engine: Engine) {
    let host = host(engine).await;
    let (client, operator) = (host.client(), host.operator_key());
    let ada = Market::register(&client, "Ada").await;
    refuses_without_a_key(&client, Method::POST, "/admin/ledger/deposits").await;
    refuses_without_a_key(&client, Method::GET, "/ledger/balance").await;
    let balance = || async { client.get("/ledger/balance", &ada.key).await.expect(200)["available"].clone() };
    assert_eq!(balance().await, "0.000000");

    let deposit = json!({ "agent_id": ada.id, "amount": "12.5", "external_reference": "wire-1" });
    let first = client.post_once("/admin/ledger/deposits", &operator, "d-1", &deposit).await.expect(201);
    assert_eq!(
        (first["amount"].as_str(), first["external_reference"].as_str()),
        (Some("12.500000"), Some("wire-1"))
    );
    let replay = client.post_once("/admin/ledger/deposits", &operator, "d-1", &deposit).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(replay.expect(201), first);
    expect_problem(
        &client.post("/admin/ledger/deposits", &operator, &deposit).await,
        409,
        "deposit_already_booked",
    );
    let other = json!({ "agent_id": ada.id, "amount": "99", "external_reference": "wire-2" });
    expect_problem(
        &client.post_once("/admin/ledger/deposits", &operator, "d-1", &other).await,
        422,
        "idempotency_key_reused",
    );
    assert_eq!(balance().await, "12.500000");
}

async fn bad_deposits_are_refused(engine: Engine) {
    let host = host(engine).await;
    let (client, operator) = (host.client(), host.operator_key());
    let ada = Market::register(&client, "Ada").await;
    let good = json!({ "agent_id": ada.id, "amount": "1", "external_reference": "r" });
    expect_problem(&client.post("/admin/ledger/deposits", &ada.key, &good).await, 403, "operator_only");
    let nobody = ada.id.replace("agent_0", "agent_7");
    for (field, value, code) in [
        ("amount", json!("0"), "invalid_fields"),
        ("amount", json!("-1"), "invalid_body"),
        ("amount", json!("1e3"), "invalid_body"),
        ("amount", json!("0.0000001"), "invalid_body"),
        ("amount", json!("1000000001"), "invalid_body"),
        ("amount", json!(1), "invalid_body"),
        ("external_reference", json!(""), "invalid_fields"),
        ("external_reference", json!("x".repeat(201)), "invalid_fields"),
        ("external_reference", json!("r "), "invalid_fields"),
        ("agent_id", json!(nobody), "unknown_agent"),
        ("agent_id", json!("job_01JZ0000000000000000000000"), "invalid_body"),
        ("currency", json!("EUR"), "invalid_body"),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        let answer = client.post("/admin/ledger/deposits", &operator, &body).await;
        expect_problem(&answer, 422, code);
    }
    assert_eq!(client.get("/ledger/balance", &ada.key).await.expect(200)["available"], "0.000000");
}

async fn parallel_deposits_count_once(engine: Engine) {
    let host = host(engine).await;
    let (client, operator) = (host.client(), host.operator_key());
    let ada = Market::register(&client, "Ada").await;
    let deposit = json!({ "agent_id": ada.id, "amount": "10", "external_reference": "wire-1" });
    let answers = futures::future::join_all((0..20).map(|number| {
        let (client, operator, deposit) = (client.clone(), operator.clone(), deposit.clone());
        async move {
            // Half of them under one key, half without.
            if number % 2 == 0 {
                client.post_once("/admin/ledger/deposits", &operator, "one", &deposit).await
            } else {
                client.post("/admin/ledger/deposits", &operator, &deposit).await
            }
        }
    }))
    .await;
    for answer in &answers {
        assert!(matches!(answer.status, 201 | 409), "{}", answer.text);
    }
    let booked = answers
        .iter()
        .filter(|answer| answer.status == 201 && !answer.headers.contains_key("idempotency-replayed"));
    assert_eq!(booked.count(), 1);
    assert_eq!(client.get("/ledger/balance", &ada.key).await.expect(200)["available"], "10.000000");
}
