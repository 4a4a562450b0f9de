use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::{ACCEPTS, REFUSES, judged, right, slow, strict, told, until};
use crate::host;

on_both_engines!(
    g05_unclaim_succeeds_and_the_job_can_be_claimed_again,
    g05_unclaim_with_a_judging_submission_is_400,
    g05_unclaim_without_a_claim_is_404,
    g05_unclaim_from_an_ended_job_is_400,
    g05_attempts_used_before_an_unclaim_still_count,
    g05_unclaim_and_submit_at_once_leave_no_orphan,
    g10_participants_keep_their_history,
    g10_participants_are_told_to_the_parties,
    own_jobs_cannot_be_claimed,
);

async fn g05_unclaim_succeeds_and_the_job_can_be_claimed_again(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, worker) = (&market.client, &market.worker);
    let job = market.funded(json!({ "input": 7 })).await;
    let path = format!("/jobs/{job}/unclaim");
    market.claim(worker, &job).await;
    let done = client.post(&path, &worker.key, &json!({ "worker_id": worker.id })).await.expect(200);
    assert_eq!(done, json!({ "status": "unclaimed", "task_id": job, "worker_id": worker.id }));
    assert_eq!(told(&host, &job).await.last().unwrap(), "job.unclaimed");
    // What the claim gave is gone with it.
    expect_problem(&client.get(&format!("/jobs/{job}/input"), &worker.key).await, 403, "not_claimed");
    let submit = client.post(&format!("/jobs/{job}/submit"), &worker.key, &json!({ "content": 1 })).await;
    expect_problem(&submit, 403, "not_claimed");
    expect_problem(&client.post_empty(&path, &worker.key).await, 404, "not_claimed");
    market.claim(worker, &job).await;
    assert_eq!(judged(&market, worker, &job, &json!(1)).await, "passed");
}

async fn g05_unclaim_with_a_judging_submission_is_400(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let job = market.funded(slow(&market).await).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    let refused = market.client.post_empty(&format!("/jobs/{job}/unclaim"), &market.worker.key).await;
    expect_problem(&refused, 400, "submission_judging");
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed", "it goes on");
}

async fn g05_unclaim_without_a_claim_is_404(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    for job in [market.post(json!({})).await, market.funded(json!({})).await] {
        let path = format!("/jobs/{job}/unclaim");
        expect_problem(&client.post_empty(&path, &market.worker.key).await, 404, "not_claimed");
        expect_problem(&client.post_empty(&path, &market.buyer.key).await, 404, "not_claimed");
        expect_problem(&client.post_empty(&path, &market.operator).await, 403, "agent_only");
    }
    let nothing = "/jobs/job_7ZZZZZZZZZZZZZZZZZZZZZZZZZ/unclaim";
    expect_problem(&client.post_empty(nothing, &market.worker.key).await, 404, "job_not_found");
}

async fn g05_unclaim_from_an_ended_job_is_400(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let resolved = market.funded(json!({})).await;
    let cancelled = market.funded(json!({})).await;
    let expired = market.funded(json!({})).await;
    for job in [&resolved, &cancelled, &expired] {
        market.claim(&market.worker, job).await;
    }
    assert_eq!(judged(&market, &market.worker, &resolved, &json!(1)).await, "passed");
    let _ = client.post_empty(&format!("/jobs/{cancelled}/cancel"), &market.buyer.key).await.expect(200);
    super::run_out(&host, &expired).await;
    until(&market, &expired, "expired").await;
    for (job, code) in [(&resolved, "job_resolved"), (&cancelled, "job_cancelled"), (&expired, "job_expired")]
    {
        let refused = client.post_empty(&format!("/jobs/{job}/unclaim"), &market.worker.key).await;
        expect_problem(&refused, 400, code);
    }
}

async fn g05_attempts_used_before_an_unclaim_still_count(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let (client, worker) = (&market.client, &market.worker);
    let job = market.funded(strict(json!({ "max_retries": 1 }))).await;
    for _ in 0..2 {
        market.claim(worker, &job).await;
        assert_eq!(judged(&market, worker, &job, &json!("nonsense")).await, "failed");
        let _ = client.post_empty(&format!("/jobs/{job}/unclaim"), &worker.key).await.expect(200);
    }
    market.claim(worker, &job).await;
    let third =
        client.post(&format!("/jobs/{job}/submit"), &worker.key, &json!({ "content": right() })).await;
    expect_problem(&third, 409, "attempts_used");
}

