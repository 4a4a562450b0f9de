//! A crash between any two statements from the funding to the payout: whatever had been committed stands, the rest is done
//! once, and the ledger, the events and the queue are as if nothing had happened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_store::{Store, outbox, queue};
use ringfence_testkit::{Engine, Host, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};

use crate::{host_with, ledger_holds};

on_both_engines!(a_crash_at_every_point);

/// Hosts that go through the points at once, each through every so manieth: on PostgreSQL a host that is started again waits
/// for the leases of the one that was.
const HOSTS: usize = 6;

/// More points than there are.
const MANY: u64 = 1_000_000;

async fn a_crash_at_every_point(engine: Engine) {
    let walks = (0..HOSTS).map(|first| tokio::spawn(walk(engine, first)));
    let points: Vec<u64> =
        futures::future::join_all(walks).await.into_iter().map(|walked| walked.unwrap()).collect();
    let points: u64 = points.iter().sum();
    assert!(points >= 50, "there are statements that no crash came before: {points}");
}

/// Crashes one host at every `HOSTS`th point from `first` on, and looks at what is left; how many crashes that was.
async fn walk(engine: Engine, first: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crash");
    let env = vec![("RINGFENCE_CRASH_FILE".to_owned(), file.display().to_string())];
    let mut host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let mut jobs = Vec::new();
    // Once without a crash, so that all is loaded and compiled.
    jobs.push(lifecycle(&mut host, &market, &file, MANY).await);
    assert!(file.exists(), "a million statements?");
    let mut crashes = 0;
    for point in (first + 1..).step_by(HOSTS) {
        jobs.push(lifecycle(&mut host, &market, &file, point as u64).await);
        if file.exists() {
            // There are no more.
            break;
        }
        crashes += 1;
    }
    std::fs::remove_file(&file).unwrap();
    let count = jobs.len() as u64;
    let client = host.client();
    for (key, each) in [(&market.worker.key, 80_000), (&market.operator, 20_000)] {
        let balance = client.get("/ledger/balance", key).await;
        let micros = count * each;
        let expected = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        assert_eq!(balance.text_at("/available"), expected, "{count} jobs were paid, each once");
    }
    let reputation =
        client.get(&format!("/agents/{}/reputation", market.worker.id), &market.worker.key).await;
    let reputation = reputation.expect(200);
    let counted = (&reputation["jobs_won"], &reputation["submissions_passed"], &reputation["jobs_failed"]);
    assert_eq!(counted, (&json!(count), &json!(count), &json!(0)), "each is counted once");
    left_as_it_should_be(&host, &jobs).await;
    crashes
}

/// Funds, claims, submits and waits for the verdict, with a crash at the `point`th point; asks again whatever was not answered.
async fn lifecycle(host: &mut Host, market: &Market, file: &PathBuf, point: u64) -> String {
    let (buyer, worker) = (&market.buyer.key, &market.worker.key);
    let job = host.client().post("/jobs", buyer, &market.job(json!({ "price": "0.1" }))).await;
    let job = job.text_at("/task_id").to_owned();
    std::fs::write(file, point.to_string()).unwrap();
    let (status, funded) = insist(host, Method::POST, &format!("/jobs/{job}/fund"), buyer, None).await;
    assert_eq!(status, 200, "{funded}");
    let (status, claim) = insist(host, Method::POST, &format!("/jobs/{job}/claim"), worker, None).await;
    assert!(status == 201 || claim["code"] == "already_claimed", "{claim}");
    let work = json!({ "content": point });
    let (status, made) =
        insist(host, Method::POST, &format!("/jobs/{job}/submit"), worker, Some(&work)).await;
    assert_eq!(status, 202, "{made}");
    let submission = format!("/submissions/{}", made["submission_id"].as_str().unwrap());
    let begun = Instant::now();
    loop {
        let (_, submission) = insist(host, Method::GET, &submission, worker, None).await;
        match submission["status"].as_str() {
            Some("passed") => return job,
            Some("judging") => {}
            _ => panic!("a crash at point {point} changed the verdict: {submission}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no verdict after a crash at point {point}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks until there is an answer, under one `Idempotency-Key`; starts the host again if it is gone.
pub(crate) async fn insist(
    host: &mut Host,
    method: Method,
    path: &str,
    key: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    for _ in 0..3 {
        let mut request = host.client().request(method.clone(), path, key).header("idempotency-key", path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.text().await?))
        };
        match answer.await {
            Ok((status, text)) => return (status, serde_json::from_str(&text).unwrap_or(Value::Null)),
            Err(_) => {
                host.kill();
                host.restart().await;
            }
        }
    }
    panic!("{path} is not answered");
}

/// The ledger adds up, everything was told of once, and nothing is left to do.
async fn left_as_it_should_be(host: &Host, jobs: &[String]) {
    ledger_holds(host).await;
    let store = Store::connect(host.database().url()).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in outbox::list(&mut reader, None, 10_000).await.unwrap() {
        told.entry(event.task_id.unwrap().to_string()).or_default().push(event.event);
    }
    for job in jobs {
        let mut events = told.remove(job).unwrap_or_default();
        events.sort();
        let once = [
            "job.claimed",
            "job.created",
            "job.funded",
            "job.resolved",
            "payout.completed",
            "submission.completed",
            "submission.created",
        ];
        assert_eq!(events, once, "{job}");
    }
    for kind in ["evaluate", "expire"] {
        assert_eq!(queue::next_due(&mut reader, kind).await.unwrap(), None, "{kind}");
    }
    drop(reader);
    store.close().await;
}
