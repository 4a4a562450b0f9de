use ringfence_testkit::{Agent, Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::{ACCEPTS, REFUSES, judged, right, strict};
use crate::host;

on_both_engines!(
    g03_filter_by_status_and_buyer,
    g03_filter_by_worker_and_type,
    g03_filter_by_price_range,
    g03_pages,
    g03_sort_by_price_ascending,
    g03_limit_is_50_and_at_most_200,
    g03_submissions_are_paged,
    g16_a_submission_is_its_workers,
    g16_own_submissions_over_all_jobs,
);

async fn listed(market: &Market, query: &str) -> (Vec<String>, Value) {
    let list = market.client.get(&format!("/jobs?{query}"), &market.worker.key).await.expect(200);
    let jobs = list["jobs"].as_array().unwrap();
    (jobs.iter().map(|job| job["task_id"].as_str().unwrap().to_owned()).collect(), list)
}

async fn g03_filter_by_status_and_buyer(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let open = market.post(json!({})).await;
    let funded = market.funded(json!({})).await;
    assert_eq!(listed(&market, "status=open").await.0, [open.as_str()]);
    assert_eq!(listed(&market, "status=funded").await.0, [funded.as_str()]);
    assert!(listed(&market, "status=resolved").await.0.is_empty());
    assert_eq!(listed(&market, &format!("buyer_id={}", market.buyer.id)).await.0, [funded, open]);
    assert!(listed(&market, &format!("buyer_id={}", market.worker.id)).await.0.is_empty());
}

async fn g03_filter_by_worker_and_type(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (json_job, text_job) =
        (market.funded(json!({})).await, market.post(json!({ "artifact_type": "text" })).await);
    market.claim(&market.worker, &json_job).await;
    assert_eq!(listed(&market, &format!("worker_id={}", market.worker.id)).await.0, [json_job]);
    let path = format!("/jobs?worker_id={}", market.worker.id);
    let stranger = Market::register(&market.client, "Stranger").await;
    for (key, told) in [(&market.worker.key, 1), (&market.operator, 1), (&stranger.key, 0)] {
        assert_eq!(
            market.client.get(&path, key).await.expect(200)["total"],
            told,
            "who takes part is the parties' matter"
        );
    }
    assert_eq!(listed(&market, "artifact_type=text").await.0, [text_job]);
}

async fn five(market: &Market) -> Vec<String> {
    let mut jobs = Vec::new();
    for price in [30, 10, 50, 20, 40] {
        jobs.push(market.post(json!({ "price": price.to_string() })).await);
    }
    jobs
}

async fn g03_filter_by_price_range(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let jobs = five(&market).await;
    let found = listed(&market, "min_price=20&max_price=40&sort_by=price&sort_order=asc").await.0;
    assert_eq!(found, [jobs[3].clone(), jobs[0].clone(), jobs[4].clone()]);
    assert_eq!(listed(&market, "min_price=50.000001").await.1["total"], 0);
}

async fn g03_pages(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let jobs = five(&market).await;
    let (page, list) = listed(&market, "limit=2&offset=1").await;
    assert_eq!(page, [jobs[3].clone(), jobs[2].clone()]);
    assert_eq!((&list["total"], &list["limit"], &list["offset"]), (&json!(5), &json!(2), &json!(1)));
    assert!(listed(&market, "offset=5").await.0.is_empty());
}

async fn g03_sort_by_price_ascending(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let jobs = five(&market).await;
    let found = listed(&market, "sort_by=price&sort_order=asc").await.0;
    assert_eq!(found, [1, 3, 0, 4, 2].map(|number: usize| jobs[number].clone()));
}

async fn g03_limit_is_50_and_at_most_200(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    for _ in 0..51 {
        market.post(json!({})).await;
    }
    let (page, list) = listed(&market, "").await;
    assert_eq!((page.len(), &list["total"], &list["limit"]), (50, &json!(51), &json!(50)));
    assert_eq!(listed(&market, "limit=200").await.0.len(), 51);
    for limit in ["201", "0", "-1", "all"] {
        let answer = market.client.get(&format!("/jobs?limit={limit}"), &market.worker.key).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
    }
}

async fn g03_submissions_are_paged(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let job = market.funded(strict(json!({ "max_retries": 5 }))).await;
    market.claim(&market.worker, &job).await;
    for attempt in 0..3 {
        assert_eq!(judged(&market, &market.worker, &job, &json!(attempt)).await, "failed");
    }
    let path = format!("/jobs/{job}/submissions?limit=1&offset=1");
    let page = market.client.get(&path, &market.worker.key).await.expect(200);
    let attempts = page["submissions"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["attempt"], &page["total"]), (1, &json!(2), &json!(3)));
}

async fn g16_a_submission_is_its_workers(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, REFUSES).await;
    let client = &market.client;
    let job = market.funded(strict(json!({}))).await;
    let rival = Market::register(client, "Rival").await;
    for worker in [&market.worker, &rival] {
        market.claim(worker, &job).await;
    }
    let secret = "only mine";
    let submission = market.submit(&market.worker, &job, &json!(secret)).await;
    market.verdict(&market.worker, &submission).await;
    for path in [format!("/jobs/{job}/submissions"), format!("/submissions/{submission}")] {
        assert!(client.get(&path, &market.worker.key).await.text.contains(secret));
        for Agent { key, .. } in [&market.buyer, &rival] {
            let seen = client.get(&path, key).await;
            assert!(seen.status == 200 && !seen.text.contains(secret), "{}", seen.text);
            for told in [&submission, "\"failed\"", "\"score\"", "\"attempt\""] {
                assert!(seen.text.contains(told), "{told}: {}", seen.text);
            }
        }
    }
    // What has won is the buyer's; to the others it stays closed.
    let won = market.submit(&market.worker, &job, &right()).await;
    assert_eq!(market.verdict(&market.worker, &won).await["status"], "passed");
    let path = format!("/submissions/{won}");
    assert_eq!(client.get(&path, &market.buyer.key).await.expect(200)["content"], right());
    assert!(client.get(&path, &rival.key).await.expect(200).get("content").is_none());
}

async fn g16_own_submissions_over_all_jobs(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let mut own = Vec::new();
    for number in 0..2 {
        let job = market.funded(json!({})).await;
        market.claim(&market.worker, &job).await;
        own.insert(0, market.submit(&market.worker, &job, &json!(number)).await);
    }
    let (client, key) = (&market.client, &market.worker.key);
    for who in ["me", market.worker.id.as_str()] {
        let list = client.get(&format!("/submissions?worker_id={who}"), key).await.expect(200);
        let found: Vec<_> = list["submissions"].as_array().unwrap().iter().collect();
        assert_eq!(found.iter().map(|row| row["submission_id"].as_str().unwrap()).collect::<Vec<_>>(), own);
        assert!(found.iter().all(|row| row.get("content").is_some()), "{list}");
    }
    let others = client.get(&format!("/submissions?worker_id={}", market.buyer.id), key).await;
    expect_problem(&others, 403, "other_agent");
}
