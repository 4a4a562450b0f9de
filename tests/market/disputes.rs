//! A job whose oracle keeps failing: its money is held until an operator decides, once.

use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_testkit::{Agent, Engine, Host, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::host;

on_both_engines!(
    m9_three_faults_in_a_row_are_a_dispute,
    m9_a_verdict_between_ends_the_row,
    m9_a_dispute_is_refunded_once,
    m9_a_resumed_job_goes_on,
    m9_a_disputed_job_expires_when_it_is_resumed,
    m9_what_was_being_judged_waits_for_the_decision
);

/// What the oracle cannot judge.
fn nonsense() -> Value {
    json!("nonsense")
}

fn good() -> Value {
    json!({ "score": 100, "passed": true })
}

async fn market(host: &Host) -> Market {
    Market::new(host, "hostile/oracle-obey").await
}

async fn job(market: &Market, job: &str) -> Value {
    market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200)
}

async fn judged(market: &Market, worker: &Agent, job: &str, content: &Value) -> Value {
    let submission = market.submit(worker, job, content).await;
    market.verdict(worker, &submission).await
}

/// A claimed job whose oracle has failed three times in a row.
async fn disputed(market: &Market, more: Value) -> String {
    let task = market.funded(more).await;
    market.claim(&market.worker, &task).await;
    for _ in 0..3 {
        let verdict = judged(market, &market.worker, &task, &nonsense()).await;
        assert_eq!(verdict["oracle_fault"], "failed", "{verdict}");
    }
    assert_eq!(job(market, &task).await["escrow_status"], "disputed");
    task
}

fn path(job: &str) -> String {
    format!("/admin/jobs/{job}/dispute/resolve")
}

fn ruling(outcome: &str) -> Value {
    json!({ "outcome": outcome, "reason": "The oracle does not read what the rubric asks for." })
}

async fn events(host: &Host, job: &str, event: &str) -> i64 {
    host.database().count(&format!("outbox WHERE task_id = '{job}' AND event = '{event}'")).await
}

async fn m9_three_faults_in_a_row_are_a_dispute(engine: Engine) {
    let host = host(engine).await;
    let market = market(&host).await;
    let client = &market.client;
    let task = market.funded(json!({})).await;
    let early = client.post(&path(&task), &market.operator, &ruling("refund")).await;
    expect_problem(&early, 409, "job_not_disputed");
    let task = disputed(&market, json!({})).await;
    let other = Market::register(client, "Other").await;
    let state = job(&market, &task).await;
    assert_eq!(
        (state["status"].as_str(), state["escrow_status"].as_str()),
        (Some("funded"), Some("disputed"))
    );
    expect_problem(&client.post_empty(&format!("/jobs/{task}/claim"), &other.key).await, 409, "job_disputed");
    let submit = json!({ "content": good() });
    let submit = client.post(&format!("/jobs/{task}/submit"), &market.worker.key, &submit).await;
    expect_problem(&submit, 409, "job_disputed");
    let cancel = client.post_empty(&format!("/jobs/{task}/cancel"), &market.buyer.key).await;
    expect_problem(&cancel, 409, "job_disputed");
    assert_eq!(market.balance(&market.buyer.key).await, "80.000000", "the escrow is held");
    assert_eq!(events(&host, &task, "job.disputed").await, 1);
    // Only operators decide, and they say why.
    for key in [&market.buyer.key, &market.worker.key] {
        expect_problem(&client.post(&path(&task), key, &ruling("refund")).await, 403, "operator_only");
    }
    let nobody = client.request(Method::POST, &path(&task), "").json(&ruling("refund"));
    expect_problem(&ringfence_testkit::send(nobody).await, 401, "unauthorized");
    for (body, code) in [
        (json!({ "outcome": "refund" }), "invalid_body"),
        (json!({ "outcome": "refund", "reason": "" }), "invalid_fields"),
        (json!({ "outcome": "release", "reason": "x" }), "invalid_body"),
    ] {
        expect_problem(&client.post(&path(&task), &market.operator, &body).await, 422, code);
    }
}

async fn m9_a_verdict_between_ends_the_row(engine: Engine) {
    let host = host(engine).await;
    let market = market(&host).await;
    let task = market.funded(json!({})).await;
    market.claim(&market.worker, &task).await;
    for content in [nonsense(), nonsense(), json!({ "score": 1, "passed": false }), nonsense(), nonsense()] {
        let _ = judged(&market, &market.worker, &task, &content).await;
    }
    assert_eq!(job(&market, &task).await["escrow_status"], "held");
    assert_eq!(judged(&market, &market.worker, &task, &good()).await["status"], "passed");
}

