//! Bad input of the market: told what is wrong, and nothing is done.

use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines, send};
use serde_json::json;

use super::ACCEPTS;
use crate::host;

on_both_engines!(
    bad_prices_expiries_and_fees,
    bodies_that_are_too_large_or_of_another_type,
    ids_of_other_kinds
);

async fn bad_prices_expiries_and_fees(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    for (more, code) in [
        (json!({ "price": "0" }), "invalid_fields"),
        (json!({ "price": "0.000000" }), "invalid_fields"),
        (json!({ "price": "-1" }), "invalid_body"),
        (json!({ "price": "1.1234567" }), "invalid_body"),
        (json!({ "price": "1e3" }), "invalid_body"),
        (json!({ "price": "+1" }), "invalid_body"),
        (json!({ "price": "1,000" }), "invalid_body"),
        (json!({ "price": " 1" }), "invalid_body"),
        (json!({ "price": "" }), "invalid_body"),
        (json!({ "price": 1 }), "invalid_body"),
        (json!({ "price": "NaN" }), "invalid_body"),
        (json!({ "price": "1000000000.000001" }), "invalid_body"),
        (json!({ "price": "99999999999999999999999999" }), "invalid_body"),
        (json!({ "expiry": "2020-01-01T00:00:00Z" }), "invalid_fields"),
        (json!({ "expiry": "9999-01-01T00:00:00Z" }), "invalid_fields"),
        (json!({ "expiry": "12026-01-01T00:00:00Z" }), "invalid_body"),
        (json!({ "expiry": 1_800_000_000 }), "invalid_body"),
        (json!({ "fee_bps": 10_001 }), "invalid_body"),
        (json!({ "fee_bps": -1 }), "invalid_body"),
        (json!({ "fee_bps": 0.5 }), "invalid_body"),
        (json!({ "min_reputation": 101 }), "invalid_fields"),
        (json!({ "min_reputation": 256 }), "invalid_body"),
    ] {
        let answer = market.client.post("/jobs", &market.buyer.key, &market.job(more)).await;
        expect_problem(&answer, 422, code);
    }
    let most = market.post(json!({ "price": "1000000000" })).await;
    assert_eq!(super::job(&market, &most).await["price"], "1000000000.000000", "the largest price");
    assert_eq!(market.client.get("/jobs", &market.buyer.key).await.expect(200)["total"], 1);
}

async fn bodies_that_are_too_large_or_of_another_type(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, key) = (&market.client, &market.buyer.key);
    let id = market.post(json!({})).await;
    let rubric = "x".repeat(10 << 20);
    let posted = client.post("/jobs", key, &market.job(json!({ "rubric": rubric }))).await;
    expect_problem(&posted, 413, "body_too_large");
    let changed = client.patch(&format!("/jobs/{id}"), key, &json!({ "rubric": rubric })).await;
    expect_problem(&changed, 413, "body_too_large");
    let body = market.job(json!({})).to_string();
    for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        let request = client.request(reqwest::Method::POST, "/jobs", key);
        let answer = send(request.header("content-type", kind).body(body.clone())).await;
        expect_problem(&answer, 415, "unsupported_media_type");
    }
    let wasm = client.request(reqwest::Method::POST, "/jobs", key).header("content-type", "application/json");
    expect_problem(&send(wasm.body(&b"\0asm\x0d\0\x01\0"[..])).await, 400, "malformed_json");
    let list = client.get("/jobs", key).await.expect(200);
    assert_eq!(list["total"], 1, "nothing is stored");
}

async fn ids_of_other_kinds(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, key) = (&market.client, &market.buyer.key);
    for id in [market.buyer.id.as_str(), &market.oracle, "job_", "1", "job_%00", "%27%20OR%201=1"] {
        for path in ["", "/participants", "/submissions", "/input"] {
            let answer = client.get(&format!("/jobs/{id}{path}"), key).await;
            assert_eq!(answer.status, 404, "{id}{path}: {}", answer.text);
        }
        for path in ["fund", "claim", "unclaim", "cancel"] {
            let answer = client.post_empty(&format!("/jobs/{id}/{path}"), key).await;
            assert_eq!(answer.status, 404, "{id}/{path}: {}", answer.text);
        }
    }
    let job = market.post(json!({})).await;
    for path in [format!("/agents/{job}/reputation"), format!("/submissions/{job}"), format!("/agents/{job}")]
    {
        expect_problem(&client.get(&path, key).await, 404, "no_such_id");
    }
    for body in [json!({ "oracle": job }), json!({ "buyer_id": job })] {
        expect_problem(&client.post("/jobs", key, &market.job(body)).await, 422, "invalid_body");
    }
    for query in
        [format!("buyer_id={job}"), format!("worker_id={}", market.oracle), "visibility=secret".into()]
    {
        expect_problem(&client.get(&format!("/jobs?{query}"), key).await, 422, "invalid_query");
    }
}
