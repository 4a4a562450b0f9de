use std::time::{Duration, Instant};

use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::json;

use super::{ACCEPTS, told};
use crate::host;

on_both_engines!(
    g17_the_same_request_is_answered_once,
    g17_a_key_is_each_agents_own,
    g17_a_key_is_kept_for_24_hours,
    g17_twenty_at_once_post_one_job,
    g17_a_crash_between_commit_and_reply_is_replayed,
);

async fn total(market: &Market) -> u64 {
    let list = market.client.get("/jobs", &market.buyer.key).await.expect(200);
    list["total"].as_u64().unwrap()
}

async fn g17_the_same_request_is_answered_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let body = market.job(json!({}));
    let first = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await;
    assert_eq!((again.status, &again.headers["idempotency-replayed"]), (201, &"true".parse().unwrap()));
    assert_eq!((again.text, total(&market).await), (first.text, 1));
    let other = market.job(json!({ "title": "Another" }));
    let other = market.client.post_once("/jobs", &market.buyer.key, "k", &other).await;
    expect_problem(&other, 422, "idempotency_key_reused");
    // What failed leaves its key free.
    let bad = market.job(json!({ "price": "0" }));
    expect_problem(
        &market.client.post_once("/jobs", &market.buyer.key, "l", &bad).await,
        422,
        "invalid_fields",
    );
    let _ = market.client.post_once("/jobs", &market.buyer.key, "l", &body).await.expect(201);
}

async fn g17_a_key_is_each_agents_own(engine: Engine) {
    let host = host(engine).await;
    let (one, two) = (Market::new(&host, ACCEPTS).await, Market::new(&host, ACCEPTS).await);
    let mut jobs = Vec::new();
    for market in [&one, &two] {
        let body = market.job(json!({}));
        let answer = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await;
        assert!(!answer.headers.contains_key("idempotency-replayed"));
        jobs.push(answer.expect(201));
    }
    assert_ne!(jobs[0]["task_id"], jobs[1]["task_id"]);
    assert_ne!(jobs[0]["buyer_id"], jobs[1]["buyer_id"]);
}

async fn g17_a_key_is_kept_for_24_hours(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let body = market.job(json!({}));
    let first = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await.expect(201);
    let older = |seconds: u64| {
        format!("UPDATE idempotency_keys SET created_at = created_at - {seconds}000000 WHERE key = 'k'")
    };
    assert_eq!(host.database().meddle(&older(24 * 3600 - 60)).await, Ok(1));
    let again = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await;
    assert_eq!(again.expect(201), first, "a minute before its end");
    assert_eq!(host.database().meddle(&older(60)).await, Ok(1));
    let later = market.client.post_once("/jobs", &market.buyer.key, "k", &body).await;
    assert!(!later.headers.contains_key("idempotency-replayed"));
    assert_ne!(later.expect(201)["task_id"], first["task_id"], "it is forgotten");
    assert_eq!(total(&market).await, 2);
}

async fn g17_twenty_at_once_post_one_job(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let body = market.job(json!({}));
    let post = || market.client.post_once("/jobs", &market.buyer.key, "k", &body);
    let answers = futures::future::join_all((0..20).map(|_| post())).await;
    let replayed =
        answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == answers[0].text));
    assert_eq!((replayed, total(&market).await), (19, 1));
}

/// The host dies when the job is there and its client has not read so.
async fn g17_a_crash_between_commit_and_reply_is_replayed(engine: Engine) {
    let mut host = host(engine).await;
    let mut market = Market::new(&host, ACCEPTS).await;
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    for round in 0..3u64 {
        let key = format!("k-{round}");
        let (client, buyer, body) = (market.client.clone(), market.buyer.key.clone(), market.job(json!({})));
        let sent = {
            let (key, body) = (key.clone(), body.clone());
            tokio::spawn(async move {
                let request = client.request(reqwest::Method::POST, "/jobs", &buyer);
                // It hears nothing: the answer is never read.
                let _unread = request.header("idempotency-key", key).json(&body).send().await;
            })
        };
        let begun = Instant::now();
        while ringfence_store::outbox::list(&mut store.reader().await.unwrap(), None, 100)
            .await
            .unwrap()
            .len()
            <= round as usize
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "the job is not there");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        host.kill();
        sent.abort();
        host.restart().await;
        market.client = host.client();
        let replay = market.client.post_once("/jobs", &market.buyer.key, &key, &body).await;
        assert_eq!(replay.headers["idempotency-replayed"], "true", "{}", replay.text);
        let job = replay.expect(201);
        assert_eq!(told(&host, job["task_id"].as_str().unwrap()).await, ["job.created"]);
        assert_eq!(total(&market).await, round + 1);
    }
    store.close().await;
}
