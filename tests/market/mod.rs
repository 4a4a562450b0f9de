//! The market's rules, case by case. The names of the tests carry the number of the requirement: `g05_…`.

mod access;
mod bad_input;
mod changes;
mod claims;
mod crashes;
mod dev_mode;
mod disputes;
mod escrow;
mod evaluation;
mod expiry;
mod fees_and_limits;
mod fencing;
mod guard;
mod histories;
mod idempotency;
mod listings;
mod payouts;
mod private;
mod reputation;
mod self_working;
mod solvency;
mod withdrawals;

use std::time::{Duration, Instant};

use ringfence_model::{Clock as _, SystemClock};
use ringfence_store::outbox::{self, Event};
use ringfence_testkit::{Agent, Host, Market};
use serde_json::{Value, json};

/// An oracle that accepts everything.
const ACCEPTS: &str = "hostile/oracle-accept";
/// An oracle that refuses everything but [`right`], of jobs that are [`strict`].
const REFUSES: &str = "orders-oracle";

/// A job for [`REFUSES`]; `more` adds or replaces fields.
fn strict(more: Value) -> Value {
    let mut job = json!({ "input": { "csv": "order_id,customer,date,status,amount\n" } });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

/// What [`REFUSES`] accepts.
fn right() -> Value {
    json!({ "rows": [], "counts": { "rows_read": 0, "kept": 0, "duplicates": 0, "cancelled": 0, "rejected": 0 },
        "grand_total_cents": 0, "rejected": [] })
}

/// Hands something in and waits for the verdict: `passed` or `failed`.
async fn judged(market: &Market, worker: &Agent, job: &str, content: &Value) -> String {
    let submission = market.submit(worker, job, content).await;
    let verdict = market.verdict(worker, &submission).await;
    assert!(verdict["oracle_fault"].is_null(), "{verdict}");
    verdict["status"].as_str().unwrap().to_owned()
}

/// An oracle of the market's buyer that judges for seconds, and a job for it.
async fn slow(market: &Market) -> Value {
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 60_000 } });
    let slow = Market::deploy(&market.client, &market.buyer, "hostile/oracle-slow", limits).await;
    json!({ "oracle": slow, "input": 2_000_000_000u64 })
}

/// So many seconds from now.
fn soon(seconds: u64) -> String {
    SystemClock.now().plus(Duration::from_secs(seconds)).to_string()
}

/// Lets a job's time be up now.
async fn run_out(host: &Host, job: &str) {
    for passed in [
        format!("UPDATE jobs SET expiry = created_at + 1 WHERE id = '{job}'"),
        format!("UPDATE queue SET run_at = 1 WHERE kind = 'expire' AND subject_id = '{job}'"),
    ] {
        assert_eq!(host.database().meddle(&passed).await, Ok(1));
    }
}

/// A job as its buyer sees it.
async fn job(market: &Market, job: &str) -> Value {
    market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200)
}

/// Waits until a job is in a state.
async fn until(market: &Market, id: &str, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let job = job(market, id).await;
        if job["status"] == status {
            return job;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{job}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is told of a job, in its order.
async fn events(host: &Host, job: &str) -> Vec<Event> {
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let all = outbox::list(&mut store.reader().await.unwrap(), None, 10_000).await.unwrap();
    store.close().await;
    all.into_iter().filter(|event| event.task_id.as_ref().is_some_and(|id| id.as_str() == job)).collect()
}

/// The names of [`events`].
async fn told(host: &Host, job: &str) -> Vec<String> {
    events(host, job).await.into_iter().map(|event| event.event).collect()
}
