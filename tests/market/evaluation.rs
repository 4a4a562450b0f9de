//! Evaluations: normal ones, those that take too long, and what is fixed when a job is funded.

use std::time::{Duration, Instant};

use ringfence_model::{Clock as _, SystemClock};
use ringfence_testkit::{Engine, HostOptions, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::{host, host_with};

on_both_engines!(
    g07_an_evaluation_ends_within_its_time,
    g07_an_evaluation_that_hangs_times_out,
    m9_the_least_score_is_pinned_at_funding,
    m9_a_pin_of_before_is_judged,
    m9_a_submission_before_the_expiry_is_judged_after_it,
    m9_a_host_that_cannot_load_the_oracle_tries_again
);

/// Lets an oracle run for long.
fn long() -> Value {
    json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 100_000 } })
}

async fn job(market: &Market, job: &str) -> Value {
    market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200)
}

async fn g07_an_evaluation_ends_within_its_time(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-obey").await;
    let task = market.funded(json!({})).await;
    market.claim(&market.worker, &task).await;
    for (content, status) in [
        (json!({ "score": 40, "passed": false }), "failed"),
        (json!({ "score": 90, "passed": true }), "passed"),
    ] {
        let submission = market.submit(&market.worker, &task, &content).await;
        let verdict = market.verdict(&market.worker, &submission).await;
        assert_eq!(
            (verdict["status"].as_str(), &verdict["score"]),
            (Some(status), &content["score"]),
            "{verdict}"
        );
        assert_eq!(
            (verdict["reason"].as_str(), &verdict["oracle_fault"]),
            (Some("it said so"), &Value::Null)
        );
    }
}

async fn g07_an_evaluation_that_hangs_times_out(engine: Engine) {
    let env = vec![("ORACLE_TIMEOUT_SECONDS".to_owned(), "1".to_owned())];
    let host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let spin = Market::deploy(&market.client, &market.buyer, "hostile/oracle-spin", long()).await;
    let task = market.funded(json!({ "oracle": spin, "max_retries": 0 })).await;
    market.claim(&market.worker, &task).await;
    let submission = market.submit(&market.worker, &task, &json!(1)).await;
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(
        (verdict["status"].as_str(), verdict["reason"].as_str(), verdict["oracle_fault"].as_str()),
        (Some("failed"), Some("Evaluation timed out"), Some("timed_out")),
        "{verdict}"
    );
    // It was not the worker's fault, and the buyer has lost nothing.
    let _ = market.submit(&market.worker, &task, &json!(2)).await;
    assert_eq!(job(&market, &task).await["escrow_status"], "held");
}

