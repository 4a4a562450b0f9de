use std::time::Duration;

use ringfence_model::{Clock as _, SystemClock};
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::{ACCEPTS, events, job, judged, soon, until};
use crate::host;

on_both_engines!(
    g11_an_open_job_changes,
    g11_a_funded_job_takes_a_later_expiry_alone,
    g11_an_ended_job_does_not_change,
    g11_the_bounds_of_a_post_hold,
    g11_the_expiry_moves_with_its_task,
    g11_a_change_and_a_funding_at_once,
    g11_a_change_and_an_expiry_at_once,
    g11_a_change_is_repeated_safely,
    g11_an_expiry_that_another_host_began_is_put_off,
    an_oracle_is_not_deleted_under_a_job,
);

async fn g11_an_open_job_changes(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.post(json!({})).await;
    let path = format!("/jobs/{id}");
    let later = soon(99_999);
    let change = json!({ "title": "New", "description": "D", "rubric": "R", "expiry": later, "max_submissions": 7,
        "max_retries": 1, "min_reputation": 0 });
    let changed = market.client.patch(&path, &market.buyer.key, &change).await.expect(200);
    for (field, expected) in change.as_object().unwrap() {
        assert_eq!(&changed[field], expected, "{field}");
    }
    assert_eq!(job(&market, &id).await, changed);
    let told = events(&host, &id).await.pop().unwrap();
    let fields = ["title", "description", "rubric", "expiry", "max_submissions", "max_retries"];
    assert_eq!((told.event.as_str(), told.data), ("job.updated", json!({ "changed": fields })));
    // What is as it was is no change.
    let same = market.client.patch(&path, &market.buyer.key, &change).await.expect(200);
    assert_eq!(same, changed);
    assert_eq!(events(&host, &id).await.len(), 2, "job.created, job.updated");
}

async fn g11_a_funded_job_takes_a_later_expiry_alone(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let id = market.funded(json!({ "expiry": soon(1000) })).await;
    let (path, before) = (format!("/jobs/{id}"), job(&market, &id).await);
    for change in [
        json!({ "title": "New" }),
        json!({ "description": "D" }),
        json!({ "rubric": "R" }),
        json!({ "max_submissions": 7 }),
        json!({ "max_retries": 1 }),
        json!({ "min_reputation": 5 }),
        json!({ "expiry": soon(2000), "title": "New" }),
    ] {
        expect_problem(&client.patch(&path, &market.buyer.key, &change).await, 409, "job_funded");
    }
    let shorter = client.patch(&path, &market.buyer.key, &json!({ "expiry": soon(900) })).await;
    expect_problem(&shorter, 400, "expiry_shortened");
    assert_eq!(job(&market, &id).await, before, "nothing is changed");
    let later = soon(2000);
    let changed = client.patch(&path, &market.buyer.key, &json!({ "expiry": later })).await.expect(200);
    assert_eq!(changed["expiry"], later.as_str());
    expect_problem(
        &client.patch(&path, &market.worker.key, &json!({ "expiry": soon(3000) })).await,
        403,
        "not_the_buyer",
    );
}

async fn g11_an_ended_job_does_not_change(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let (cancelled, resolved) = (market.post(json!({})).await, market.funded(json!({})).await);
    let _ = client.post_empty(&format!("/jobs/{cancelled}/cancel"), &market.buyer.key).await.expect(200);
    market.claim(&market.worker, &resolved).await;
    assert_eq!(judged(&market, &market.worker, &resolved, &json!(1)).await, "passed");
    let expired = market.post(json!({ "expiry": soon(2) })).await;
    until(&market, &expired, "expired").await;
    for (id, code) in [(cancelled, "job_cancelled"), (resolved, "job_resolved"), (expired, "job_expired")] {
        for change in [json!({ "title": "New" }), json!({ "expiry": soon(9000) })] {
            let answer = client.patch(&format!("/jobs/{id}"), &market.buyer.key, &change).await;
            expect_problem(&answer, 409, code);
        }
    }
}

async fn g11_the_bounds_of_a_post_hold(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.post(json!({})).await;
    let (path, before) = (format!("/jobs/{id}"), job(&market, &id).await);
    for (change, code) in [
        (json!({ "title": "" }), "invalid_fields"),
        (json!({ "title": "x".repeat(201) }), "invalid_fields"),
        (json!({ "title": "a\u{0}b" }), "invalid_fields"),
        (json!({ "description": "x".repeat(20_001) }), "invalid_fields"),
        (json!({ "rubric": "" }), "invalid_fields"),
        (json!({ "rubric": "x".repeat(50_001) }), "invalid_fields"),
        (json!({ "expiry": "2020-01-01T00:00:00Z" }), "invalid_fields"),
        (json!({ "expiry": "9999-01-01T00:00:00Z" }), "invalid_fields"),
        (json!({ "max_submissions": 0 }), "invalid_fields"),
        (json!({ "max_submissions": 1001 }), "invalid_fields"),
        (json!({ "max_retries": 101 }), "invalid_fields"),
        (json!({ "min_reputation": 101 }), "invalid_fields"),
        (json!({ "invite": [market.worker.id] }), "invalid_fields"),
        // What never changes is no field of a change.
        (json!({ "price": "1" }), "invalid_body"),
        (json!({ "fee_bps": 0 }), "invalid_body"),
        (json!({ "artifact_type": "text" }), "invalid_body"),
        (json!({ "oracle": market.oracle }), "invalid_body"),
        (json!({ "visibility": "private" }), "invalid_body"),
        (json!({ "status": "funded" }), "invalid_body"),
        (json!({ "title": 7 }), "invalid_body"),
    ] {
        let answer = market.client.patch(&path, &market.buyer.key, &change).await;
        expect_problem(&answer, 422, code);
    }
    assert_eq!(job(&market, &id).await, before, "nothing is changed");
}

