use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(
    post_and_read,
    bad_jobs_are_refused,
    list_by_every_filter,
    funding,
    claiming,
    cancelling,
    the_oracle_is_pinned_at_funding,
    twenty_fundings_at_once
);

const ORACLE: &str = "hostile/oracle-accept";

async fn post_and_read(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    refuses_without_a_key(client, Method::POST, "/jobs").await;
    refuses_without_a_key(client, Method::GET, "/jobs").await;
    let body = market.job(
        json!({ "buyer_id": market.buyer.id, "price": "12.5", "fee_bps": 1000, "input": { "a": [1, 2.50] } }),
    );
    let job = client.post_once("/jobs", &market.buyer.key, "k", &body).await.expect(201);
    assert_eq!(
        (job["status"].as_str(), job["price"].as_str(), job["payout"].as_str()),
        (Some("open"), Some("12.500000"), Some("11.250000"))
    );
    let replay = client.post_once("/jobs", &market.buyer.key, "k", &body).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(replay.expect(201), job);
    let changed = market.job(json!({ "title": "Another" }));
    expect_problem(
        &client.post_once("/jobs", &market.buyer.key, "k", &changed).await,
        422,
        "idempotency_key_reused",
    );
    let others = client.post_once("/jobs", &market.worker.key, "k", &changed).await;
    expect_problem(&others, 422, "unknown_oracle");

    let path = format!("/jobs/{}", job["task_id"].as_str().unwrap());
    assert_eq!(client.get(&path, &market.worker.key).await.expect(200), job, "a job is an offer to all");
    let input = client.get(&format!("{path}/input"), &market.buyer.key).await;
    assert_eq!(input.text, r#"{"a":[1,2.5]}"#, "as it was posted");
    expect_problem(&client.get(&format!("{path}/input"), &market.worker.key).await, 403, "not_claimed");
    let plain = market.post(json!({})).await;
    expect_problem(&client.get(&format!("/jobs/{plain}/input"), &market.buyer.key).await, 404, "no_input");
    let nobody = plain.replace("job_0", "job_7");
    expect_problem(&client.get(&format!("/jobs/{nobody}"), &market.buyer.key).await, 404, "job_not_found");
    expect_problem(&client.get("/jobs/1", &market.buyer.key).await, 404, "no_such_id");
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000", "posting costs nothing");
}

async fn bad_jobs_are_refused(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let bot = Market::deploy(client, &market.buyer, "echo", json!({})).await;
    let theirs = Market::deploy(client, &market.worker, ORACLE, json!({})).await;
    for (more, status, code) in [
        (json!({ "title": "" }), 422, "invalid_fields"),
        (json!({ "rubric": "" }), 422, "invalid_fields"),
        (json!({ "rubric": "x".repeat(50_001) }), 422, "invalid_fields"),
        (json!({ "price": "0" }), 422, "invalid_fields"),
        (json!({ "price": "-1" }), 422, "invalid_body"),
        (json!({ "price": "0.1234567" }), 422, "invalid_body"),
        (json!({ "price": "1e2" }), 422, "invalid_body"),
        (json!({ "price": 10 }), 422, "invalid_body"),
        (json!({ "fee_bps": 10_001 }), 422, "invalid_body"),
        (json!({ "artifact_type": "A Report" }), 422, "invalid_fields"),
        (json!({ "expiry": "2020-01-01T00:00:00Z" }), 422, "invalid_fields"),
        (json!({ "expiry": "9999-01-01T00:00:00Z" }), 422, "invalid_fields"),
        (json!({ "expiry": "tomorrow" }), 422, "invalid_body"),
        (json!({ "max_submissions": 0 }), 422, "invalid_fields"),
        (json!({ "max_retries": 101 }), 422, "invalid_fields"),
        (json!({ "status": "funded" }), 422, "invalid_body"),
        (json!({ "oracle": bot }), 422, "not_an_oracle"),
        (json!({ "oracle": theirs }), 422, "unknown_oracle"),
        (json!({ "oracle": market.buyer.id }), 422, "invalid_body"),
        (json!({ "buyer_id": market.worker.id }), 403, "other_agent"),
    ] {
        let answer = client.post("/jobs", &market.buyer.key, &market.job(more)).await;
        expect_problem(&answer, status, code);
    }
    let several =
        client.post("/jobs", &market.buyer.key, &market.job(json!({ "title": "", "price": "0" }))).await;
    assert_eq!(several.body["errors"].as_array().unwrap().len(), 2, "all that is wrong at once");
    expect_problem(&client.post("/jobs", &market.operator, &market.job(json!({}))).await, 403, "agent_only");
    assert_eq!(client.get("/jobs", &market.buyer.key).await.expect(200)["total"], 0, "nothing is stored");
}

async fn list_by_every_filter(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let cheap = market.post(json!({ "price": "1", "artifact_type": "text", "expiry": later(1) })).await;
    let middle = market.funded(json!({ "price": "2", "expiry": later(3) })).await;
    let dear = market.funded(json!({ "price": "3", "expiry": later(2) })).await;
    market.claim(&market.worker, &dear).await;
    for (query, expected) in [
        (String::new(), vec![&dear, &middle, &cheap]),
        ("sort_order=asc".to_owned(), vec![&cheap, &middle, &dear]),
        ("sort_by=price&sort_order=asc".to_owned(), vec![&cheap, &middle, &dear]),
        ("sort_by=expiry".to_owned(), vec![&middle, &dear, &cheap]),
        ("status=open".to_owned(), vec![&cheap]),
        ("status=funded&sort_by=price&sort_order=desc".to_owned(), vec![&dear, &middle]),
        (format!("buyer_id={}", market.buyer.id), vec![&dear, &middle, &cheap]),
        (format!("buyer_id={}", market.worker.id), vec![]),
        (format!("worker_id={}", market.worker.id), vec![&dear]),
        ("artifact_type=text".to_owned(), vec![&cheap]),
        ("min_price=2".to_owned(), vec![&dear, &middle]),
        ("max_price=2.000000".to_owned(), vec![&middle, &cheap]),
        ("min_price=2&max_price=2".to_owned(), vec![&middle]),
        ("limit=1&offset=1".to_owned(), vec![&middle]),
    ] {
        let list = client.get(&format!("/jobs?{query}"), &market.worker.key).await.expect(200);
        let found: Vec<_> =
            list["jobs"].as_array().unwrap().iter().map(|job| job["task_id"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{query}");
        let whole = if query.contains("limit") { 3 } else { expected.len() };
        assert_eq!(list["total"], whole, "{query}");
    }
    let list = client.get("/jobs", &market.worker.key).await.expect(200);
    assert_eq!((&list["limit"], &list["offset"]), (&json!(50), &json!(0)));
    for query in [
        "limit=0",
        "limit=201",
        "offset=-1",
        "status=done",
        "sort_by=title",
        "min_price=x",
        "buyer_id=me",
        "artifact_type=%00",
        "colour=red",
    ] {
        let answer = client.get(&format!("/jobs?{query}"), &market.worker.key).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text);
    }
    expect_problem(
        &client.get("/jobs?min_price=2&max_price=1", &market.worker.key).await,
        422,
        "invalid_fields",
    );
}

/// So many days from now.
fn later(days: u64) -> String {
    use ringfence_model::Clock as _;
    let now = ringfence_model::SystemClock.now();
    now.plus(std::time::Duration::from_secs(days * 86_400)).to_string()
}

async fn funding(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let job = market.post(json!({ "price": "60" })).await;
    let path = format!("/jobs/{job}/fund");
    refuses_without_a_key(client, Method::POST, &path).await;
    expect_problem(&client.post_empty(&path, &market.worker.key).await, 403, "not_the_buyer");
    expect_problem(&client.post_empty(&path, &market.operator).await, 403, "not_the_buyer");
    let funded = client.post_once(&path, &market.buyer.key, "f", &json!({})).await.expect(200);
    assert_eq!(
        (funded["status"].as_str(), funded["deposit_amount"].as_str()),
        (Some("funded"), Some("60.000000"))
    );
    assert_eq!(market.balance(&market.buyer.key).await, "40.000000");
    let replay = client.post_once(&path, &market.buyer.key, "f", &json!({})).await;
    assert_eq!((replay.status, &replay.headers["idempotency-replayed"]), (200, &"true".parse().unwrap()));
    expect_problem(&client.post_empty(&path, &market.buyer.key).await, 409, "job_funded");

    let dear = market.post(json!({ "price": "40.000001" })).await;
    let answer = client.post_empty(&format!("/jobs/{dear}/fund"), &market.buyer.key).await;
    expect_problem(&answer, 402, "insufficient_funds");
    assert!(answer.text_at("/detail").contains("40.000000"), "{}", answer.text);
    assert_eq!(client.get(&format!("/jobs/{dear}"), &market.buyer.key).await.expect(200)["status"], "open");
    assert_eq!(market.balance(&market.buyer.key).await, "40.000000", "nothing is moved");
}

async fn claiming(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let open = market.post(json!({})).await;
    expect_problem(
        &client.post_empty(&format!("/jobs/{open}/claim"), &market.worker.key).await,
        409,
        "job_not_funded",
    );
    let job = market.funded(json!({ "input": 7 })).await;
    let path = format!("/jobs/{job}/claim");
    refuses_without_a_key(client, Method::POST, &path).await;
    expect_problem(&client.post_empty(&path, &market.buyer.key).await, 403, "own_job");
    let other = client.post(&path, &market.worker.key, &json!({ "worker_id": market.buyer.id })).await;
    expect_problem(&other, 403, "other_agent");
    let claim =
        client.post(&path, &market.worker.key, &json!({ "worker_id": market.worker.id })).await.expect(201);
    assert_eq!(claim["worker_id"], market.worker.id.as_str());
    assert!(claim["warnings"][0].as_str().unwrap().contains("wallet_address not set"));
    expect_problem(&client.post_empty(&path, &market.worker.key).await, 409, "already_claimed");
    assert_eq!(client.get(&format!("/jobs/{job}/input"), &market.worker.key).await.expect(200), 7);
    let second = Market::register(client, "Second").await;
    market.claim(&second, &job).await;
    expect_problem(
        &client.post_empty("/jobs/job_7ZZZZZZZZZZZZZZZZZZZZZZZZZ/claim", &second.key).await,
        404,
        "job_not_found",
    );
}

async fn cancelling(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let open = market.post(json!({})).await;
    let funded = market.funded(json!({ "price": "30" })).await;
    refuses_without_a_key(client, Method::POST, &format!("/jobs/{open}/cancel")).await;
    expect_problem(
        &client.post_empty(&format!("/jobs/{open}/cancel"), &market.worker.key).await,
        403,
        "not_the_buyer",
    );
    let ended = client.post_empty(&format!("/jobs/{open}/cancel"), &market.buyer.key).await.expect(200);
    assert_eq!((ended["status"].as_str(), ended["refunded_amount"].is_null()), (Some("cancelled"), true));
    market.claim(&market.worker, &funded).await;
    assert_eq!(market.balance(&market.buyer.key).await, "70.000000");
    let ended = client
        .post_once(&format!("/jobs/{funded}/cancel"), &market.buyer.key, "c", &json!({}))
        .await
        .expect(200);
    assert_eq!(
        (ended["status"].as_str(), ended["refunded_amount"].as_str()),
        (Some("cancelled"), Some("30.000000"))
    );
    let replay =
        client.post_once(&format!("/jobs/{funded}/cancel"), &market.buyer.key, "c", &json!({})).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000", "once");
    for job in [&open, &funded] {
        expect_problem(
            &client.post_empty(&format!("/jobs/{job}/cancel"), &market.buyer.key).await,
            409,
            "job_cancelled",
        );
        expect_problem(
            &client.post_empty(&format!("/jobs/{job}/fund"), &market.buyer.key).await,
            409,
            "job_cancelled",
        );
        expect_problem(
            &client.post_empty(&format!("/jobs/{job}/claim"), &market.worker.key).await,
            409,
            "job_cancelled",
        );
    }
    let late =
        client.post(&format!("/jobs/{funded}/submit"), &market.worker.key, &json!({ "content": 1 })).await;
    expect_problem(&late, 409, "job_cancelled");
}

async fn the_oracle_is_pinned_at_funding(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let bot = format!("/bots/{}", market.oracle);
    let open = market.post(json!({})).await;
    assert!(
        client.get(&format!("/jobs/{open}"), &market.worker.key).await.expect(200)["oracles"] == json!([])
    );
    let job = market.funded(json!({})).await;
    let pin = client.get(&format!("/jobs/{job}"), &market.worker.key).await.expect(200)["oracles"].clone();
    assert_eq!((pin.as_array().unwrap().len(), pin[0]["bot_id"].as_str()), (1, Some(market.oracle.as_str())));
    assert!(!pin.to_string().contains("seed"), "{pin}");
    expect_problem(&client.delete(&bot, &market.buyer.key).await, 409, "oracle_in_use");

    // The buyer swaps the oracle for one that always faults: the funded job keeps what was shown.
    let fault =
        client.upload(&market.buyer.key, ringfence_testkit::guest("hostile/oracle-fault")).await.expect(201);
    let swapped =
        client.patch(&bot, &market.buyer.key, &json!({ "component": fault["digest"] })).await.expect(200);
    assert_eq!(swapped["component"], fault["digest"]);
    assert_eq!(client.get(&format!("/jobs/{job}"), &market.worker.key).await.expect(200)["oracles"], pin);
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!("work")).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
}

async fn twenty_fundings_at_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let client = &market.client;
    let job = market.post(json!({ "price": "10" })).await;
    let path = format!("/jobs/{job}/fund");
    let answers =
        futures::future::join_all((0..20).map(|_| client.post_empty(&path, &market.buyer.key))).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let _: Value = client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
}
