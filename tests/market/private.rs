//! Private jobs (M7): to all but their parties there is no such job.

use reqwest::Method;
use ringfence_testkit::{Agent, Answer, Engine, Market, expect_problem, on_both_engines, send};
use serde_json::{Value, json};

use super::{ACCEPTS, job, judged};
use crate::host;

on_both_engines!(
    a_private_job_is_there_for_its_parties_alone,
    a_private_job_is_in_no_public_listing,
    the_private_listing_has_each_job_once,
    further_agents_can_be_invited,
    invitations_are_checked,
);

async fn private(market: &Market, invited: &[&Agent]) -> String {
    let ids: Vec<_> = invited.iter().map(|agent| &agent.id).collect();
    market.funded(json!({ "visibility": "private", "invited": ids, "input": 7, "price": "1" })).await
}

/// What someone gets who tries everything with a job.
async fn everything(market: &Market, who: &str, job: &str, submission: &str) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    for (method, path, body) in [
        (Method::GET, format!("/jobs/{job}"), json!({})),
        (Method::GET, format!("/jobs/{job}/input"), json!({})),
        (Method::GET, format!("/jobs/{job}/participants"), json!({})),
        (Method::GET, format!("/jobs/{job}/submissions"), json!({})),
        (Method::GET, format!("/submissions/{submission}"), json!({})),
        (Method::POST, format!("/jobs/{job}/claim"), json!({})),
        (Method::POST, format!("/jobs/{job}/submit"), json!({ "content": 1 })),
        (Method::POST, format!("/jobs/{job}/unclaim"), json!({})),
        (Method::POST, format!("/jobs/{job}/fund"), json!({})),
        (Method::POST, format!("/jobs/{job}/cancel"), json!({})),
        (Method::PATCH, format!("/jobs/{job}"), json!({ "title": "Mine" })),
    ] {
        let request = market.client.request(method.clone(), &path, who);
        let request = if method == Method::GET { request } else { request.json(&body) };
        answers.push((format!("{method} {path}"), send(request).await));
    }
    answers
}

async fn a_private_job_is_there_for_its_parties_alone(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let stranger = Market::register(client, "Stranger").await;
    let id = private(&market, &[&market.worker]).await;
    assert_eq!(job(&market, &id).await["visibility"], "private");
    let (worker, path) = (&market.worker, format!("/jobs/{id}"));
    assert_eq!(client.get(&path, &worker.key).await.expect(200)["task_id"], id.as_str());
    assert_eq!(client.get(&path, &market.operator).await.expect(200)["task_id"], id.as_str());
    market.claim(worker, &id).await;
    assert_eq!(client.get(&format!("{path}/input"), &worker.key).await.expect(200), 7);
    let submission = market.submit(worker, &id, &json!("work")).await;
    for (what, answer) in everything(&market, &stranger.key, &id, &submission).await {
        assert_eq!(answer.status, 404, "{what}: {}", answer.text);
        assert!(!answer.text.contains("private"), "{what}: {}", answer.text);
    }
    assert_eq!(market.verdict(worker, &submission).await["status"], "passed");
    assert_eq!(market.balance(&worker.key).await, "0.800000");
    expect_problem(
        &client.get(&format!("/submissions/{submission}"), &stranger.key).await,
        404,
        "submission_not_found",
    );
    let _ = client.get(&format!("/submissions/{submission}"), &market.buyer.key).await.expect(200);
    // Its sums are counted, the job itself is not told.
    let seen = client.get(&format!("/agents/{}/reputation", worker.id), &stranger.key).await.expect(200);
    assert_eq!((&seen["jobs_won"], &seen["history"]), (&json!(1), &json!([])));
}

async fn a_private_job_is_in_no_public_listing(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = private(&market, &[&market.worker]).await;
    market.claim(&market.worker, &id).await;
    let public = market.funded(json!({})).await;
    let filters = [
        String::new(),
        "visibility=public".to_owned(),
        format!("buyer_id={}", market.buyer.id),
        "status=funded&sort_by=price".to_owned(),
    ];
    for key in [&market.buyer.key, &market.worker.key, &market.operator] {
        for filter in &filters {
            let list = market.client.get(&format!("/jobs?{filter}"), key).await.expect(200);
            assert_eq!((&list["total"], list["jobs"][0]["task_id"].as_str()), (&json!(1), Some(&*public)));
        }
        let claimed = format!("/jobs?worker_id={}", market.worker.id);
        assert_eq!(market.client.get(&claimed, key).await.expect(200)["total"], 0);
    }
}

