//! Many at once: one winner, one payout.

use ringfence_testkit::{Agent, Engine, Market, on_both_engines};
use serde_json::json;

use crate::host;

on_both_engines!(of_many_that_pass_one_wins, equal_claims_count_once);

async fn of_many_that_pass_one_wins(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({ "max_submissions": 100 })).await;
    let mut workers: Vec<Agent> = Vec::new();
    for number in 0..20 {
        let worker = Market::register(&market.client, &format!("Worker {number}")).await;
        market.claim(&worker, &job).await;
        workers.push(worker);
    }
    // Some find the job won already: that is an answer, too.
    let answers = futures::future::join_all(workers.iter().map(|worker| {
        let client = market.client.clone();
        let path = format!("/jobs/{job}/submit");
        async move { client.post(&path, &worker.key, &json!({ "content": worker.id })).await }
    }))
    .await;
    let mut passed = 0;
    for (worker, answer) in workers.iter().zip(&answers) {
        if answer.status == 409 {
            assert_eq!(answer.body["code"], "job_resolved");
            continue;
        }
        let verdict = market.verdict(worker, answer.text_at("/submission_id")).await;
        match verdict["status"].as_str() {
            Some("passed") => passed += 1,
            Some("closed") => {
                assert!(verdict["reason"].as_str().unwrap().contains("another submission"), "{verdict}")
            }
            other => panic!("{other:?}: {verdict}"),
        }
    }
    assert_eq!(passed, 1);
    let mut paid = 0;
    for worker in &workers {
        match market.balance(&worker.key).await.as_str() {
            "8.000000" => paid += 1,
            other => assert_eq!(other, "0.000000"),
        }
    }
    assert_eq!(paid, 1);
    assert_eq!(market.balance(&market.operator).await, "2.000000");
}

async fn equal_claims_count_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({})).await;
    let path = format!("/jobs/{job}/claim");
    let answers =
        futures::future::join_all((0..10).map(|_| market.client.post_empty(&path, &market.worker.key))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.body["code"] == "already_claimed"));
}
