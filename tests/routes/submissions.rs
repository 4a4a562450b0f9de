use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(
    submit_and_read,
    bad_submissions_are_refused,
    attempts_are_limited,
    who_sees_what,
    an_end_is_an_end,
    no_text_keeps_a_verdict_from_being_written,
    large_work_is_left_out_of_lists
);

async fn submit_and_read(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let client = &market.client;
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    refuses_without_a_key(client, Method::POST, &format!("/jobs/{job}/submit")).await;
    let body = json!({ "content": { "answer": 42 }, "worker_id": market.worker.id });
    let taken =
        client.post_once(&format!("/jobs/{job}/submit"), &market.worker.key, "s", &body).await.expect(202);
    assert_eq!((taken["status"].as_str(), taken["attempt"].as_u64()), (Some("judging"), Some(1)));
    let id = taken["submission_id"].as_str().unwrap();
    let verdict = market.verdict(&market.worker, id).await;
    assert_eq!((verdict["status"].as_str(), &verdict["content"]), (Some("passed"), &json!({ "answer": 42 })));
    assert_eq!(verdict["evaluation"]["outcome"], "completed");
    // The answer is replayed as it was given, although the world has moved on.
    let replay = client.post_once(&format!("/jobs/{job}/submit"), &market.worker.key, "s", &body).await;
    assert_eq!(replay.headers["idempotency-replayed"], "true");
    assert_eq!(replay.expect(202), taken);
    // What is paid for is what was handed in, to the byte.
    let exact = r#"{"b": 12345678901234567890123, "a": 2.50}"#;
    let second = market.funded(json!({})).await;
    market.claim(&market.worker, &second).await;
    let request = client.request(Method::POST, &format!("/jobs/{second}/submit"), &market.worker.key);
    let request =
        request.header("content-type", "application/json").body(format!("{{\"content\": {exact}}}"));
    let handed_in = ringfence_testkit::send(request).await;
    assert!(handed_in.text.contains(exact), "{}", handed_in.text);
    let handed_in = handed_in.text_at("/submission_id").to_owned();
    assert_eq!(market.verdict(&market.worker, &handed_in).await["status"], "passed");
    let bought = client.get(&format!("/submissions/{handed_in}"), &market.buyer.key).await;
    assert!(bought.text.contains(exact), "{}", bought.text);
    let own = client.get("/submissions?worker_id=me", &market.worker.key).await.expect(200);
    assert_eq!((own["total"].as_u64(), own["submissions"][1]["submission_id"].as_str()), (Some(2), Some(id)));
    let nobody = id.replace("sub_0", "sub_7");
    expect_problem(
        &client.get(&format!("/submissions/{nobody}"), &market.worker.key).await,
        404,
        "submission_not_found",
    );
    let foreign =
        client.get(&format!("/submissions?worker_id={}", market.buyer.id), &market.worker.key).await;
    expect_problem(&foreign, 403, "other_agent");
}

async fn bad_submissions_are_refused(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let client = &market.client;
    let job = market.funded(json!({})).await;
    let path = format!("/jobs/{job}/submit");
    let good = json!({ "content": 1 });
    expect_problem(&client.post(&path, &market.worker.key, &good).await, 403, "not_claimed");
    expect_problem(&client.post(&path, &market.buyer.key, &good).await, 403, "not_claimed");
    expect_problem(&client.post(&path, &market.operator, &good).await, 403, "agent_only");
    market.claim(&market.worker, &job).await;
    for (body, status, code) in [
        (json!({}), 422, "invalid_body"),
        (json!({ "content": 1, "score": 100 }), 422, "invalid_body"),
        (json!({ "content": 1, "worker_id": "x" }), 422, "invalid_body"),
        (json!({ "content": 1, "worker_id": market.buyer.id }), 403, "other_agent"),
        (json!({ "content": "x".repeat(5 << 20) }), 413, "body_too_large"),
    ] {
        expect_problem(&client.post(&path, &market.worker.key, &body).await, status, code);
    }
    let list = client.get(&format!("/jobs/{job}/submissions"), &market.worker.key).await.expect(200);
    assert_eq!(list["total"], 0, "nothing is stored");
}

async fn attempts_are_limited(engine: Engine) {
    let host = host(engine).await;
    // Refuses everything: what orders-oracle gets is no report.
    let market = Market::new(&host, "orders-oracle").await;
    let client = &market.client;
    let input = json!({ "csv": "order_id,customer,date,status,amount\n" });
    let job = market.funded(json!({ "max_retries": 1, "max_submissions": 3, "input": input })).await;
    let rival = Market::register(client, "Rival").await;
    for worker in [&market.worker, &rival] {
        market.claim(worker, &job).await;
    }
    for attempt in 1..=2 {
        let submission = market.submit(&market.worker, &job, &json!("nonsense")).await;
        let verdict = market.verdict(&market.worker, &submission).await;
        assert_eq!(
            (verdict["status"].as_str(), verdict["attempt"].as_u64()),
            (Some("failed"), Some(attempt)),
            "{verdict}"
        );
        assert!(verdict["oracle_fault"].is_null(), "bad work is the worker's fault: {verdict}");
    }
    let path = format!("/jobs/{job}/submit");
    expect_problem(
        &client.post(&path, &market.worker.key, &json!({ "content": 1 })).await,
        409,
        "attempts_used",
    );
    let _ = market.submit(&rival, &job, &json!(1)).await;
    expect_problem(&client.post(&path, &rival.key, &json!({ "content": 1 })).await, 409, "submissions_used");
}

