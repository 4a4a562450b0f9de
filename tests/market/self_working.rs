//! Bots with a market grant work by themselves: told of a funded job, they claim, work, hand in and are paid.

use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_testkit::{Agent, Engine, Host, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};

use super::{ACCEPTS, REFUSES, strict, until};
use crate::flows::every_point::insist;
use crate::{host, host_with, ledger_holds};

on_both_engines!(
    b9_a_bot_does_a_job_by_itself_and_is_paid,
    b9_the_budget_of_attempts_ends_it,
    b9_a_call_that_fails_is_tried_once_more_and_the_claim_given_back,
    b9_other_jobs_are_not_touched,
    b9_a_bot_without_its_grant_does_nothing,
    b9_a_day_of_fuel_is_set_aside_and_given_back,
    b9_who_may_lend_an_agent_to_a_bot,
    b9_a_crash_while_it_works_leaves_one_submission,
);

/// A market grant for an agent; `more` adds or replaces fields.
fn grant(agent: &Agent, more: Value) -> Value {
    let mut grant = json!({ "agent_id": agent.id, "artifact_types": ["json"], "max_attempts_per_day": 10,
        "max_fuel_per_day": 10_000_000_000u64 });
    grant.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "grants": { "market": grant } })
}

/// A market whose worker has a bot that returns what it is given.
async fn echoing(host: &Host, more: Value) -> (Market, String) {
    echoing_to(host, ACCEPTS, more).await
}

/// As [`echoing`], with this oracle.
async fn echoing_to(host: &Host, oracle: &str, more: Value) -> (Market, String) {
    let market = Market::new(host, oracle).await;
    let bot = Market::deploy(&market.client, &market.worker, "echo", grant(&market.worker, more)).await;
    (market, bot)
}

