//! kill −9 at the worst moments: the job ends as it would have, and nothing happens twice.

use std::time::Duration;

use ringfence_testkit::{Engine, Host, Market, on_both_engines};
use serde_json::json;

use crate::host;

on_both_engines!(a_crash_between_submission_and_verdict, crashes_all_along);

async fn ledger_holds(host: &Host) {
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    assert_eq!(ringfence_store::ledger::check(&mut reader).await.unwrap(), []);
    drop(reader);
    store.close().await;
}

async fn a_crash_between_submission_and_verdict(engine: Engine) {
    let mut host = host(engine).await;
    let mut market = Market::new(&host, "hostile/oracle-accept").await;
    // Judges for seconds, so that the host is killed while it does.
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 60_000 } });
    let slow = Market::deploy(&market.client, &market.buyer, "hostile/oracle-slow", limits).await;
    let job = market.funded(json!({ "oracle": slow, "input": 2_000_000_000u64 })).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!("work")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before =
        market.client.get(&format!("/submissions/{submission}"), &market.worker.key).await.expect(200);
    assert_eq!(before["status"], "judging", "the host is killed too late to show anything");
    host.kill();
    host.restart().await;
    market.client = host.client();
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    assert_eq!(market.balance(&market.operator).await, "2.000000");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let job = market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
    assert_eq!((job["status"].as_str(), job["payout_status"].as_str()), (Some("resolved"), Some("success")));
    // Long enough for a second verdict, if there were one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(market.balance(&market.worker.key).await, "8.000000", "paid exactly once");
    ledger_holds(&host).await;
}

async fn crashes_all_along(engine: Engine) {
    let mut host = host(engine).await;
    let mut market = Market::new(&host, "hostile/oracle-accept").await;
    let mut submissions = Vec::new();
    for round in 0..6u64 {
        let job = market.funded(json!({ "price": "5" })).await;
        market.claim(&market.worker, &job).await;
        submissions.push(market.submit(&market.worker, &job, &json!(round)).await);
        // A different moment each time: before, while and after the verdict is written.
        tokio::time::sleep(Duration::from_millis(round * 4)).await;
        host.kill();
        host.restart().await;
        market.client = host.client();
    }
    for submission in &submissions {
        assert_eq!(market.verdict(&market.worker, submission).await["status"], "passed");
    }
    assert_eq!(market.balance(&market.worker.key).await, "24.000000", "6 × 4");
    assert_eq!(market.balance(&market.operator).await, "6.000000", "6 × 1");
    assert_eq!(market.balance(&market.buyer.key).await, "70.000000");
    ledger_holds(&host).await;
}
