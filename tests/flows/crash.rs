//! kill −9 at the worst moments: the job ends as it would have, and nothing happens twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_testkit::{Agent, Client, Engine, Market, on_both_engines};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::{host, ledger_holds};

on_both_engines!(a_crash_between_submission_and_verdict, crashes_at_random_under_load);

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

/// Drivers at once, the jobs of each, and how often the host is killed meanwhile.
const DRIVERS: usize = 8;
const JOBS: usize = 6;
const KILLS: u64 = 6;

/// The host at its address of now.
type Current = Arc<RwLock<Client>>;

/// Asks until there is an answer, under one `Idempotency-Key`.
async fn insist(host: &Current, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let begun = Instant::now();
    loop {
        let client = host.read().await.clone();
        let request = client.request(Method::POST, path, key).header("idempotency-key", path).json(body);
        let answer = async {
            let answer = request.timeout(Duration::from_secs(20)).send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
        };
        match answer.await {
            // A database that is busy, or the first request, which still holds the key.
            Ok((503, _)) => {}
            Ok((409, text)) if text.contains("idempotency_key_in_use") => {}
            Ok((status, text)) => return (status, serde_json::from_str(&text).unwrap_or(Value::Null)),
            Err(_) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{path} is not answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Funds, claims and submits, one job after the other.
async fn drive(host: Current, buyer: Agent, worker: Agent, jobs: Vec<String>) {
    for job in jobs {
        let (status, funded) = insist(&host, &format!("/jobs/{job}/fund"), &buyer.key, &json!({})).await;
        assert_eq!(status, 200, "{funded}");
        let (status, claim) = insist(&host, &format!("/jobs/{job}/claim"), &worker.key, &json!({})).await;
        assert!(status == 201 || claim["code"] == "already_claimed", "{claim}");
        let (status, made) =
            insist(&host, &format!("/jobs/{job}/submit"), &worker.key, &json!({ "content": job })).await;
        assert_eq!(status, 202, "{made}");
    }
}

async fn crashes_at_random_under_load(engine: Engine) {
    let mut host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let mut drivers = Vec::new();
    let (current, mut all) = (Arc::new(RwLock::new(host.client())), Vec::new());
    for number in 0..DRIVERS {
        let worker = Market::register(&market.client, &format!("Worker {number}")).await;
        let mut jobs = Vec::new();
        for _ in 0..JOBS {
            jobs.push(market.post(json!({ "price": "0.1" })).await);
        }
        all.extend(jobs.clone());
        drivers.push(tokio::spawn(drive(Arc::clone(&current), market.buyer.clone(), worker, jobs)));
    }
    // Not at the same moments each time: the load itself sees to that.
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(150 + number * 70)).await;
        host.kill();
        host.restart().await;
        *current.write().await = host.client();
    }
    for driver in drivers {
        driver.await.unwrap();
    }
    let client = host.client();
    for job in &all {
        let begun = Instant::now();
        loop {
            let found = client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
            if found["status"] == "resolved" {
                assert_eq!(found["payout_status"], "success", "{found}");
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let balance = async |key: &str| client.get("/ledger/balance", key).await.text_at("/available").to_owned();
    assert_eq!(balance(&market.buyer.key).await, "95.200000", "48 jobs of 0.1, each paid once");
    assert_eq!(balance(&market.operator).await, "0.960000");
    ledger_holds(&host).await;
}
