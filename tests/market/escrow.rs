//! G12, G22: what is paid in for a job, and what comes back, each exactly once.

use ringfence_testkit::{Answer, Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::payouts::job;
use crate::{host, ledger_holds};

on_both_engines!(
    g22_a_deposit_above_the_price_is_recorded_and_warned_of,
    g22_what_is_paid_too_much_comes_back_once,
    g22_at_the_end_the_excess_comes_back_by_itself,
    g22_twenty_fundings_at_once_are_one,
    g22_twenty_refunds_of_an_excess_at_once_are_one,
    g12_a_refund_is_made_once_and_told_as_often_as_one_asks,
    g12_twenty_cancellations_at_once_refund_once,
    g12_an_excess_and_a_cancellation_at_once,
    a_frozen_buyer_pays_nothing_in_and_gets_everything_back,
);

const ORACLE: &str = "hostile/oracle-accept";

async fn fund(market: &Market, id: &str, body: &Value) -> Answer {
    market.client.post(&format!("/jobs/{id}/fund"), &market.buyer.key, body).await
}

async fn ask(market: &Market, id: &str, what: &str) -> Answer {
    market.client.post_empty(&format!("/jobs/{id}/{what}"), &market.buyer.key).await
}

async fn g22_a_deposit_above_the_price_is_recorded_and_warned_of(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.post(json!({})).await;
    expect_problem(&fund(&market, &id, &json!({ "amount": "9.999999" })).await, 400, "deposit_too_small");
    expect_problem(&fund(&market, &id, &json!({ "amount": "0" })).await, 400, "deposit_too_small");
    for bad in [json!(11), json!("-11"), json!("1e2"), json!("11.0000001"), json!("1000000001")] {
        expect_problem(&fund(&market, &id, &json!({ "amount": bad })).await, 422, "invalid_body");
    }
    let much = fund(&market, &id, &json!({ "amount": "100.000001" })).await;
    expect_problem(&much, 402, "insufficient_funds");
    assert!(much.text_at("/detail").contains("100.000001"), "{}", much.text);
    assert_eq!(job(&market, &id).await["status"], "open", "nothing was done");
    for (amount, warned, left) in [("10", false, "90"), ("11", false, "79"), ("11.000001", true, "67.999999")]
    {
        let id = market.post(json!({})).await;
        let funded = fund(&market, &id, &json!({ "amount": amount })).await.expect(200);
        assert_eq!(funded["status"], "funded", "the job's own fields are there, too");
        let micros = amount.parse::<ringfence_model::MicroUsdc>().unwrap();
        assert_eq!(funded["deposit_amount"], micros.to_string());
        assert_eq!(funded["warnings"].as_array().unwrap().len(), usize::from(warned), "{funded}");
        let left = left.parse::<ringfence_model::MicroUsdc>().unwrap();
        assert_eq!(market.balance(&market.buyer.key).await, left.to_string());
    }
    let plain = fund(&market, &id, &json!({})).await.expect(200);
    assert_eq!((&plain["deposit_amount"], &plain["warnings"]), (&json!("10.000000"), &json!([])));
    expect_problem(&fund(&market, &id, &json!({ "amount": "20" })).await, 409, "job_funded");
    ledger_holds(&host).await;
}

async fn g22_what_is_paid_too_much_comes_back_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.post(json!({})).await;
    expect_problem(&ask(&market, &id, "refund-excess").await, 409, "job_not_funded");
    let _ = fund(&market, &id, &json!({ "amount": "30" })).await.expect(200);
    assert_eq!(market.balance(&market.buyer.key).await, "70.000000");
    let others = market.client.post_empty(&format!("/jobs/{id}/refund-excess"), &market.worker.key).await;
    expect_problem(&others, 403, "not_the_buyer");
    let path = format!("/jobs/{id}/refund-excess");
    let back = market.client.post_once(&path, &market.buyer.key, "once", &json!({})).await.expect(200);
    assert_eq!((&back["excess_refunded"], &back["status"]), (&json!("20.000000"), &json!("funded")));
    let again = market.client.post_once(&path, &market.buyer.key, "once", &json!({})).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    expect_problem(&ask(&market, &id, "refund-excess").await, 409, "excess_refunded");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let exact = market.funded(json!({})).await;
    expect_problem(&ask(&market, &exact, "refund-excess").await, 409, "no_excess");
    // Its price is in escrow still, and is what is paid out.
    market.claim(&market.worker, &id).await;
    let submission = market.submit(&market.worker, &id, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000");
    assert_eq!(market.balance(&market.buyer.key).await, "80.000000");
    expect_problem(&ask(&market, &id, "refund-excess").await, 409, "excess_refunded");
    ledger_holds(&host).await;
}

async fn g22_at_the_end_the_excess_comes_back_by_itself(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let won = market.overpaid(json!({}), "30").await;
    market.claim(&market.worker, &won).await;
    let submission = market.submit(&market.worker, &won, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &submission).await["status"], "passed");
    assert_eq!(job(&market, &won).await["excess_refunded"], "20.000000");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    assert_eq!(market.balance(&market.worker.key).await, "8.000000", "of the price, not of the deposit");
    assert_eq!(market.balance(&market.operator).await, "2.000000");

    let cancelled = market.overpaid(json!({}), "30").await;
    let cancelled = ask(&market, &cancelled, "cancel").await.expect(200);
    assert_eq!(cancelled["refunded_amount"], "30.000000", "all of it");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    let in_parts = market.overpaid(json!({}), "30").await;
    let _ = ask(&market, &in_parts, "refund-excess").await.expect(200);
    assert_eq!(ask(&market, &in_parts, "cancel").await.expect(200)["refunded_amount"], "10.000000");
    expect_problem(&ask(&market, &in_parts, "refund-excess").await, 409, "excess_refunded");
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    ledger_holds(&host).await;
}

