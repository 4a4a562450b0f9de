//! A job from post to paid.

use ringfence_testkit::{Engine, Market, guest, on_both_engines, root};
use serde_json::json;

use crate::host;

on_both_engines!(a_job_is_posted_worked_judged_and_paid);

async fn a_job_is_posted_worked_judged_and_paid(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "orders-oracle").await;
    let client = &market.client;
    let data = root().join("guest-examples/data");
    let csv = std::fs::read_to_string(data.join("orders.csv")).unwrap();
    let rubric = std::fs::read_to_string(data.join("rubric.md")).unwrap();
    let job = market.funded(json!({ "rubric": rubric, "price": "25", "input": { "csv": csv } })).await;
    assert_eq!(market.balance(&market.buyer.key).await, "75.000000");

    let rival = Market::register(client, "Rival").await;
    for (worker, bot, status, score) in [
        (&rival, "orders-report-naive", "failed", None),
        (&market.worker, "orders-report", "passed", Some(100)),
    ] {
        let bot = Market::deploy(client, worker, bot, json!({})).await;
        market.claim(worker, &job).await;
        let input = client.get(&format!("/jobs/{job}/input"), &worker.key).await.expect(200);
        assert_eq!(input["csv"].as_str(), Some(csv.as_str()));
        let call = client
            .post(&format!("/bots/{bot}/invoke"), &worker.key, &json!({ "input": input }))
            .await
            .expect(200);
        assert_eq!(call["outcome"], "completed");
        let submission = market.submit(worker, &job, &call["output"]).await;
        let verdict = market.verdict(worker, &submission).await;
        assert_eq!(verdict["status"], status, "{verdict}");
        assert!(verdict["steps"].as_array().unwrap().len() > 3);
        assert!(!verdict["reason"].as_str().unwrap().is_empty());
        if let Some(score) = score {
            assert_eq!(verdict["score"], score);
        }
        let evaluation = &verdict["evaluation"];
        assert_eq!(evaluation["component"], digest_of("orders-oracle"));
        assert!(evaluation["usage"]["fuel"].as_u64().unwrap() > 1_000_000);
        assert!(evaluation["usage"]["peak_memory_bytes"].as_u64().unwrap() > 65_536);
    }

    let job = client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
    assert_eq!(job["status"], "resolved");
    assert_eq!(job["payout_status"], "success");
    assert_eq!(job["worker_id"], market.worker.id.as_str());
    assert_eq!(market.balance(&market.buyer.key).await, "75.000000");
    assert_eq!(market.balance(&market.worker.key).await, "20.000000", "80 % of the price");
    assert_eq!(market.balance(&rival.key).await, "0.000000");
    assert_eq!(market.balance(&market.operator).await, "5.000000", "the platform's fee");
}

/// The digest of a guest, as the API writes it.
fn digest_of(name: &str) -> String {
    ringfence_model::Sha256::of(&guest(name)).to_string()
}