/// Waits until no bot has anything to do.
async fn at_rest(host: &Host) {
    let begun = Instant::now();
    while host.database().count("queue WHERE kind = 'work'").await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "bots are at work for too long\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The submissions of a job as the worker sees them.
async fn submissions(market: &Market, job: &str) -> Vec<Value> {
    let list = market.client.get(&format!("/jobs/{job}/submissions"), &market.worker.key).await.expect(200);
    list["submissions"].as_array().unwrap().clone()
}

/// The calls of a bot.
async fn calls(market: &Market, bot: &str) -> u64 {
    let path = format!("/bots/{bot}/invocations");
    market.client.get(&path, &market.worker.key).await.expect(200)["total"].as_u64().unwrap()
}

/// How many claims on a job were made and not given back.
async fn claims(host: &Host, job: &str) -> i64 {
    host.database().count(&format!("participants WHERE job_id = '{job}' AND unclaimed_at IS NULL")).await
}

async fn b9_a_bot_does_a_job_by_itself_and_is_paid(engine: Engine) {
    let host = host(engine).await;
    let (market, bot) = echoing(&host, json!({})).await;
    let job = market.funded(json!({ "description": "A text", "input": { "csv": "a,b" } })).await;
    let resolved = until(&market, &job, "resolved").await;
    assert_eq!(resolved["worker_id"], market.worker.id);
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    let submissions = submissions(&market, &job).await;
    assert_eq!(submissions.len(), 1, "{submissions:?}");
    let given = json!({ "job": { "task_id": job, "title": "A job", "description": "A text", "rubric": "Anything goes.",
        "artifact_type": "json", "price": "10.000000", "input": { "csv": "a,b" } } });
    assert_eq!(submissions[0]["content"], given);
    at_rest(&host).await;
    assert_eq!(calls(&market, &bot).await, 1);
    for (action, done) in [("jobs:claim", 1), ("jobs:submit", 1)] {
        let entries = format!(
            "audit_log WHERE action = '{action}' AND actor = '{bot}' AND credential = '{}'",
            market.worker.id
        );
        assert_eq!(host.database().count(&entries).await, done, "{action}");
    }
    ledger_holds(&host).await;
}

async fn b9_the_budget_of_attempts_ends_it(engine: Engine) {
    let host = host(engine).await;
    let (market, bot) = echoing(&host, json!({ "max_attempts_per_day": 2 })).await;
    for _ in 0..2 {
        let job = market.funded(json!({})).await;
        until(&market, &job, "resolved").await;
    }
    let job = market.funded(json!({})).await;
    at_rest(&host).await;
    assert_eq!(super::job(&market, &job).await["status"], "funded");
    assert_eq!((claims(&host, &job).await, calls(&market, &bot).await), (0, 2));
    assert_eq!(market.balance(&market.worker.key).await, "16.000000");
    // Another day.
    let yesterday = "UPDATE market_budgets SET day = day - 86400000000";
    assert_eq!(host.database().meddle(yesterday).await, Ok(1));
    let job = market.funded(json!({})).await;
    until(&market, &job, "resolved").await;
    ledger_holds(&host).await;
}

async fn b9_a_call_that_fails_is_tried_once_more_and_the_claim_given_back(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let lent = grant(&market.worker, json!({}));
    let bot = Market::deploy(&market.client, &market.worker, "hostile/trap", lent).await;
    let job = market.funded(json!({})).await;
    at_rest(&host).await;
    assert_eq!(calls(&market, &bot).await, 2);
    assert_eq!(submissions(&market, &job).await, Vec::<Value>::new());
    assert_eq!(claims(&host, &job).await, 0);
    let given_back = format!("participants WHERE job_id = '{job}' AND unclaimed_at IS NOT NULL");
    assert_eq!(host.database().count(&given_back).await, 1);
}

async fn b9_other_jobs_are_not_touched(engine: Engine) {
    let host = host(engine).await;
    let (market, bot) = echoing(&host, json!({})).await;
    let buyers = grant(&market.buyer, json!({}));
    let own = Market::deploy(&market.client, &market.buyer, "echo", buyers).await;
    let other = market.funded(json!({ "artifact_type": "text" })).await;
    let private = market.funded(json!({ "visibility": "private", "invited": [market.worker.id] })).await;
    let demanding = market.funded(json!({ "min_reputation": 50 })).await;
    let fits = market.funded(json!({})).await;
    until(&market, &fits, "resolved").await;
    at_rest(&host).await;
    for job in [&other, &private, &demanding] {
        assert_eq!((claims(&host, job).await, submissions(&market, job).await.len()), (0, 0), "{job}");
    }
    assert_eq!(calls(&market, &bot).await, 1);
    // The buyer's own bot was told of none of them.
    let calls = host.database().count(&format!("invocations WHERE bot_id = '{own}'")).await;
    assert_eq!(calls, 0);
    assert_eq!(host.database().count(&format!("audit_log WHERE actor = '{own}'")).await, 0);
}

async fn b9_a_bot_without_its_grant_does_nothing(engine: Engine) {
    let host = host(engine).await;
    let (market, bot) = echoing(&host, json!({})).await;
    let path = format!("/bots/{bot}");
    let with = market.client.get(&path, &market.worker.key).await.expect(200)["grants"].clone();
    assert_eq!(with["market"]["agent_id"], market.worker.id);
    let change = async |grants: Value| {
        let changed = market.client.patch(&path, &market.worker.key, &json!({ "grants": grants })).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
    };
    change(json!({})).await;
    let job = market.funded(json!({})).await;
    at_rest(&host).await;
    assert_eq!(claims(&host, &job).await, 0);
    change(with).await;
    let job = market.funded(json!({})).await;
    until(&market, &job, "resolved").await;
    // Told of a job before the bot is deleted, and late.
    let deleted = market.client.delete(&path, &market.worker.key).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text);
    let job = market.funded(json!({})).await;
    assert_eq!(host.database().count("market_bots").await, 0);
    let late = format!(
        "INSERT INTO queue (id, org_id, kind, payload, subject_id, run_at, attempt, created_at)
        SELECT 'late', org_id, 'work', '{{\"tries\":0,\"claimed\":false}}', '{bot}:{job}', 0, 0, 0 FROM bots WHERE id = '{bot}'"
    );
    assert_eq!(host.database().meddle(&late).await, Ok(1));
    at_rest(&host).await;
    assert_eq!(claims(&host, &job).await, 0);
    assert_eq!(calls(&market, &bot).await, 1);
}

async fn b9_a_day_of_fuel_is_set_aside_and_given_back(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let fuel = json!({ "fuel": 1_000_000_000u64 });
    let mut more = grant(&market.worker, json!({ "max_fuel_per_day": 999_999_999u64 }));
    more["limits"] = fuel.clone();
    more["name"] = json!("too-little");
    more["component"] = json!(
        market.client.upload(&market.worker.key, ringfence_testkit::guest("echo")).await.text_at("/digest")
    );
    let refused = market.client.post("/bots", &market.worker.key, &more).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(refused.text_at("/errors/0/field"), "grants.market.max_fuel_per_day");
    // Enough for one call at a time: what it leaves is there for the next.
    more["grants"]["market"]["max_fuel_per_day"] = json!(1_000_000_000u64 + 500_000_000);
    more["name"] = json!("enough");
    let made = market.client.post("/bots", &market.worker.key, &more).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for _ in 0..2 {
        let job = market.funded(json!({})).await;
        until(&market, &job, "resolved").await;
    }
    at_rest(&host).await;
    let used = "market_budgets WHERE attempts = 2 AND fuel > 0 AND fuel < 500000000";
    assert_eq!(host.database().count(used).await, 1);
    assert_eq!(host.database().meddle("UPDATE market_budgets SET fuel = 500000001").await, Ok(1));
    let job = market.funded(json!({})).await;
    at_rest(&host).await;
    assert_eq!(claims(&host, &job).await, 0, "there is not enough left for a whole call");
}