async fn m9_the_least_score_is_pinned_at_funding(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-obey").await;
    let client = &market.client;
    let wrong = client.post("/jobs", &market.buyer.key, &market.job(json!({ "min_score": 101 }))).await;
    expect_problem(&wrong, 422, "invalid_fields");
    let task = market.post(json!({ "min_score": 60 })).await;
    assert_eq!(job(&market, &task).await["min_score"], 60, "it is shown from the start");
    let _ = client.post_empty(&format!("/jobs/{task}/fund"), &market.buyer.key).await.expect(200);
    let shown = client.get(&format!("/jobs/{task}"), &market.worker.key).await.expect(200);
    assert_eq!(
        (&shown["quorum"], &shown["min_score"], &shown["guard"]),
        (&json!(1), &json!(60), &json!(false))
    );
    expect_problem(
        &client.delete(&format!("/bots/{}", market.oracle), &market.buyer.key).await,
        409,
        "oracle_in_use",
    );
    // What the buyer does to the oracle now changes nothing for this job.
    let fault = client.upload(&market.buyer.key, ringfence_testkit::guest("hostile/oracle-fault")).await;
    let change = json!({ "component": fault.text_at("/digest"), "config": { "min_score": "0" } });
    let _ = client.patch(&format!("/bots/{}", market.oracle), &market.buyer.key, &change).await.expect(200);
    let after = client.get(&format!("/jobs/{task}"), &market.worker.key).await.expect(200);
    assert_eq!(after["oracles"], shown["oracles"]);

    market.claim(&market.worker, &task).await;
    let below = market.submit(&market.worker, &task, &json!({ "score": 59, "passed": true })).await;
    let below = market.verdict(&market.worker, &below).await;
    assert_eq!((below["status"].as_str(), &below["score"]), (Some("failed"), &json!(59)), "{below}");
    assert!(below["reason"].as_str().unwrap().contains("below the job's least score of 60"), "{below}");
    assert_eq!(below["oracle_fault"], Value::Null, "it counts as an attempt");
    let calls =
        client.get(&format!("/bots/{}/invocations", market.oracle), &market.buyer.key).await.expect(200);
    assert_eq!(calls["invocations"][0]["sealed"], true, "what did not pass stays sealed: {calls}");
    let enough = market.submit(&market.worker, &task, &json!({ "score": 60, "passed": true })).await;
    assert_eq!(market.verdict(&market.worker, &enough).await["status"], "passed");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

/// Jobs that were funded before a job could have several oracles.
async fn m9_a_pin_of_before_is_judged(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let task = market.funded(json!({})).await;
    let shown = job(&market, &task).await;
    let mut before = shown["oracles"][0].clone();
    before["seed_secret"] = json!("00".repeat(32));
    let sql = format!("UPDATE jobs SET oracle_pin = '{before}' WHERE id = '{task}'");
    assert_eq!(host.database().meddle(&sql).await, Ok(1));
    let now = job(&market, &task).await;
    assert_eq!((&now["oracles"], &now["quorum"]), (&shown["oracles"], &shown["quorum"]));
    market.claim(&market.worker, &task).await;
    let submission = market.submit(&market.worker, &task, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
}

async fn m9_a_submission_before_the_expiry_is_judged_after_it(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let slow = Market::deploy(&market.client, &market.buyer, "hostile/oracle-slow", long()).await;
    let ask = json!({ "oracle": slow, "input": 3_000_000_000u64 });
    let task = market.funded(ask).await;
    market.claim(&market.worker, &task).await;
    let submission = market.submit(&market.worker, &task, &json!(1)).await;
    let cancel = market.client.post_empty(&format!("/jobs/{task}/cancel"), &market.buyer.key).await;
    expect_problem(&cancel, 409, "submission_being_judged");
    super::run_out(&host, &task).await;
    let passed = SystemClock.now();
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    let judged: ringfence_model::Timestamp = verdict["judged_at"].as_str().unwrap().parse().unwrap();
    assert!(judged > passed, "the oracle was too quick to show anything: {verdict}");
    assert_eq!(job(&market, &task).await["status"], "resolved");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

async fn m9_a_host_that_cannot_load_the_oracle_tries_again(engine: Engine) {
    let mut host = host(engine).await;
    let mut market = Market::new(&host, "hostile/oracle-accept").await;
    let task = market.funded(json!({ "max_retries": 0 })).await;
    market.claim(&market.worker, &task).await;
    // Its bytes are gone for a while, and so is the code that was made of them.
    host.kill();
    let sql = |sql: &'static str| host.database().meddle(sql);
    sql("CREATE TABLE hidden AS SELECT digest, wasm FROM components").await.unwrap();
    sql("UPDATE components SET wasm = CAST('nothing' AS BYTEA)").await.unwrap();
    std::fs::remove_dir_all(host.folder().join("compiled")).unwrap();
    host.restart().await;
    market.client = host.client();
    let submission = market.submit(&market.worker, &task, &json!(1)).await;
    let begun = Instant::now();
    let failed = "queue WHERE kind = 'evaluate' AND last_error IS NOT NULL";
    while host.database().count(failed).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting =
        market.client.get(&format!("/submissions/{submission}"), &market.worker.key).await.expect(200);
    assert_eq!((waiting["status"].as_str(), &waiting["oracle_fault"]), (Some("judging"), &Value::Null));
    let back =
        "UPDATE components SET wasm = (SELECT h.wasm FROM hidden h WHERE h.digest = components.digest)";
    host.database().meddle(back).await.unwrap();
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
}