async fn g11_the_expiry_moves_with_its_task(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let client = &market.client;
    let put_off = market.funded(json!({ "expiry": soon(8) })).await;
    let brought_forward = market.post(json!({ "expiry": soon(9000) })).await;
    for (id, expiry) in [(&put_off, soon(13)), (&brought_forward, soon(10))] {
        let change = json!({ "expiry": expiry });
        let _ = client.patch(&format!("/jobs/{id}"), &market.buyer.key, &change).await.expect(200);
    }
    until(&market, &brought_forward, "expired").await;
    assert_eq!(job(&market, &put_off).await["status"], "funded", "its first expiry has passed");
    let ended = until(&market, &put_off, "expired").await;
    assert!(ended["ended_at"].as_str() >= ended["expiry"].as_str(), "{ended}");
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
}

/// Whoever works relies on what the job said when it was funded.
async fn g11_a_change_and_a_funding_at_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, key) = (&market.client, &market.buyer.key);
    for _ in 0..12 {
        let id = market.post(json!({ "price": "1" })).await;
        let (path, fund) = (format!("/jobs/{id}"), format!("/jobs/{id}/fund"));
        let change = json!({ "rubric": "Another." });
        let (changed, funded) =
            tokio::join!(client.patch(&path, key, &change), client.post_empty(&fund, key));
        let funded: Value = funded.expect(200);
        let now = job(&market, &id).await;
        assert_eq!(now["rubric"], funded["rubric"], "what was funded is what stands");
        match changed.status {
            200 => {
                assert_eq!((&changed.body["status"], &now["rubric"]), (&json!("open"), &json!("Another.")))
            }
            _ => {
                expect_problem(&changed, 409, "job_funded");
                assert_ne!(now["rubric"], "Another.");
            }
        }
    }
}

/// Either the job goes on until its new expiry, or it has ended and the change is told so.
async fn g11_a_change_and_an_expiry_at_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let expiry = SystemClock.now().plus(Duration::from_secs(8));
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(market.funded(json!({ "price": "1", "expiry": expiry.to_string() })).await);
    }
    let changes = jobs.iter().zip(0..).map(|(id, number)| {
        let (client, key, path) = (&market.client, &market.buyer.key, format!("/jobs/{id}"));
        // From just before the expiry until just after it.
        let moment = expiry.minus(Duration::from_millis(30)).plus(Duration::from_millis(5 * number));
        async move {
            tokio::time::sleep(moment.since(SystemClock.now())).await;
            client.patch(&path, key, &json!({ "expiry": soon(600) })).await
        }
    });
    for (id, changed) in jobs.iter().zip(futures::future::join_all(changes).await) {
        if changed.status == 200 {
            // Its task is put off, so nothing ends it: all that ends at the expiry has ended when the others have.
            assert_eq!(job(&market, id).await["status"], "funded");
        } else {
            expect_problem(&changed, 409, "job_expired");
            let ended = until(&market, id, "expired").await;
            assert_eq!(ended["expiry"], expiry.to_string().as_str(), "nothing was changed");
        }
    }
    let late = market.post(json!({ "expiry": soon(2) })).await;
    until(&market, &late, "expired").await;
    let held = market.client.get("/jobs?status=funded", &market.buyer.key).await.expect(200);
    for job in held["jobs"].as_array().unwrap() {
        assert_ne!(job["expiry"], expiry.to_string().as_str(), "{job}");
    }
}

async fn g11_a_change_is_repeated_safely(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.post(json!({})).await;
    let change = |title: &str| {
        let request =
            market.client.request(reqwest::Method::PATCH, &format!("/jobs/{id}"), &market.buyer.key);
        request.header("idempotency-key", "k").json(&json!({ "title": title }))
    };
    let first = ringfence_testkit::send(change("One")).await.expect(200);
    let again = ringfence_testkit::send(change("One")).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.expect(200), first);
    expect_problem(&ringfence_testkit::send(change("Two")).await, 422, "idempotency_key_reused");
}

/// A host whose clock is ahead has begun to end the job. It finds a later expiry under the job's lock and lets it be.
async fn g11_an_expiry_that_another_host_began_is_put_off(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.funded(json!({ "expiry": soon(5) })).await;
    let due_now = format!("UPDATE queue SET run_at = 1 WHERE kind = 'expire' AND subject_id = '{id}'");
    assert_eq!(host.database().meddle(&due_now).await, Ok(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(job(&market, &id).await["status"], "funded", "not before its time");
    let ended = until(&market, &id, "expired").await;
    assert!(ended["ended_at"].as_str() >= ended["expiry"].as_str(), "{ended}");
}

/// Of a post that names an oracle and the oracle's deletion at the same moment, one is refused.
async fn an_oracle_is_not_deleted_under_a_job(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let (client, key) = (&market.client, &market.buyer.key);
    let component = client.upload(key, ringfence_testkit::guest(ACCEPTS)).await.expect(200);
    for number in 0..12 {
        let bot = json!({ "name": format!("oracle-{number}"), "component": component["digest"] });
        let bot = client.post("/bots", key, &bot).await.expect(201)["bot_id"].as_str().unwrap().to_owned();
        let (path, body) = (format!("/bots/{bot}"), market.job(json!({ "oracle": bot })));
        let (posted, deleted) = tokio::join!(client.post("/jobs", key, &body), client.delete(&path, key));
        match (posted.status, deleted.status) {
            (201, 409) => expect_problem(&deleted, 409, "oracle_in_use"),
            (422, 204) => expect_problem(&posted, 422, "unknown_oracle"),
            other => panic!("{other:?}: {} {}", posted.text, deleted.text),
        }
    }
}
