//! G06: what becomes of a payout, and trying again.

use ringfence_testkit::{Engine, Host, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use crate::{host, ledger_holds};

on_both_engines!(
    g06_a_payout_succeeds,
    g06_a_payout_fails_and_its_job_stays_resolved,
    g06_a_retry_pays_on_the_second_attempt,
    g06_ten_retries_at_once_pay_once,
    g06_without_a_wallet_the_built_in_ledger_pays,
    g06_a_failed_payout_keeps_the_price_alone,
    g06_a_fee_of_everything_leaves_nothing_to_fail,
    g06_fees_are_rounded_down,
);

const ORACLE: &str = "hostile/oracle-accept";

/// The job, as its buyer sees it.
pub(super) async fn job(market: &Market, id: &str) -> Value {
    market.client.get(&format!("/jobs/{id}"), &market.buyer.key).await.expect(200)
}

/// What the events about a job are called, oldest first.
async fn events(host: &Host, id: &str) -> Vec<String> {
    let store = ringfence_store::Store::connect(host.database().url()).await.unwrap();
    let all = ringfence_store::outbox::list(&mut store.reader().await.unwrap(), None, 1000).await.unwrap();
    store.close().await;
    all.into_iter()
        .filter(|event| event.task_id.as_ref().is_some_and(|task| task.as_str() == id))
        .map(|event| event.event)
        .collect()
}

/// A job that the worker has won.
pub(super) async fn won(market: &Market, more: Value) -> String {
    let job = market.funded(more).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!("work")).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    job
}

async fn g06_a_payout_succeeds(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = won(&market, json!({})).await;
    let job = job(&market, &id).await;
    assert_eq!((&job["payout_status"], &job["escrow_status"]), (&json!("success"), &json!("released")));
    assert_eq!(job["payout_error"], Value::Null);
    let retry = market.client.post_empty(&format!("/admin/jobs/{id}/retry-payout"), &market.operator).await;
    expect_problem(&retry, 409, "payout_not_failed");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    ledger_holds(&host).await;
}

async fn g06_a_payout_fails_and_its_job_stays_resolved(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.unpaid(&market.worker, json!({})).await;
    let job = job(&market, &id).await;
    assert_eq!((&job["status"], &job["worker_id"]), (&json!("resolved"), &json!(market.worker.id)));
    assert_eq!((&job["payout_status"], &job["escrow_status"]), (&json!("failed"), &json!("held")));
    let why = job["payout_error"].as_str().unwrap();
    assert!(
        why.contains("frozen") && !why.contains("a test"),
        "the operator's reason is not for everyone: {why}"
    );
    for key in [&market.worker.key, &market.operator] {
        assert_eq!(market.balance(key).await, "0.000000", "neither the worker nor the platform is paid");
    }
    let told = events(&host, &id).await;
    assert!(told.iter().any(|event| event == "job.resolved"), "{told:?}");
    assert_eq!(
        told.iter().filter(|event| event.starts_with("payout.")).collect::<Vec<_>>(),
        ["payout.failed"]
    );

    let solvency = market.client.get("/platform/solvency", &market.operator).await.expect(200);
    assert_eq!(solvency["payouts_failed"], "10.000000");
    let path = format!("/admin/jobs/{id}/retry-payout");
    for _ in 0..2 {
        let retry = market.client.post_empty(&path, &market.operator).await;
        expect_problem(&retry, 409, "account_frozen");
        assert!(retry.text_at("/detail").contains("a test"), "operators read the reason: {}", retry.text);
    }
    let still = self::job(&market, &id).await;
    assert_eq!(still["payout_status"], "failed");
    for key in [&market.buyer.key, &market.worker.key] {
        expect_problem(&market.client.post_empty(&path, key).await, 403, "operator_only");
    }
    ledger_holds(&host).await;
}

