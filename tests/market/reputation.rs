//! Reputation (M17), and the gate of a claim (M7).

use ringfence_testkit::{Agent, Client, Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::{ACCEPTS, REFUSES, judged, right, soon, strict, until};
use crate::host;

on_both_engines!(
    a_win_is_counted_for_worker_and_buyer,
    a_job_fails_with_the_last_attempt,
    withdrawing_after_a_failure_counts_once,
    an_expiry_counts_for_those_who_had_failed,
    a_win_takes_the_place_of_a_failure,
    what_is_not_the_workers_doing_does_not_count,
    the_gate_of_a_claim,
    the_leaderboard_ranks,
    many_jobs_of_the_same_people_end_at_once,
);

async fn of(client: &Client, agent: &Agent) -> Value {
    client.get(&format!("/agents/{}/reputation", agent.id), &agent.key).await.expect(200)
}

/// Won, failed, submissions passed, submissions failed, rate.
async fn sums(client: &Client, agent: &Agent) -> [Option<u64>; 5] {
    let seen = of(client, agent).await;
    ["jobs_won", "jobs_failed", "submissions_passed", "submissions_failed", "completion_rate"]
        .map(|field| seen[field].as_u64())
}

const fn counted(won: u64, failed: u64, passed: u64, refused: u64, rate: Option<u64>) -> [Option<u64>; 5] {
    [Some(won), Some(failed), Some(passed), Some(refused), rate]
}

async fn unclaim(market: &Market, worker: &Agent, job: &str) {
    let _ = market.client.post_empty(&format!("/jobs/{job}/unclaim"), &worker.key).await.expect(200);
}

async fn a_win_is_counted_for_worker_and_buyer(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let client = &market.client;
    let before = of(client, &market.worker).await;
    assert_eq!(before["completion_rate"], Value::Null, "no history");
    assert_eq!((&before["history"], before["earned"].as_str()), (&json!([]), Some("0.000000")));
    let job = market.funded(strict(json!({ "title": "Sums" }))).await;
    market.claim(&market.worker, &job).await;
    assert_eq!(judged(&market, &market.worker, &job, &json!("nonsense")).await, "failed");
    assert_eq!(sums(client, &market.worker).await, counted(0, 0, 0, 1, None), "it may try again");
    assert_eq!(judged(&market, &market.worker, &job, &right()).await, "passed");
    assert_eq!(sums(client, &market.worker).await, counted(1, 0, 1, 1, Some(100)));
    let (worker, buyer) = (of(client, &market.worker).await, of(client, &market.buyer).await);
    assert_eq!((worker["earned"].as_str(), worker["spent"].as_str()), (Some("8.000000"), Some("0.000000")));
    assert_eq!((buyer["earned"].as_str(), buyer["spent"].as_str()), (Some("0.000000"), Some("10.000000")));
    assert_eq!(buyer["completion_rate"], Value::Null);
    let finished = &worker["history"][0];
    assert_eq!(
        (finished["task_id"].as_str(), finished["outcome"].as_str(), finished["earned"].as_str()),
        (Some(&*job), Some("won"), Some("8.000000"))
    );
    assert_eq!((finished["title"].as_str(), worker["history"].as_array().unwrap().len()), (Some("Sums"), 1));
    let profile = client.get(&format!("/agents/{}", market.worker.id), &market.worker.key).await.expect(200);
    assert_eq!(worker["since"], profile["created_at"]);
    let nobody = format!("/agents/{}/reputation", market.worker.id.replace("agent_0", "agent_7"));
    expect_problem(&client.get(&nobody, &market.buyer.key).await, 404, "agent_not_found");
}

async fn a_job_fails_with_the_last_attempt(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let job = market.funded(strict(json!({ "max_retries": 2 }))).await;
    market.claim(&market.worker, &job).await;
    for attempt in 1..=3 {
        assert_eq!(judged(&market, &market.worker, &job, &json!(attempt)).await, "failed");
        let (failed, rate) = if attempt == 3 { (1, Some(0)) } else { (0, None) };
        assert_eq!(sums(&market.client, &market.worker).await, counted(0, failed, 0, attempt, rate));
    }
    assert_eq!(of(&market.client, &market.worker).await["history"][0]["outcome"], "failed");
    // What ends afterwards is the same job.
    unclaim(&market, &market.worker, &job).await;
    assert_eq!(sums(&market.client, &market.worker).await, counted(0, 1, 0, 3, Some(0)));
}

async fn withdrawing_after_a_failure_counts_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let job = market.funded(strict(json!({ "max_retries": 5 }))).await;
    market.claim(&market.worker, &job).await;
    unclaim(&market, &market.worker, &job).await;
    assert_eq!(sums(&market.client, &market.worker).await, counted(0, 0, 0, 0, None), "it handed in nothing");
    for round in 1..=3 {
        market.claim(&market.worker, &job).await;
        assert_eq!(judged(&market, &market.worker, &job, &json!(round)).await, "failed");
        unclaim(&market, &market.worker, &job).await;
        assert_eq!(sums(&market.client, &market.worker).await, counted(0, 1, 0, round, Some(0)), "once");
    }
}

