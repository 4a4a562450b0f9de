//! What one org does to others, and what is left of a call whose client has gone.

use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_testkit::{Engine, Market, on_both_engines};
use serde_json::json;

use crate::host;

on_both_engines!(slow_evaluations_of_one_org_do_not_starve_others, a_client_that_hangs_up_ends_its_call);

async fn slow_evaluations_of_one_org_do_not_starve_others(engine: Engine) {
    let host = host(engine).await;
    let flood = Market::new(&host, "hostile/oracle-accept").await;
    let other = Market::new(&host, "hostile/oracle-accept").await;
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 100_000 } });
    let spin = Market::deploy(&flood.client, &flood.buyer, "hostile/oracle-spin", limits).await;
    // More than there are workers, and each of them for longer than this test is patient.
    for _ in 0..6 {
        let job = flood.funded(json!({ "oracle": spin })).await;
        flood.claim(&flood.worker, &job).await;
        flood.submit(&flood.worker, &job, &json!(1)).await;
    }
    let job = other.funded(json!({})).await;
    other.claim(&other.worker, &job).await;
    let submission = other.submit(&other.worker, &job, &json!(1)).await;
    let verdict = other.verdict(&other.worker, &submission).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    let path = format!("/bots/{spin}/invocations");
    let ended = flood.client.get(&path, &flood.buyer.key).await.expect(200);
    assert_eq!(ended["total"], 0, "they are all still under way: {ended}");
}

async fn a_client_that_hangs_up_ends_its_call(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let owner = Market::register(&client, "Ada").await;
    let limits = json!({ "limits": { "wall_time_ms": 100_000 } });
    let park = Market::deploy(&client, &owner, "hostile/park", limits).await;
    let (invoke, path) = (format!("/bots/{park}/invoke"), format!("/bots/{park}/invocations"));
    let begun = Instant::now();
    let mut patience = Duration::from_millis(200);
    let calls = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "no call was recorded");
        let call = client.request(Method::POST, &invoke, &owner.key).json(&json!({ "input": 3_600_000 }));
        // Leaves a call that has begun, or one that has not: then the next has longer.
        assert!(tokio::time::timeout(patience, call.send()).await.is_err(), "it was answered");
        patience *= 2;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let calls = client.get(&path, &owner.key).await.expect(200);
        if calls["total"] != 0 {
            break calls;
        }
    };
    let call = &calls["invocations"][0];
    assert_eq!(call["outcome"], "cancelled", "{call}");
    assert!(call["usage"]["fuel"].as_u64().unwrap() > 0, "{call}");
    assert!(call["usage"]["wall_us"].as_u64().unwrap() < 60_000_000, "{call}");
}