async fn g06_a_retry_pays_on_the_second_attempt(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.unpaid(&market.worker, json!({})).await;
    let path = format!("/admin/jobs/{id}/retry-payout");
    expect_problem(&market.client.post_empty(&path, &market.operator).await, 409, "account_frozen");
    market.unfreeze(&market.worker).await;
    let paid = market.client.post_once(&path, &market.operator, "once", &json!({})).await.expect(200);
    assert_eq!((&paid["payout_status"], &paid["escrow_status"]), (&json!("success"), &json!("released")));
    assert_eq!(paid["payout_error"], Value::Null);
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    assert_eq!(market.balance(&market.operator).await, "2.000000");
    let again = market.client.post_once(&path, &market.operator, "once", &json!({})).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    expect_problem(&market.client.post_empty(&path, &market.operator).await, 409, "payout_not_failed");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000", "once");
    let told = events(&host, &id).await;
    let payouts: Vec<_> = told.iter().filter(|event| event.starts_with("payout.")).collect();
    assert_eq!(payouts, ["payout.failed", "payout.completed"]);
    let open = market.post(json!({})).await;
    let unwon = market.client.post_empty(&format!("/admin/jobs/{open}/retry-payout"), &market.operator).await;
    expect_problem(&unwon, 409, "payout_not_failed");
    let nobodys = format!("/admin/jobs/{}/retry-payout", id.replace("job_0", "job_7"));
    expect_problem(&market.client.post_empty(&nobodys, &market.operator).await, 404, "job_not_found");
    ledger_holds(&host).await;
}

async fn g06_ten_retries_at_once_pay_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.unpaid(&market.worker, json!({})).await;
    market.unfreeze(&market.worker).await;
    let path = format!("/admin/jobs/{id}/retry-payout");
    let retries = (0..10).map(|_| market.client.post_empty(&path, &market.operator));
    let answers = futures::future::join_all(retries).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        expect_problem(answer, 409, "payout_not_failed");
    }
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    assert_eq!(market.balance(&market.operator).await, "2.000000");
    ledger_holds(&host).await;
}

/// `skipped` is for a worker without a wallet where a chain settles. The built-in ledger needs none.
async fn g06_without_a_wallet_the_built_in_ledger_pays(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.funded(json!({})).await;
    let claim = market.client.post_empty(&format!("/jobs/{id}/claim"), &market.worker.key).await.expect(201);
    assert!(claim["warnings"][0].as_str().unwrap().contains("wallet_address"), "{claim}");
    let submission = market.submit(&market.worker, &id, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(job(&market, &id).await["payout_status"], "success");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
}

async fn g06_a_failed_payout_keeps_the_price_alone(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.overpaid(json!({}), "30").await;
    market.claim(&market.worker, &id).await;
    market.freeze(&market.worker).await;
    let submission = market.submit(&market.worker, &id, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    let failed = job(&market, &id).await;
    assert_eq!(
        (&failed["payout_status"], &failed["excess_refunded"]),
        (&json!("failed"), &json!("20.000000"))
    );
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000", "the excess is back");
    for what in ["cancel", "refund-excess", "refund"] {
        let answer = market.client.post_empty(&format!("/jobs/{id}/{what}"), &market.buyer.key).await;
        assert_eq!(answer.status, 409, "what is kept for the worker is not the buyer's: {}", answer.text);
    }
    ledger_holds(&host).await;
    market.unfreeze(&market.worker).await;
    let path = format!("/admin/jobs/{id}/retry-payout");
    let _ = market.client.post_empty(&path, &market.operator).await.expect(200);
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    ledger_holds(&host).await;
}

async fn g06_a_fee_of_everything_leaves_nothing_to_fail(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let all = market.unpaid(&market.worker, json!({ "fee_bps": 10_000 })).await;
    assert_eq!(job(&market, &all).await["payout_status"], "success", "the worker was to get nothing");
    assert_eq!(market.balance(&market.operator).await, "10.000000");
    market.unfreeze(&market.worker).await;
    let none = market.unpaid(&market.worker, json!({ "fee_bps": 0 })).await;
    assert_eq!(job(&market, &none).await["payout_status"], "failed");
    market.unfreeze(&market.worker).await;
    let path = format!("/admin/jobs/{none}/retry-payout");
    assert_eq!(
        market.client.post_empty(&path, &market.operator).await.expect(200)["payout_status"],
        "success"
    );
    assert_eq!(market.balance(&market.worker.key).await, "10.000000");
    assert_eq!(market.balance(&market.operator).await, "10.000000", "as before");
    ledger_holds(&host).await;
}

async fn g06_fees_are_rounded_down(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    // 33.33 % of 1.000001 is 0.3333003333: what is less than a micro-USDC stays with the worker.
    let id = won(&market, json!({ "price": "1.000001", "fee_bps": 3333 })).await;
    assert_eq!(job(&market, &id).await["payout"], "0.666701");
    assert_eq!(market.balance(&market.worker.key).await, "0.666701");
    assert_eq!(market.balance(&market.operator).await, "0.333300");
    let _ = won(&market, json!({ "price": "0.000001", "fee_bps": 9999 })).await;
    assert_eq!(market.balance(&market.worker.key).await, "0.666702");
    assert_eq!(market.balance(&market.operator).await, "0.333300");
    ledger_holds(&host).await;
}