/// Whichever comes first, no submission is judged of a worker who has withdrawn.
async fn g05_unclaim_and_submit_at_once_leave_no_orphan(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, worker) = (&market.client, &market.worker);
    let more = slow(&market).await;
    let mut outcomes = Vec::new();
    for _ in 0..8 {
        let job = market.funded(more.clone()).await;
        market.claim(worker, &job).await;
        let (unclaim, submit) = (format!("/jobs/{job}/unclaim"), format!("/jobs/{job}/submit"));
        let content = json!({ "content": 1 });
        let (unclaimed, submitted) = tokio::join!(
            client.post_empty(&unclaim, &worker.key),
            client.post(&submit, &worker.key, &content)
        );
        outcomes.push((unclaimed.status, submitted.status));
    }
    let possible = [(200, 403), (400, 202)];
    assert!(outcomes.iter().all(|outcome| possible.contains(outcome)), "{outcomes:?}");
}

async fn g10_participants_keep_their_history(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let (client, worker) = (&market.client, &market.worker);
    let job = market.funded(strict(json!({}))).await;
    let path = format!("/jobs/{job}/participants");
    let rival = Market::register(client, "Rival").await;
    market.claim(worker, &job).await;
    market.claim(&rival, &job).await;
    assert_eq!(judged(&market, worker, &job, &json!("nonsense")).await, "failed");
    let _ = client.post_empty(&format!("/jobs/{job}/unclaim"), &worker.key).await.expect(200);
    market.claim(worker, &job).await;
    let all = client.get(&path, &market.buyer.key).await.expect(200);
    let rows: Vec<_> = all["participants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["worker_id"].as_str().unwrap(), row["unclaimed_at"].is_null(), &row["attempts"]))
        .collect();
    let (one, none) = (&json!(1), &json!(0));
    let (worker_id, rival_id) = (worker.id.as_str(), rival.id.as_str());
    assert_eq!(rows, [(worker_id, false, one), (rival_id, true, none), (worker_id, true, one)]);
    assert_eq!(all["total"], 3);
    let page = client.get(&format!("{path}?limit=1&offset=1"), &market.buyer.key).await.expect(200);
    assert_eq!((&page["total"], page["participants"][0]["worker_id"].as_str()), (&json!(3), Some(rival_id)));
    // Who has withdrawn is still found by the jobs that it has claimed at some time.
    let _ = client.post_empty(&format!("/jobs/{job}/unclaim"), &rival.key).await.expect(200);
    let claimed = client.get(&format!("/jobs?worker_id={rival_id}"), &rival.key).await.expect(200);
    assert_eq!(claimed["jobs"][0]["task_id"], job.as_str());
}

async fn g10_participants_are_told_to_the_parties(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let job = market.funded(json!({})).await;
    let path = format!("/jobs/{job}/participants");
    let (rival, stranger) =
        (Market::register(client, "Rival").await, Market::register(client, "Stranger").await);
    for worker in [&market.worker, &rival] {
        market.claim(worker, &job).await;
    }
    let workers = |list: Value| {
        let rows = list["participants"].as_array().unwrap().clone();
        rows.iter().map(|row| row["worker_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for key in [&market.buyer.key, &market.operator] {
        let all = workers(client.get(&path, key).await.expect(200));
        assert_eq!(all, [market.worker.id.clone(), rival.id.clone()]);
    }
    let own = workers(client.get(&path, &rival.key).await.expect(200));
    assert_eq!(own, [rival.id.as_str()], "its own");
    expect_problem(&client.get(&path, &stranger.key).await, 403, "not_a_participant");
}

/// An org is not paid by itself: neither the buyer nor another agent of its org takes part.
async fn own_jobs_cannot_be_claimed(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let org = client.who_is(&market.buyer.key).await["org_id"].as_str().unwrap().to_owned();
    let root = host.first_admin().await.access;
    client.make_user(&root, (&org, "admin"), "ada@example.test").await;
    let admin = client.log_in("ada@example.test").await.access;
    let second = client.post("/agents", &admin, &json!({ "name": "Second" })).await.expect(201);
    let job = market.funded(json!({})).await;
    for key in [market.buyer.key.as_str(), second["api_key"].as_str().unwrap()] {
        let answer = client.post_empty(&format!("/jobs/{job}/claim"), key).await;
        expect_problem(&answer, 403, "own_job");
    }
}
