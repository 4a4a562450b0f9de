//! Oracles that cannot judge, and jobs that end without a winner.

use std::time::{Duration, Instant};

use ringfence_model::{Clock as _, SystemClock};
use ringfence_testkit::{Engine, HostOptions, Market, on_both_engines};
use serde_json::json;

use crate::{host, host_with};

on_both_engines!(
    an_oracle_that_fails_is_not_the_workers_fault,
    an_oracle_that_never_ends_is_ended,
    a_job_expires_by_itself
);

async fn an_oracle_that_fails_is_not_the_workers_fault(engine: Engine) {
    let host = host(engine).await;
    for (oracle, fault) in
        [("hostile/oracle-fault", "failed"), ("hostile/oracle-bad-score", "invalid_output")]
    {
        let market = Market::new(&host, oracle).await;
        let job = market.funded(json!({ "max_retries": 0 })).await;
        market.claim(&market.worker, &job).await;
        for attempt in 1..=2 {
            let submission = market.submit(&market.worker, &job, &json!(1)).await;
            let verdict = market.verdict(&market.worker, &submission).await;
            assert_eq!(
                (verdict["status"].as_str(), verdict["oracle_fault"].as_str()),
                (Some("failed"), Some(fault)),
                "{verdict}"
            );
            assert_eq!(verdict["attempt"], attempt, "an attempt that could not be judged does not count");
            assert!(verdict["reason"].as_str().unwrap().contains("does not count"), "{verdict}");
        }
        let calls = market
            .client
            .get(&format!("/bots/{}/invocations", market.oracle), &market.buyer.key)
            .await
            .expect(200);
        assert_eq!(calls["total"], 4, "each was tried twice");
        assert!(calls["invocations"][0]["detail"].is_null(), "what it says of the work is sealed: {calls}");
        assert_eq!(market.balance(&market.buyer.key).await, "90.000000", "the escrow is held");
    }
}

async fn an_oracle_that_never_ends_is_ended(engine: Engine) {
    let env = vec![("ORACLE_TIMEOUT_SECONDS".to_owned(), "1".to_owned())];
    let host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 60_000 } });
    let spin = Market::deploy(&market.client, &market.buyer, "hostile/oracle-spin", limits).await;
    let job = market.funded(json!({ "oracle": spin })).await;
    market.claim(&market.worker, &job).await;
    let begun = Instant::now();
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(
        (verdict["status"].as_str(), verdict["reason"].as_str()),
        (Some("failed"), Some("Evaluation timed out")),
        "{verdict}"
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "by the deadline, not by its own limits");
}

async fn a_job_expires_by_itself(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let expiry = SystemClock.now().plus(Duration::from_secs(2)).to_string();
    let funded = market.funded(json!({ "expiry": expiry })).await;
    let open = market.post(json!({ "expiry": expiry })).await;
    market.claim(&market.worker, &funded).await;
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let begun = Instant::now();
    for job in [&funded, &open] {
        loop {
            let job = market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
            if job["status"] == "expired" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{job}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000", "the escrow went back");
    let late = market
        .client
        .post(&format!("/jobs/{funded}/submit"), &market.worker.key, &json!({ "content": 1 }))
        .await;
    ringfence_testkit::expect_problem(&late, 409, "job_expired");
}