/// How many of the answers are 200; all others are this problem.
fn done(answers: &[Answer], code: &str) -> usize {
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        expect_problem(answer, 409, code);
    }
    answers.iter().filter(|answer| answer.status == 200).count()
}

async fn g22_twenty_fundings_at_once_are_one(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.post(json!({})).await;
    let body = json!({ "amount": "12" });
    let answers = futures::future::join_all((0..20).map(|_| fund(&market, &id, &body))).await;
    assert_eq!(done(&answers, "job_funded"), 1);
    assert_eq!(market.balance(&market.buyer.key).await, "88.000000");
    ledger_holds(&host).await;
}

async fn g22_twenty_refunds_of_an_excess_at_once_are_one(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.overpaid(json!({}), "30").await;
    let asked = (0..20).map(|_| ask(&market, &id, "refund-excess"));
    let answers = futures::future::join_all(asked).await;
    assert_eq!(done(&answers, "excess_refunded"), 1);
    assert_eq!(market.balance(&market.buyer.key).await, "90.000000");
    ledger_holds(&host).await;
}

async fn g12_a_refund_is_made_once_and_told_as_often_as_one_asks(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.post(json!({})).await;
    expect_problem(&ask(&market, &id, "refund").await, 409, "not_refunded");
    let _ = fund(&market, &id, &json!({})).await.expect(200);
    let funded = ask(&market, &id, "refund").await;
    expect_problem(&funded, 409, "not_refunded");
    assert!(funded.text_at("/detail").contains("cancel"), "it says what to do: {}", funded.text);
    let _ = ask(&market, &id, "cancel").await.expect(200);
    let answers = futures::future::join_all((0..20).map(|_| ask(&market, &id, "refund"))).await;
    for answer in answers {
        let job = answer.expect(200);
        assert_eq!(
            (&job["escrow_status"], &job["refunded_amount"]),
            (&json!("refunded"), &json!("10.000000"))
        );
    }
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
    let others = market.client.post_empty(&format!("/jobs/{id}/refund"), &market.worker.key).await;
    expect_problem(&others, 403, "not_the_buyer");
    let unpaid = market.post(json!({})).await;
    let _ = ask(&market, &unpaid, "cancel").await.expect(200);
    expect_problem(&ask(&market, &unpaid, "refund").await, 409, "not_refunded");
    let won = super::payouts::won(&market, json!({})).await;
    expect_problem(&ask(&market, &won, "refund").await, 409, "not_refunded");
    ledger_holds(&host).await;
}

async fn g12_twenty_cancellations_at_once_refund_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.funded(json!({})).await;
    let answers = futures::future::join_all((0..20).map(|_| ask(&market, &id, "cancel"))).await;
    assert_eq!(done(&answers, "job_cancelled"), 1);
    assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
    ledger_holds(&host).await;
}

async fn g12_an_excess_and_a_cancellation_at_once(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    for _ in 0..5 {
        let id = market.overpaid(json!({}), "30").await;
        let (excess, cancelled) =
            futures::join!(ask(&market, &id, "refund-excess"), ask(&market, &id, "cancel"));
        let cancelled = cancelled.expect(200);
        if excess.status == 200 {
            assert_eq!(cancelled["refunded_amount"], "10.000000");
        } else {
            expect_problem(&excess, 409, "job_cancelled");
            assert_eq!(cancelled["refunded_amount"], "30.000000");
        }
        assert_eq!(market.balance(&market.buyer.key).await, "100.000000");
    }
    ledger_holds(&host).await;
}

async fn a_frozen_buyer_pays_nothing_in_and_gets_everything_back(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let (open, funded) = (market.post(json!({})).await, market.overpaid(json!({}), "30").await);
    market.freeze(&market.buyer).await;
    expect_problem(&fund(&market, &open, &json!({})).await, 409, "account_frozen");
    let _ = ask(&market, &funded, "refund-excess").await.expect(200);
    let _ = ask(&market, &funded, "cancel").await.expect(200);
    let balance = market.client.get("/ledger/balance", &market.buyer.key).await.expect(200);
    assert_eq!((&balance["available"], &balance["frozen"]), (&json!("100.000000"), &json!(true)));
    market.unfreeze(&market.buyer).await;
    let _ = fund(&market, &open, &json!({})).await.expect(200);
    ledger_holds(&host).await;
}
