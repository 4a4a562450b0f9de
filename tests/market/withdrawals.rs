//! M19: money that goes out, frozen accounts, and statements.

use ringfence_testkit::{Answer, Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::payouts::won;
use crate::{host, ledger_holds};

on_both_engines!(
    m19_a_withdrawal_is_reserved_and_posted,
    m19_a_withdrawal_is_reserved_and_voided,
    m19_bad_withdrawals_are_refused,
    m19_twenty_ends_at_once_are_one,
    m19_withdrawals_at_once_never_overdraw,
    m19_nothing_leaves_a_frozen_account,
    m19_lists_have_pages,
    m19_statements_add_up_to_the_balance,
);

const ORACLE: &str = "hostile/oracle-accept";

async fn end(market: &Market, id: &str, how: &str) -> Answer {
    let path = format!("/admin/ledger/withdrawals/{id}/{how}");
    market.client.post_empty(&path, &market.operator).await
}

async fn balance(market: &Market) -> (String, String) {
    let found = market.client.get("/ledger/balance", &market.buyer.key).await;
    (found.text_at("/available").to_owned(), found.text_at("/reserved").to_owned())
}

fn pair(available: &str, reserved: &str) -> (String, String) {
    (available.to_owned(), reserved.to_owned())
}

async fn m19_a_withdrawal_is_reserved_and_posted(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let body = json!({ "agent_id": market.buyer.id, "amount": "40", "external_reference": "wire-out" });
    let path = "/admin/ledger/withdrawals";
    let made = market.client.post_once(path, &market.operator, "w", &body).await.expect(201);
    assert_eq!((&made["status"], &made["amount"]), (&json!("pending"), &json!("40.000000")));
    let again = market.client.post_once(path, &market.operator, "w", &body).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let second = market.client.post(path, &market.operator, &body).await;
    expect_problem(&second, 409, "external_reference_used");
    assert_eq!(balance(&market).await, pair("60.000000", "40.000000"));
    let id = made["withdrawal_id"].as_str().unwrap();
    let posted = end(&market, id, "post").await.expect(200);
    assert_eq!(posted["status"], "posted");
    assert!(posted["ended_at"].is_string());
    assert_eq!(balance(&market).await, pair("60.000000", "0.000000"));
    for how in ["post", "void"] {
        expect_problem(&end(&market, id, how).await, 409, "withdrawal_posted");
    }
    let listed = market.client.get(path, &market.operator).await.expect(200);
    let mut expected = posted.clone();
    expected["warnings"] = json!([]);
    assert_eq!(listed["withdrawals"], json!([expected]));
    let audit = market.client.get("/audit?action=ledger:withdraw", &market.operator).await.expect(200);
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2, "{audit}");
    ledger_holds(&host).await;
}

async fn m19_a_withdrawal_is_reserved_and_voided(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.withdrawal(&market.buyer, "95").await;
    let job = market.post(json!({})).await;
    let fund = format!("/jobs/{job}/fund");
    expect_problem(&market.client.post_empty(&fund, &market.buyer.key).await, 402, "insufficient_funds");
    assert_eq!(end(&market, &id, "void").await.expect(200)["status"], "voided");
    assert_eq!(balance(&market).await, pair("100.000000", "0.000000"));
    expect_problem(&end(&market, &id, "post").await, 409, "withdrawal_voided");
    let _ = market.client.post_empty(&fund, &market.buyer.key).await.expect(200);
    ledger_holds(&host).await;
}

async fn m19_bad_withdrawals_are_refused(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let good = json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": "r" });
    let path = "/admin/ledger/withdrawals";
    expect_problem(&market.client.post(path, &market.buyer.key, &good).await, 403, "operator_only");
    let nobody = market.buyer.id.replace("agent_0", "agent_7");
    let booked = json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": "in" });
    let _ = market.client.post("/admin/ledger/deposits", &market.operator, &booked).await.expect(201);
    for (field, value, status, code) in [
        ("amount", json!("0"), 422, "invalid_fields"),
        ("amount", json!("-1"), 422, "invalid_body"),
        ("amount", json!("101.000001"), 409, "insufficient_balance"),
        ("external_reference", json!(""), 422, "invalid_fields"),
        ("external_reference", json!("in"), 409, "external_reference_used"),
        ("agent_id", json!(nobody), 422, "unknown_agent"),
        ("status", json!("posted"), 422, "invalid_body"),
    ] {
        let mut body = good.clone();
        body[field] = value.clone();
        expect_problem(&market.client.post(path, &market.operator, &body).await, status, code);
    }
    let much = json!({ "agent_id": market.buyer.id, "amount": "500", "external_reference": "r" });
    let much = market.client.post(path, &market.operator, &much).await;
    let detail = much.text_at("/detail");
    assert!(detail.contains("500.000000") && detail.contains("101.000000"), "the numbers: {detail}");
    let id = market.withdrawal(&market.buyer, "1").await;
    for (id, code) in
        [(id.replace("xfer_0", "xfer_7"), "withdrawal_not_found"), ("1".to_owned(), "no_such_id")]
    {
        expect_problem(&end(&market, &id, "post").await, 404, code);
    }
    // A deposit is no withdrawal.
    let deposits = market.client.get("/admin/ledger/deposits?limit=1", &market.operator).await;
    let deposit = deposits.text_at("/deposits/0/transfer_id");
    expect_problem(&end(&market, deposit, "void").await, 404, "withdrawal_not_found");
    assert_eq!(balance(&market).await, pair("100.000000", "1.000000"));
    ledger_holds(&host).await;
}