async fn m9_a_dispute_is_refunded_once(engine: Engine) {
    let host = host(engine).await;
    let market = market(&host).await;
    let client = &market.client;
    let task = disputed(&market, json!({ "price": "30" })).await;
    assert_eq!(market.balance(&market.buyer.key).await, "70.000000");
    let (path, refund, resume) = (path(&task), ruling("refund"), ruling("resume"));
    let first = client.post_once(&path, &market.operator, "d", &refund).await;
    assert_eq!(client.post_once(&path, &market.operator, "d", &refund).await.expect(200), first.expect(200));
    let ended = job(&market, &task).await;
    assert_eq!(
        (ended["status"].as_str(), ended["escrow_status"].as_str(), ended["refunded_amount"].as_str()),
        (Some("cancelled"), Some("refunded"), Some("30.000000")),
        "{ended}"
    );
    for ruling in [&refund, &resume] {
        expect_problem(&client.post(&path, &market.operator, ruling).await, 409, "job_not_disputed");
    }
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000", "once");
    assert_eq!(events(&host, &task, "job.dispute_resolved").await, 1);
    assert_eq!(events(&host, &task, "job.cancelled").await, 1);
    let log = client.get("/audit?action=disputes:resolve", &market.operator).await;
    assert!(log.text.contains("does not read what the rubric asks for"), "{}", log.text);

    // Of many decisions at once one counts.
    let task = disputed(&market, json!({ "price": "30" })).await;
    let path = self::path(&task);
    let rulings = (0..8).map(|number| if number % 2 == 0 { &refund } else { &resume });
    let answers = rulings.map(|ruling| client.post(&path, &market.operator, ruling));
    let answers = futures::future::join_all(answers).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 409)));
}

async fn m9_a_resumed_job_goes_on(engine: Engine) {
    let host = host(engine).await;
    let market = market(&host).await;
    let task = disputed(&market, json!({})).await;
    let resumed = market.client.post(&path(&task), &market.operator, &ruling("resume")).await.expect(200);
    assert_eq!(
        (resumed["status"].as_str(), resumed["escrow_status"].as_str()),
        (Some("funded"), Some("held"))
    );
    // The row begins anew, and whoever had a claim has it still.
    for _ in 0..2 {
        let _ = judged(&market, &market.worker, &task, &nonsense()).await;
    }
    assert_eq!(job(&market, &task).await["escrow_status"], "held");
    assert_eq!(judged(&market, &market.worker, &task, &good()).await["status"], "passed");
    assert_eq!(job(&market, &task).await["escrow_status"], "released");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

async fn m9_a_disputed_job_expires_when_it_is_resumed(engine: Engine) {
    let host = host(engine).await;
    let market = market(&host).await;
    let task = disputed(&market, json!({})).await;
    super::run_out(&host, &task).await;
    // When the expiry has left the queue, it has found the dispute.
    let queued = format!("queue WHERE kind = 'expire' AND subject_id = '{task}'");
    let begun = Instant::now();
    while host.database().count(&queued).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let state = job(&market, &task).await;
    assert_eq!(
        (state["status"].as_str(), state["escrow_status"].as_str()),
        (Some("funded"), Some("disputed"))
    );
    let _ = market.client.post(&path(&task), &market.operator, &ruling("resume")).await.expect(200);
    while job(&market, &task).await["status"] != "expired" {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", host.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
}

/// What is in front of the oracle when the job goes to dispute is neither lost nor judged before a person has decided.
async fn m9_what_was_being_judged_waits_for_the_decision(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 60_000 } });
    let slow = Market::deploy(&market.client, &market.buyer, "hostile/oracle-slow", limits).await;
    for (outcome, ended) in [("resume", "passed"), ("refund", "closed")] {
        let task = market.funded(json!({ "oracle": slow, "input": 1_500_000_000u64 })).await;
        market.claim(&market.worker, &task).await;
        let submission = market.submit(&market.worker, &task, &json!(1)).await;
        let dispute =
            format!("UPDATE jobs SET escrow_status = 'disputed' WHERE id = '{task}' AND status = 'funded'");
        assert_eq!(
            host.database().meddle(&dispute).await,
            Ok(1),
            "the oracle was too quick to show anything"
        );
        let queued = format!("queue WHERE kind = 'evaluate' AND subject_id = '{submission}'");
        let begun = Instant::now();
        while host.database().count(&queued).await > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", host.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let path = format!("/submissions/{submission}");
        let waiting = market.client.get(&path, &market.worker.key).await.expect(200);
        assert_eq!(waiting["status"], "judging", "{waiting}");
        let _ = market.client.post(&self::path(&task), &market.operator, &ruling(outcome)).await.expect(200);
        let verdict = market.verdict(&market.worker, &submission).await;
        assert_eq!(verdict["status"], ended, "{verdict}");
    }
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000", "one was paid, and one came back");
}