async fn who_sees_what(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "orders-oracle").await;
    let client = &market.client;
    let input = json!({ "csv": "order_id,customer,date,status,amount\n" });
    let job = market.funded(json!({ "input": input })).await;
    market.claim(&market.worker, &job).await;
    let secret = "a very secret draft";
    let refused = market.submit(&market.worker, &job, &json!(secret)).await;
    assert_eq!(market.verdict(&market.worker, &refused).await["status"], "failed");
    let stranger = Market::register(client, "Stranger").await;
    let own = client.get(&format!("/jobs/{job}/submissions"), &market.worker.key).await;
    assert!(own.text.contains(secret) && own.body["submissions"][0]["reason"].is_string(), "{}", own.text);
    for key in [&market.buyer.key, &stranger.key, &market.operator] {
        for path in [format!("/jobs/{job}/submissions"), format!("/submissions/{refused}")] {
            let seen = client.get(&path, key).await;
            assert_eq!(seen.status, 200);
            assert!(
                seen.text.contains(&refused) && seen.text.contains("\"failed\""),
                "metadata: {}",
                seen.text
            );
            for hidden in [secret, "\"reason\"", "\"steps\"", "\"content\"", "\"evaluation\""] {
                assert!(!seen.text.contains(hidden), "{hidden} in {}", seen.text);
            }
        }
    }
    // What the oracle wrote while judging could tell the buyer what was not paid for.
    let bot = &market.oracle;
    let calls = client.get(&format!("/bots/{bot}/invocations"), &market.buyer.key).await.expect(200);
    let call = calls["invocations"][0]["invocation_id"].as_str().unwrap();
    let logs = client.get(&format!("/bots/{bot}/invocations/{call}/logs"), &market.buyer.key).await;
    expect_problem(&logs, 403, "logs_sealed");
    for record in [
        &calls["invocations"][0],
        &client.get(&format!("/bots/{bot}/invocations/{call}"), &market.buyer.key).await.expect(200),
    ] {
        assert_eq!(record["sealed"], true, "{record}");
        for closed in ["outcome", "detail", "usage", "input_digest", "output_digest"] {
            assert_eq!(record[closed], Value::Null, "{closed}: {record}");
        }
    }

    let right = json!({ "rows": [], "counts": { "rows_read": 0, "kept": 0, "duplicates": 0, "cancelled": 0, "rejected": 0 },
        "grand_total_cents": 0, "rejected": [] });
    let won = market.submit(&market.worker, &job, &right).await;
    let verdict = market.verdict(&market.worker, &won).await;
    assert_eq!(verdict["status"], "passed", "{verdict}");
    let bought = client.get(&format!("/submissions/{won}"), &market.buyer.key).await.expect(200);
    assert_eq!(bought["content"], right, "what is paid for is seen");
    let calls = client.get(&format!("/bots/{bot}/invocations"), &market.buyer.key).await.expect(200);
    assert_eq!(
        (&calls["invocations"][0]["sealed"], &calls["invocations"][1]["sealed"]),
        (&json!(false), &json!(true))
    );
    let hidden = client.get(&format!("/submissions/{won}"), &stranger.key).await.expect(200);
    assert!(hidden.get("content").is_none(), "{hidden}");
    let still = client.get(&format!("/submissions/{refused}"), &market.buyer.key).await;
    assert!(!still.text.contains(secret), "what lost stays the worker's");
}

async fn an_end_is_an_end(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let client = &market.client;
    let job = market.funded(json!({})).await;
    let rival = Market::register(client, "Rival").await;
    for worker in [&market.worker, &rival] {
        market.claim(worker, &job).await;
    }
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    let path = format!("/jobs/{job}");
    expect_problem(
        &client.post(&format!("{path}/submit"), &rival.key, &json!({ "content": 2 })).await,
        409,
        "job_resolved",
    );
    expect_problem(&client.post_empty(&format!("{path}/claim"), &rival.key).await, 409, "job_resolved");
    expect_problem(
        &client.post_empty(&format!("{path}/cancel"), &market.buyer.key).await,
        409,
        "job_resolved",
    );
    expect_problem(&client.post_empty(&format!("{path}/fund"), &market.buyer.key).await, 409, "job_resolved");
}

/// PostgreSQL stores no U+0000. A submission that makes the oracle say one must not hold the escrow for ever.
async fn no_text_keeps_a_verdict_from_being_written(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "orders-oracle").await;
    let input = json!({ "csv": "order_id,customer,date,status,amount\n" });
    let job = market.funded(json!({ "input": input })).await;
    market.claim(&market.worker, &job).await;
    let content = json!({ "rows": [], "counts": { "rows_read\u{0}": "x" }, "grand_total_cents": 0, "rejected": [], "\u{0}": 1 });
    let submission = market.submit(&market.worker, &job, &content).await;
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!(verdict["status"], "failed", "{verdict}");
    assert_eq!(verdict["content"], content, "the work itself is kept as it is");
    let cancelled =
        market.client.post_empty(&format!("/jobs/{job}/cancel"), &market.buyer.key).await.expect(200);
    assert_eq!(cancelled["refunded_amount"], "10.000000");
}

async fn large_work_is_left_out_of_lists(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    let content = json!("x".repeat(70_000));
    let submission = market.submit(&market.worker, &job, &content).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["content"], content);
    let list = market.client.get(&format!("/jobs/{job}/submissions"), &market.worker.key).await.expect(200);
    let listed = &list["submissions"][0];
    assert!(listed.get("content").is_none() && listed["content_digest"].is_string(), "{listed}");
}