async fn m19_twenty_ends_at_once_are_one(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.withdrawal(&market.buyer, "10").await;
    let ends = (0..20).map(|number| end(&market, &id, if number % 2 == 0 { "post" } else { "void" }));
    let answers = futures::future::join_all(ends).await;
    let ended: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    let [ended] = ended[..] else { panic!("it ended {} times", ended.len()) };
    let status = ended.text_at("/status");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        expect_problem(answer, 409, &format!("withdrawal_{status}"));
    }
    let left = if status == "posted" { "90.000000" } else { "100.000000" };
    assert_eq!(balance(&market).await, pair(left, "0.000000"));
    ledger_holds(&host).await;
}

async fn m19_withdrawals_at_once_never_overdraw(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let asked = (0..20).map(|number| {
        let reference = format!("out-{number}");
        let body = json!({ "agent_id": market.buyer.id, "amount": "15", "external_reference": reference });
        let (client, operator) = (market.client.clone(), market.operator.clone());
        async move { client.post("/admin/ledger/withdrawals", &operator, &body).await }
    });
    let answers = futures::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 6, "6 × 15 of 100");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        expect_problem(answer, 409, "insufficient_balance");
    }
    assert_eq!(balance(&market).await, pair("10.000000", "90.000000"));
    ledger_holds(&host).await;
}

async fn m19_nothing_leaves_a_frozen_account(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let id = market.withdrawal(&market.buyer, "10").await;
    let freeze = format!("/admin/agents/{}/freeze", market.buyer.id);
    for reason in [json!(""), json!("x".repeat(501)), json!("a\u{0}b")] {
        let answer = market.client.post(&freeze, &market.operator, &json!({ "reason": reason })).await;
        expect_problem(&answer, 422, "invalid_fields");
    }
    market.freeze(&market.buyer).await;
    let account = format!("/admin/ledger/accounts/{}", market.buyer.id);
    let frozen = market.client.get(&account, &market.operator).await.expect(200);
    assert_eq!((&frozen["frozen"], &frozen["frozen_reason"]), (&json!(true), &json!("a test")));
    assert_eq!((&frozen["balance"], &frozen["reserved"]), (&json!("100.000000"), &json!("10.000000")));
    let more = json!({ "agent_id": market.buyer.id, "amount": "1", "external_reference": "more" });
    let more = market.client.post("/admin/ledger/withdrawals", &market.operator, &more).await;
    expect_problem(&more, 409, "account_frozen");
    assert!(more.text_at("/detail").contains("a test"));
    expect_problem(&end(&market, &id, "post").await, 409, "account_frozen");
    market.deposit(&market.buyer, "5").await;
    // Again, with another reason; and letting it go twice is no error either.
    let again =
        market.client.post(&freeze, &market.operator, &json!({ "reason": "Still." })).await.expect(200);
    assert_eq!(again["frozen_reason"], "Still.");
    market.unfreeze(&market.buyer).await;
    market.unfreeze(&market.buyer).await;
    assert_eq!(end(&market, &id, "post").await.expect(200)["status"], "posted");
    assert_eq!(balance(&market).await, pair("95.000000", "0.000000"));
    let nobody = format!("/admin/agents/{}/freeze", market.buyer.id.replace("agent_0", "agent_7"));
    let nobody = market.client.post(&nobody, &market.operator, &json!({ "reason": "x" })).await;
    expect_problem(&nobody, 404, "agent_not_found");
    let audit = market.client.get("/audit?action=ledger:freeze", &market.operator).await.expect(200);
    assert_eq!(audit["entries"].as_array().unwrap().len(), 4, "{audit}");
    ledger_holds(&host).await;
}

/// All of a list, in pages of this size.
async fn pages(market: &Market, path: &str, key: &str, items: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let between = if path.contains('?') { '&' } else { '?' };
        let page = market.client.get(&format!("{path}{between}limit={limit}{token}"), key).await.expect(200);
        let found = page[items].as_array().unwrap().clone();
        assert!(found.len() <= limit);
        all.extend(found);
        let Some(next) = page["next_page_token"].as_str() else { return all };
        token = format!("&page_token={next}");
    }
}

