//! A late result is never written: not by a host that was frozen, not by one that lost its lease, not by one that crashed.

use std::process::Command;
use std::time::{Duration, Instant};

use ringfence_testkit::{Engine, Host, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};

use crate::{host, host_with};

on_both_engines!(g07_what_comes_after_the_lease_was_lost_is_not_written, m9_a_crash_leaves_one_verdict);

/// What a late host could have written for a job: calls, ends of submissions, transfers out of escrow.
async fn written(host: &Host, job: &str, submission: &str) -> [i64; 3] {
    let count = async |of: String| host.database().count(&of).await;
    [
        count(format!("invocations WHERE submission_id = '{submission}'")).await,
        count(format!("outbox WHERE task_id = '{job}' AND event = 'submission.completed'")).await,
        count(format!("ledger_transfers WHERE job_id = '{job}' AND kind IN ('payout', 'fee', 'refund')"))
            .await,
    ]
}

async fn until(host: &Host, what: &str, condition: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}: not within 90 s\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn leased(submission: &str) -> String {
    format!("queue WHERE kind = 'evaluate' AND subject_id = '{submission}' AND lease_until IS NOT NULL")
}

async fn slow_job(market: &Market, turns: u64) -> (String, String) {
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 100_000 } });
    let slow = Market::deploy(&market.client, &market.buyer, "hostile/oracle-slow", limits).await;
    let job = market.funded(json!({ "oracle": slow, "input": turns })).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!("work")).await;
    (job, submission)
}

/// Another host has taken the evaluation over while this one's oracle runs; then this one's verdict comes.
async fn g07_what_comes_after_the_lease_was_lost_is_not_written(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let (job, submission) = slow_job(&market, 2_000_000_000).await;
    // For longer than the oracle runs, and than the lease that was there.
    let taken = format!(
        "UPDATE queue SET attempt = attempt + 1, lease_owner = 'another', lease_until = lease_until + 10000000
        WHERE kind = 'evaluate' AND subject_id = '{submission}' AND lease_until IS NOT NULL"
    );
    until(&host, "another takes it over", async || host.database().meddle(&taken).await == Ok(1)).await;
    until(&host, "its attempt ends", async || host.log().contains("the lease was lost")).await;
    assert_eq!(written(&host, &job, &submission).await, [0, 0, 0], "nothing of it is written");
    let path = format!("/submissions/{submission}");
    assert_eq!(market.client.get(&path, &market.worker.key).await.expect(200)["status"], "judging");
    // The other one never ends: its lease does.
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(written(&host, &job, &submission).await, [1, 1, 2], "one verdict, one payout and its fee");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

async fn m9_a_crash_leaves_one_verdict(engine: Engine) {
    let mut host = host(engine).await;
    let mut market = Market::new(&host, "hostile/oracle-accept").await;
    let (job, submission) = slow_job(&market, 1_000_000_000).await;
    let leased = leased(&submission);
    until(&host, "the evaluation begins", async || host.database().count(&leased).await == 1).await;
    host.kill();
    assert_eq!(written(&host, &job, &submission).await, [0, 0, 0], "it was killed too late to show anything");
    host.restart().await;
    market.client = host.client();
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(written(&host, &job, &submission).await, [1, 1, 2], "one verdict, one payout and its fee");
}

/// A host that stands still, and goes on as if nothing had been.
struct Frozen(u32);

impl Frozen {
    fn stop(host: &Host) -> Self {
        signal("-STOP", host.pid());
        Self(host.pid())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Two hosts on one database: the first stands still for longer than its lease while its oracle runs, the second judges,
/// then the first goes on.
async fn frozen(oracle: &str, input: Value, options: HostOptions) -> (Host, Market, String, String, Value) {
    let first = host_with(Engine::Postgres, options).await;
    let market = Market::new(&first, "hostile/oracle-accept").await;
    let limits = json!({ "limits": { "fuel": 100_000_000_000u64, "wall_time_ms": 100_000 } });
    let oracle = Market::deploy(&market.client, &market.buyer, oracle, limits).await;
    let job = market.funded(json!({ "oracle": oracle, "input": input })).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!("work")).await;
    let leased = leased(&submission);
    until(&first, "the evaluation begins", async || first.database().count(&leased).await == 1).await;
    let standing = Frozen::stop(&first);
    let second = first.another().await;
    let market = Market { client: second.client(), ..market };
    let verdict = market.verdict(&market.worker, &submission).await;
    let before = written(&second, &job, &submission).await;
    drop(standing);
    // Or, if it was stopped within a transaction, that the database has hung up on it meanwhile.
    let ended = async || {
        ["the lease was lost", "a task of the queue failed"].iter().any(|line| first.log().contains(line))
    };
    until(&first, "the first host finds its lease lost", ended).await;
    assert_eq!(written(&second, &job, &submission).await, before, "nothing late is written");
    let market = Market { client: first.client(), ..market };
    let path = format!("/submissions/{submission}");
    let after = market.client.get(&path, &market.worker.key).await.expect(200);
    assert_eq!(after, verdict, "what was decided stays");
    (first, market, job, submission, verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g07_a_frozen_hosts_verdict_is_not_written() {
    let (host, market, job, submission, verdict) =
        frozen("hostile/oracle-slow", json!(1_000_000_000u64), HostOptions::default()).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    assert_eq!(written(&host, &job, &submission).await, [1, 1, 2], "one verdict, one payout and its fee");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g07_a_frozen_hosts_timeout_is_not_written() {
    let env = vec![("ORACLE_TIMEOUT_SECONDS".to_owned(), "1".to_owned())];
    let options = HostOptions { env, ..HostOptions::default() };
    let (host, market, job, submission, verdict) = frozen("hostile/oracle-spin", Value::Null, options).await;
    assert_eq!(verdict["reason"], "Evaluation timed out", "{verdict}");
    assert_eq!(written(&host, &job, &submission).await, [2, 1, 0], "the second host asked it twice");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000", "the escrow is held");
}