async fn b9_who_may_lend_an_agent_to_a_bot(engine: Engine) {
    let host = host(engine).await;
    let (market, _) = echoing(&host, json!({})).await;
    let component = market.client.upload(&market.worker.key, ringfence_testkit::guest("echo")).await;
    let deploy = async |key: &str, name: &str, agent: &Agent, more: Value| {
        let mut bot = grant(agent, more);
        bot["name"] = json!(name);
        bot["component"] = json!(component.text_at("/digest"));
        market.client.post("/bots", key, &bot).await
    };
    let worker = &market.worker;
    let another = deploy(&worker.key, "a", &market.buyer, json!({})).await;
    assert_eq!((another.status, another.text_at("/errors/0/field")), (422, "grants.market.agent_id"));
    let second = deploy(&worker.key, "b", worker, json!({ "artifact_types": ["text", "json"] })).await;
    assert_eq!((second.status, second.text_at("/errors/0/field")), (422, "grants.market.artifact_types"));
    assert_eq!(deploy(&worker.key, "c", worker, json!({ "artifact_types": ["text"] })).await.status, 201);
    for wrong in [
        json!({ "artifact_types": [] }),
        json!({ "artifact_types": ["A"] }),
        json!({ "max_attempts_per_day": 0 }),
        json!({ "max_fuel_per_day": u64::MAX }),
        json!({ "agent_id": "agent" }),
        json!({ "more": 1 }),
    ] {
        let refused = deploy(&worker.key, "d", worker, wrong.clone()).await;
        assert_eq!(refused.status, 422, "{wrong}: {}", refused.text);
    }
    // A key that could not work itself lends nothing.
    let scopes = json!({ "name": "deploys", "agent_id": worker.id, "scopes": ["bots:write", "bots:grant", "components:read"] });
    let key = market.client.post("/keys", &worker.key, &scopes).await;
    assert_eq!(key.status, 201, "{}", key.text);
    let types = json!({ "artifact_types": ["html"] });
    let refused = deploy(key.text_at("/api_key"), "e", worker, types).await;
    assert_eq!((refused.status, refused.text_at("/code")), (403, "scope_missing"), "{}", refused.text);
}

/// A crash before every other statement of a bot's work, where the host starts again at once; on the shared database, where
/// the lease has to run out first, before some. The oracle refuses the work, so the job would take it a second time.
async fn b9_a_crash_while_it_works_leaves_one_submission(engine: Engine) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crash");
    let env = vec![("RINGFENCE_CRASH_FILE".to_owned(), file.display().to_string())];
    let mut host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    // Calls that a crash cuts off keep what was set aside for them.
    let budget = json!({ "max_attempts_per_day": 10_000, "max_fuel_per_day": 1_000_000_000_000_000u64 });
    let (mut market, bot) = echoing_to(&host, REFUSES, budget).await;
    market.deposit(&market.buyer, "900").await;
    let step = if engine == Engine::Sqlite { 2 } else { 20 };
    let mut jobs = Vec::new();
    for point in (1..400).step_by(step) {
        let job = market.post(strict(json!({ "price": "1" }))).await;
        std::fs::write(&file, point.to_string()).unwrap();
        let (fund, read) = (format!("/jobs/{job}/fund"), format!("/jobs/{job}"));
        let (status, funded) = insist(&mut host, Method::POST, &fund, &market.buyer.key, None).await;
        assert_eq!(status, 200, "{funded}");
        let begun = Instant::now();
        loop {
            let (_, seen) = insist(&mut host, Method::GET, &read, &market.buyer.key, None).await;
            let left = host.database().count("queue WHERE kind <> 'expire'").await;
            let judged = format!("submissions WHERE job_id = '{job}' AND status = 'failed'");
            if host.database().count(&judged).await > 0 && left == 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "point {point}: {seen}\n{}", host.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        market.client = host.client();
        jobs.push(job);
        if file.exists() {
            break;
        }
    }
    assert!(file.exists(), "there are points that no crash came before");
    std::fs::remove_file(&file).unwrap();
    assert!(jobs.len() > 3, "{jobs:?}");
    for job in &jobs {
        assert_eq!(submissions(&market, job).await.len(), 1, "{job} of {bot}");
    }
    ledger_holds(&host).await;
}