async fn m19_lists_have_pages(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    for number in 1..=4 {
        market.deposit(&market.worker, &number.to_string()).await;
        let _ = market.withdrawal(&market.buyer, &number.to_string()).await;
    }
    let key = &market.operator;
    for (path, items, count) in
        [("/admin/ledger/deposits", "deposits", 5), ("/admin/ledger/withdrawals", "withdrawals", 4)]
    {
        let whole = pages(&market, path, key, items, 200).await;
        assert_eq!(whole.len(), count, "{path}");
        assert_eq!(whole[0]["amount"], "4.000000", "newest first");
        for limit in [1, 2, 4] {
            assert_eq!(pages(&market, path, key, items, limit).await, whole, "{path} {limit}");
        }
        for bad in ["limit=0", "limit=201", "page_token=x", "page_token=xfer_01JZ0000000000000000000000"] {
            let answer = market.client.get(&format!("{path}?{bad}"), key).await;
            expect_problem(&answer, 422, "invalid_fields");
        }
        expect_problem(&market.client.get(path, &market.buyer.key).await, 403, "operator_only");
    }
}

fn micros(amount: &Value) -> i64 {
    amount.as_str().unwrap().parse::<ringfence_model::MicroUsdc>().unwrap().as_micros()
}

/// What the transfers that move money come to.
fn sum(transfers: &[Value]) -> i64 {
    let moved = transfers.iter().filter(|one| one["phase"] == "single" || one["phase"] == "posted");
    moved.map(|one| micros(&one["amount"]) * if one["direction"] == "in" { 1 } else { -1 }).sum()
}

async fn m19_statements_add_up_to_the_balance(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let job = won(&market, json!({ "price": "7.5" })).await;
    let _ = super::payouts::won(&market, json!({ "price": "1" })).await;
    let overpaid = market.overpaid(json!({}), "25").await;
    for what in ["refund-excess", "cancel"] {
        let path = format!("/jobs/{overpaid}/{what}");
        let _ = market.client.post_empty(&path, &market.buyer.key).await.expect(200);
    }
    let (gone, kept) =
        (market.withdrawal(&market.buyer, "3").await, market.withdrawal(&market.buyer, "4").await);
    let _ = end(&market, &gone, "post").await.expect(200);
    let _ = end(&market, &kept, "void").await.expect(200);
    let unpaid = market.unpaid(&market.worker, json!({})).await;

    let of = |key: &str| pages_of(&market, key.to_owned());
    for (agent, available) in [(&market.buyer, "78.500000"), (&market.worker, "6.800000")] {
        let all = of(&agent.key).await;
        assert_eq!(sum(&all), micros(&json!(available)), "{all:#?}");
        assert_eq!(market.balance(&agent.key).await, available);
        let operators = format!("/ledger/transfers?agent_id={}", agent.id);
        assert_eq!(pages(&market, &operators, &market.operator, "transfers", 200).await, all);
        for limit in [1, 3] {
            let paged = pages(&market, "/ledger/transfers", &agent.key, "transfers", limit).await;
            assert_eq!(paged, all, "in pages of {limit}");
        }
    }
    let kinds =
        |all: &[Value]| all.iter().map(|one| one["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let held = of(&market.worker.key).await.remove(0);
    assert_eq!(
        (&held["phase"], &held["task_id"], &held["direction"]),
        (&json!("pending"), &json!(unpaid), &json!("in"))
    );
    let get =
        async |query: &str, key: &str| market.client.get(&format!("/ledger/transfers?{query}"), key).await;
    let of_job = get(&format!("task_id={overpaid}"), &market.buyer.key).await.expect(200);
    assert_eq!(kinds(of_job["transfers"].as_array().unwrap()), ["refund", "excess", "fund"]);
    let of_kind = get("kind=withdrawal", &market.buyer.key).await.expect(200);
    let phases: Vec<_> = of_kind["transfers"].as_array().unwrap().iter().map(|one| &one["phase"]).collect();
    assert_eq!(phases, ["voided", "posted", "pending", "pending"]);
    let both = get(&format!("kind=fund&task_id={job}"), &market.buyer.key).await.expect(200);
    assert_eq!(both["transfers"].as_array().unwrap().len(), 1);
    let at = of_kind["transfers"][1]["created_at"].as_str().unwrap();
    let since = get(&format!("since={at}&kind=withdrawal"), &market.buyer.key).await.expect(200);
    assert_eq!(since["transfers"].as_array().unwrap().len(), 2, "that one counts");
    let until = get(&format!("until={at}&kind=withdrawal"), &market.buyer.key).await.expect(200);
    assert_eq!(until["transfers"].as_array().unwrap().len(), 2, "that one does not");

    let others = get(&format!("agent_id={}", market.buyer.id), &market.worker.key).await;
    expect_problem(&others, 404, "agent_not_found");
    expect_problem(&get("limit=9", &market.operator).await, 422, "invalid_fields");
    for bad in ["kind=gift", "since=yesterday", "colour=red", "task_id=1"] {
        expect_problem(&get(bad, &market.buyer.key).await, 422, "invalid_query");
    }
    // Another account's transfer is no place in this one.
    let theirs = held["transfer_id"].as_str().unwrap();
    expect_problem(&get(&format!("page_token={theirs}"), &market.buyer.key).await, 422, "invalid_fields");
    ledger_holds(&host).await;
}

async fn pages_of(market: &Market, key: String) -> Vec<Value> {
    pages(market, "/ledger/transfers", &key, "transfers", 200).await
}