async fn an_expiry_counts_for_those_who_had_failed(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let client = &market.client;
    let [tried, idle, left] = ["Tried", "Idle", "Left"].map(|name| Market::register(client, name));
    let (tried, idle, left) = (tried.await, idle.await, left.await);
    let job = market.funded(strict(json!({ "expiry": soon(6), "max_retries": 9 }))).await;
    for worker in [&tried, &idle, &left] {
        market.claim(worker, &job).await;
    }
    for worker in [&tried, &left] {
        assert_eq!(judged(&market, worker, &job, &json!("nonsense")).await, "failed");
    }
    unclaim(&market, &left, &job).await;
    until(&market, &job, "expired").await;
    assert_eq!(sums(client, &tried).await, counted(0, 1, 0, 1, Some(0)));
    assert_eq!(sums(client, &left).await, counted(0, 1, 0, 1, Some(0)), "it was counted when it left");
    assert_eq!(sums(client, &idle).await, counted(0, 0, 0, 0, None), "it handed in nothing");
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
}

async fn a_win_takes_the_place_of_a_failure(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let job = market.funded(strict(json!({}))).await;
    market.claim(&market.worker, &job).await;
    assert_eq!(judged(&market, &market.worker, &job, &json!("nonsense")).await, "failed");
    unclaim(&market, &market.worker, &job).await;
    assert_eq!(sums(&market.client, &market.worker).await, counted(0, 1, 0, 1, Some(0)));
    market.claim(&market.worker, &job).await;
    assert_eq!(judged(&market, &market.worker, &job, &right()).await, "passed");
    assert_eq!(sums(&market.client, &market.worker).await, counted(1, 0, 1, 1, Some(100)));
    let history = of(&market.client, &market.worker).await["history"].clone();
    assert_eq!((history.as_array().unwrap().len(), &history[0]["outcome"]), (1, &json!("won")));
}

async fn what_is_not_the_workers_doing_does_not_count(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let client = &market.client;
    let nothing = counted(0, 0, 0, 1, None);
    // Another's win.
    let job = market.funded(strict(json!({}))).await;
    let rival = Market::register(client, "Rival").await;
    for worker in [&market.worker, &rival] {
        market.claim(worker, &job).await;
    }
    assert_eq!(judged(&market, &market.worker, &job, &json!("nonsense")).await, "failed");
    assert_eq!(judged(&market, &rival, &job, &right()).await, "passed");
    assert_eq!(sums(client, &market.worker).await, nothing);
    // The buyer's cancellation.
    let job = market.funded(strict(json!({}))).await;
    let fresh = Market::register(client, "Fresh").await;
    market.claim(&fresh, &job).await;
    assert_eq!(judged(&market, &fresh, &job, &json!("nonsense")).await, "failed");
    let _ = client.post_empty(&format!("/jobs/{job}/cancel"), &market.buyer.key).await.expect(200);
    assert_eq!(sums(client, &fresh).await, nothing);
    // An oracle that cannot judge.
    let fault = Market::deploy(client, &market.buyer, "hostile/oracle-fault", json!({})).await;
    let job = market.funded(json!({ "oracle": fault, "max_retries": 0 })).await;
    let other = Market::register(client, "Other").await;
    market.claim(&other, &job).await;
    let submission = market.submit(&other, &job, &json!(1)).await;
    assert_eq!(market.verdict(&other, &submission).await["oracle_fault"], "failed");
    unclaim(&market, &other, &job).await;
    assert_eq!(sums(client, &other).await, counted(0, 0, 0, 0, None));
}