async fn the_private_listing_has_each_job_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    // Two agents of one org, both invited.
    let org = client.who_is(&market.worker.key).await["org_id"].as_str().unwrap().to_owned();
    let root = host.first_admin().await.access;
    client.make_user(&root, (&org, "admin"), "ada@example.test").await;
    let admin = client.log_in("ada@example.test").await.access;
    let second = client.post("/agents", &admin, &json!({ "name": "Second" })).await;
    let second = Agent { id: second.text_at("/agent_id").into(), key: second.text_at("/api_key").into() };
    let third = client.post("/agents", &admin, &json!({ "name": "Third" })).await;
    let both = private(&market, &[&market.worker, &second]).await;
    let one = private(&market, &[&market.worker]).await;
    let open = json!({ "visibility": "private", "invited": [market.worker.id], "artifact_type": "text", "price": "3" });
    let open = market.post(open).await;
    market.post(json!({})).await;
    let stranger = Market::register(client, "Stranger").await;
    let found = |list: Value| {
        let ids =
            list["jobs"].as_array().unwrap().iter().map(|job| job["task_id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), list["total"].clone())
    };
    let all = vec![open.clone(), one.clone(), both.clone()];
    for key in [&market.buyer.key, &market.worker.key, &second.key, &admin] {
        let list = client.get("/jobs?visibility=private", key).await.expect(200);
        assert_eq!(found(list), (all.clone(), json!(3)));
    }
    for (query, expected, total) in [
        ("sort_order=asc&limit=1", vec![&both], 3),
        ("limit=1&offset=1", vec![&one], 3),
        ("status=open", vec![&open], 1),
        ("artifact_type=text&min_price=2&max_price=3", vec![&open], 1),
        ("max_price=2&status=funded", vec![&one, &both], 2),
    ] {
        let list = client.get(&format!("/jobs?visibility=private&{query}"), &market.worker.key).await;
        let expected: Vec<_> = expected.into_iter().cloned().collect();
        assert_eq!(found(list.expect(200)), (expected, json!(total)), "{query}");
    }
    for key in [&stranger.key, &market.operator] {
        let list = client.get("/jobs?visibility=private", key).await.expect(200);
        assert_eq!(found(list), (vec![], json!(0)));
    }
    let sorted = client.get("/jobs?visibility=private&sort_by=price", &market.worker.key).await;
    expect_problem(&sorted, 422, "invalid_fields");
    // All of an invited agent's org see the job; who is invited can claim it.
    let claim = client.post_empty(&format!("/jobs/{both}/claim"), third.text_at("/api_key")).await;
    expect_problem(&claim, 403, "not_invited");
    market.claim(&second, &both).await;
}

async fn further_agents_can_be_invited(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let (late, last) = (Market::register(client, "Late").await, Market::register(client, "Last").await);
    let id = private(&market, &[&market.worker]).await;
    let path = format!("/jobs/{id}");
    expect_problem(&client.get(&path, &late.key).await, 404, "job_not_found");
    let _ = client.patch(&path, &market.buyer.key, &json!({ "invite": [late.id] })).await.expect(200);
    market.claim(&late, &id).await;
    expect_problem(
        &client.patch(&path, &late.key, &json!({ "invite": [last.id] })).await,
        403,
        "not_the_buyer",
    );
    assert_eq!(judged(&market, &late, &id, &json!(1)).await, "passed");
    let ended = client.patch(&path, &market.buyer.key, &json!({ "invite": [last.id] })).await;
    expect_problem(&ended, 409, "job_resolved");
    expect_problem(&client.get(&path, &last.key).await, 404, "job_not_found");
}

async fn invitations_are_checked(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let (worker, buyer) = (&market.worker.id, &market.buyer.id);
    let nobody = worker.replace("agent_0", "agent_7");
    let many = vec![worker; 101];
    for (more, code) in [
        (json!({ "visibility": "private" }), "invalid_fields"),
        (json!({ "visibility": "private", "invited": [] }), "invalid_fields"),
        (json!({ "visibility": "private", "invited": many }), "invalid_fields"),
        (json!({ "visibility": "private", "invited": [worker, buyer] }), "invalid_fields"),
        (json!({ "visibility": "private", "invited": [nobody] }), "unknown_agent"),
        (json!({ "visibility": "private", "invited": [market.oracle] }), "invalid_body"),
        (json!({ "visibility": "private", "invited": worker }), "invalid_body"),
        (json!({ "visibility": "secret", "invited": [worker] }), "invalid_body"),
        (json!({ "invited": [worker] }), "invalid_fields"),
        (json!({ "visibility": "public", "invited": [worker] }), "invalid_fields"),
    ] {
        expect_problem(&client.post("/jobs", &market.buyer.key, &market.job(more)).await, 422, code);
    }
    let id = private(&market, &[&market.worker]).await;
    for (ids, code) in [(json!([buyer]), "invalid_fields"), (json!([nobody]), "unknown_agent")] {
        let answer = client.patch(&format!("/jobs/{id}"), &market.buyer.key, &json!({ "invite": ids })).await;
        expect_problem(&answer, 422, code);
    }
    // A hundred in all, however they come.
    let mut agents = Vec::new();
    for number in 0..100 {
        agents.push(Market::register(client, &format!("Agent {number}")).await.id);
    }
    let invite = |ids: &[String]| json!({ "invite": ids });
    let path = format!("/jobs/{id}");
    let _ = client.patch(&path, &market.buyer.key, &invite(&agents[..99])).await.expect(200);
    let _ = client.patch(&path, &market.buyer.key, &invite(&agents[..99])).await.expect(200);
    let full = client.patch(&path, &market.buyer.key, &invite(&agents[99..])).await;
    expect_problem(&full, 422, "invalid_fields");
}
