//! Many at once: one winner, one payout.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ringfence_testkit::{Agent, Answer, Engine, Market, on_both_engines};
use serde_json::json;

use crate::{host, ledger_holds};

on_both_engines!(
    of_a_hundred_that_pass_one_wins,
    a_hundred_submissions_against_cancel_and_expiry,
    the_last_submission_is_taken_once,
    equal_claims_count_once
);

/// Workers who have claimed a job.
async fn crowd(market: &Market, job: &str, number: usize) -> Vec<Agent> {
    let workers = (0..number).map(|number| async move {
        let worker = Market::register(&market.client, &format!("Worker {number}")).await;
        market.claim(&worker, job).await;
        worker
    });
    futures::stream::iter(workers).buffered(8).collect().await
}

/// All hand in at once; what they are answered.
async fn all_submit(market: &Market, workers: &[Agent], job: &str) -> Vec<Answer> {
    let path = format!("/jobs/{job}/submit");
    let path = &path;
    futures::future::join_all(workers.iter().map(|worker| async move {
        loop {
            let answer = market.client.post(path, &worker.key, &json!({ "content": worker.id })).await;
            // A hundred wait for one job; on a slow machine some for longer than the database lets them.
            if answer.status != 503 {
                return answer;
            }
        }
    }))
    .await
}

/// What was paid to whom, after everything has ended: how many of the workers, and the platform's fees.
async fn paid(market: &Market, workers: &[Agent]) -> (usize, String) {
    let mut paid = 0;
    for worker in workers {
        match market.balance(&worker.key).await.as_str() {
            "8.000000" => paid += 1,
            other => assert_eq!(other, "0.000000"),
        }
    }
    (paid, market.balance(&market.operator).await)
}

async fn of_a_hundred_that_pass_one_wins(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({ "max_submissions": 100 })).await;
    let workers = crowd(&market, &job, 100).await;
    let answers = all_submit(&market, &workers, &job).await;
    // Some find the job won already: that is an answer, too.
    let mut passed = 0;
    for (worker, answer) in workers.iter().zip(&answers) {
        if answer.status == 409 {
            assert_eq!(answer.body["code"], "job_resolved");
            continue;
        }
        let verdict = market.verdict(worker, answer.text_at("/submission_id")).await;
        match verdict["status"].as_str() {
            Some("passed") => passed += 1,
            Some("closed") => {
                assert!(verdict["reason"].as_str().unwrap().contains("another submission"), "{verdict}")
            }
            other => panic!("{other:?}: {verdict}"),
        }
    }
    assert_eq!(passed, 1);
    assert_eq!(paid(&market, &workers).await, (1, "2.000000".to_owned()));
    ledger_holds(&host).await;
}

/// While a hundred submissions pass, the buyer calls the job off and its time runs out: it ends in one of the three ways, and
/// its money goes one way.
async fn a_hundred_submissions_against_cancel_and_expiry(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let mut ends = Vec::new();
    for first in ["nothing", "cancel", "expiry"] {
        let job = market.funded(json!({ "max_submissions": 100 })).await;
        let workers = crowd(&market, &job, 33).await;
        let before = (market.balance(&market.buyer.key).await, market.balance(&market.operator).await);
        let cancel = async || {
            let path = format!("/jobs/{job}/cancel");
            let asked = (0..5).map(|_| market.client.post_empty(&path, &market.buyer.key));
            let taken = futures::future::join_all(asked).await;
            for answer in &taken {
                assert!(matches!(answer.status, 200 | 409), "{}", answer.text);
            }
            taken.iter().filter(|answer| answer.status == 200).count()
        };
        let expire = async || {
            for sql in [
                format!("UPDATE jobs SET expiry = created_at + 1 WHERE id = '{job}'"),
                format!("UPDATE queue SET run_at = 1 WHERE kind = 'expire' AND subject_id = '{job}'"),
            ] {
                host.database().meddle(&sql).await.unwrap();
            }
        };
        let mut cancelled = 0;
        match first {
            "cancel" => cancelled += cancel().await,
            "expiry" => expire().await,
            _ => {}
        }
        let (answers, more, ()) = tokio::join!(all_submit(&market, &workers, &job), cancel(), expire());
        for answer in &answers {
            assert!(matches!(answer.status, 202 | 409), "{}", answer.text);
        }
        cancelled += more;
        let begun = Instant::now();
        let ended = loop {
            let found = market.client.get(&format!("/jobs/{job}"), &market.buyer.key).await.expect(200);
            if found["status"] != "funded" {
                break found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let won = ended["status"] == "resolved";
        assert_eq!(cancelled, usize::from(ended["status"] == "cancelled"), "{ended}");
        let (number, fees) = paid(&market, &workers).await;
        assert_eq!(number, usize::from(won), "{ended}");
        assert_eq!(fees != before.1, won, "{ended}");
        assert_eq!(market.balance(&market.buyer.key).await != before.0, !won, "{ended}");
        assert_eq!(ended["escrow_status"], if won { "released" } else { "refunded" });
        ends.push(ended["status"].clone());
        ledger_holds(&host).await;
    }
    assert!(ends[1] == "cancelled" && ends[2] != "resolved", "{ends:?}");
}

async fn the_last_submission_is_taken_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({ "max_submissions": 1 })).await;
    let workers = crowd(&market, &job, 10).await;
    let (taken, refused): (Vec<Answer>, Vec<Answer>) =
        all_submit(&market, &workers, &job).await.into_iter().partition(|answer| answer.status == 202);
    assert_eq!(taken.len(), 1);
    for answer in refused {
        assert!(matches!(answer.text_at("/code"), "submissions_used" | "job_resolved"), "{}", answer.text);
    }
}

async fn equal_claims_count_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let job = market.funded(json!({})).await;
    let path = format!("/jobs/{job}/claim");
    let answers =
        futures::future::join_all((0..10).map(|_| market.client.post_empty(&path, &market.worker.key))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.body["code"] == "already_claimed"));
}