async fn the_gate_of_a_claim(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let (client, worker) = (&market.client, &market.worker);
    let gated = market.funded(strict(json!({ "min_reputation": 50, "price": "1" }))).await;
    let claim = format!("/jobs/{gated}/claim");
    let refused = client.post_empty(&claim, &worker.key).await;
    expect_problem(&refused, 403, "reputation_too_low");
    let detail = refused.text_at("/detail");
    assert!(detail.contains("50") && detail.contains("not there yet"), "{detail}");
    // One of three is 33, two of four are 50.
    for (content, times) in [(json!("nonsense"), 2), (right(), 1)] {
        for _ in 0..times {
            let job = market.funded(strict(json!({ "max_retries": 0, "price": "1" }))).await;
            market.claim(worker, &job).await;
            judged(&market, worker, &job, &content).await;
        }
    }
    let refused = client.post_empty(&claim, &worker.key).await;
    expect_problem(&refused, 403, "reputation_too_low");
    assert!(refused.text_at("/detail").contains("yours is 33"), "rounded down: {}", refused.text);
    let job = market.funded(strict(json!({ "price": "1" }))).await;
    market.claim(worker, &job).await;
    assert_eq!(judged(&market, worker, &job, &right()).await, "passed");
    market.claim(worker, &gated).await;
    // The gate is one of claims: who has claimed may hand in, whatever happens elsewhere.
    let other = market.funded(strict(json!({ "max_retries": 0, "price": "1" }))).await;
    market.claim(worker, &other).await;
    assert_eq!(judged(&market, worker, &other, &json!("nonsense")).await, "failed");
    assert_eq!(judged(&market, worker, &gated, &right()).await, "passed");
}

async fn the_leaderboard_ranks(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let client = &market.client;
    let mut workers = Vec::new();
    // Wins, failures and the price of the wins: by earnings c b a, by wins a b c, by rate b (100), c (100), a.
    for (name, wins, failures, price) in
        [("a", 3, 1, "1"), ("b", 2, 0, "5"), ("c", 1, 0, "20"), ("d", 0, 1, "1")]
    {
        let worker = Market::register(client, name).await;
        for number in 0..wins + failures {
            let job = market.funded(strict(json!({ "price": price, "max_retries": 0 }))).await;
            market.claim(&worker, &job).await;
            let content = if number < wins { right() } else { json!("nonsense") };
            judged(&market, &worker, &job, &content).await;
        }
        workers.push(worker);
    }
    for (query, expected) in [
        ("", "cbad"),
        ("sort_by=earned", "cbad"),
        ("sort_by=jobs_won", "abcd"),
        ("sort_by=completion_rate", "bcad"),
        ("sort_by=jobs_won&limit=2&offset=1", "bc"),
        ("offset=4", ""),
    ] {
        let list = client.get(&format!("/leaderboard?{query}"), &market.worker.key).await.expect(200);
        let names = list["agents"].as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap());
        assert_eq!(names.collect::<String>(), expected, "{query}");
        assert_eq!(list["total"], 4, "those without a finished job are not in it");
    }
    for query in ["limit=0", "limit=201", "sort_by=spent", "colour=red", "offset=-1"] {
        let answer = client.get(&format!("/leaderboard?{query}"), &market.worker.key).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text);
    }
}

/// Each verdict changes the reputation of the worker, the buyer and others: none waits for one that waits for it.
async fn many_jobs_of_the_same_people_end_at_once(engine: Engine) {
    let host = host(engine).await;
    let (one, two) = (Market::new(&host, ACCEPTS).await, Market::new(&host, ACCEPTS).await);
    let client = &one.client;
    let mut submissions = Vec::new();
    // Each buyer works for the other.
    for _ in 0..8 {
        for (market, worker) in [(&one, &two.buyer), (&two, &one.buyer)] {
            let job = market.funded(json!({ "price": "1" })).await;
            market.claim(worker, &job).await;
            submissions.push((worker, job));
        }
    }
    let content = json!({ "content": 1 });
    let all = submissions.iter().map(|(worker, job)| {
        let (path, content) = (format!("/jobs/{job}/submit"), &content);
        async move { client.post(&path, &worker.key, content).await }
    });
    for ((worker, _), answer) in submissions.iter().zip(futures::future::join_all(all).await) {
        let verdict = one.verdict(worker, answer.text_at("/submission_id")).await;
        assert_eq!(verdict["status"], "passed", "{verdict}");
    }
    for market in [&one, &two] {
        let seen = of(client, &market.buyer).await;
        assert_eq!((&seen["jobs_won"], seen["earned"].as_str()), (&json!(8), Some("6.400000")));
        assert_eq!(seen["spent"], "8.000000");
    }
    assert!(!host.log().contains("deadlock"), "{}", host.log());
}
