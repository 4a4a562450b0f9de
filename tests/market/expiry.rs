use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::json;

use super::{ACCEPTS, events, run_out, slow, soon, told, until};
use crate::host;

on_both_engines!(
    g12_a_job_expires_by_itself_at_the_second,
    g12_nothing_is_taken_after_the_expiry,
    g12_what_was_handed_in_before_is_judged,
);

async fn g12_a_job_expires_by_itself_at_the_second(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let job = market.funded(json!({ "expiry": soon(5) })).await;
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let ended = until(&market, &job, "expired").await;
    let at = |field: &str| ended[field].as_str().unwrap().parse::<ringfence_model::Timestamp>().unwrap();
    let late = at("ended_at").since(at("expiry"));
    assert!(at("ended_at") >= at("expiry") && late.as_secs() < 5, "{late:?} late");
    assert_eq!(
        (&ended["refunded_amount"], &ended["escrow_status"]),
        (&json!("10.000000"), &json!("refunded"))
    );
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
    let event = events(&host, &job).await.pop().unwrap();
    assert_eq!((event.event.as_str(), &event.data["refunded_amount"]), ("job.expired", &json!("10.000000")));
    let names = told(&host, &job).await;
    assert_eq!(names.iter().filter(|name| *name == "job.expired").count(), 1);
}

async fn g12_nothing_is_taken_after_the_expiry(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let job = market.funded(json!({})).await;
    let open = market.post(json!({})).await;
    market.claim(&market.worker, &job).await;
    for job in [&job, &open] {
        run_out(&host, job).await;
        until(&market, job, "expired").await;
    }
    let rival = Market::register(client, "Rival").await;
    let claim = client.post_empty(&format!("/jobs/{job}/claim"), &rival.key).await;
    expect_problem(&claim, 409, "job_expired");
    let submit =
        client.post(&format!("/jobs/{job}/submit"), &market.worker.key, &json!({ "content": 1 })).await;
    expect_problem(&submit, 409, "job_expired");
    let fund = client.post_empty(&format!("/jobs/{open}/fund"), &market.buyer.key).await;
    expect_problem(&fund, 409, "job_expired");
    let cancel = client.post_empty(&format!("/jobs/{job}/cancel"), &market.buyer.key).await;
    expect_problem(&cancel, 409, "job_expired");
}

async fn g12_what_was_handed_in_before_is_judged(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let job = market.funded(slow(&market).await).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    // The time is up while the oracle judges.
    run_out(&host, &job).await;
    let claim = market.client.post_empty(&format!("/jobs/{job}/claim"), &market.worker.key).await;
    expect_problem(&claim, 409, "job_expired");
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    let ended = super::job(&market, &job).await;
    assert!(
        ended["status"] == "resolved" && ended["ended_at"].as_str() > ended["expiry"].as_str(),
        "{ended}"
    );
}
