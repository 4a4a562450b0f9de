//! G21: what the platform holds and owes, and the check of its books.

use ringfence_testkit::{Engine, Host, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::payouts::won;
use crate::{host, ledger_holds};

on_both_engines!(
    g21_solvency_is_what_the_ledger_says,
    g21_what_is_reported_is_compared,
    g21_a_payment_out_that_leaves_little_is_warned_of,
    the_ledger_is_checked_while_a_host_serves,
    a_wrong_balance_is_found_and_the_command_fails,
);

const ORACLE: &str = "hostile/oracle-accept";

async fn solvency(market: &Market) -> Value {
    market.client.get("/platform/solvency", &market.operator).await.expect(200)
}

async fn g21_solvency_is_what_the_ledger_says(engine: Engine) {
    let host = host(engine).await;
    let (client, operator) = (host.client(), host.operator_key());
    let empty = client.get("/platform/solvency", &operator).await.expect(200);
    assert_eq!((&empty["balance"], &empty["ratio"]), (&json!("0.000000"), &Value::Null));
    assert_eq!((&empty["reported"], &empty["warnings"]), (&Value::Null, &json!([])));

    let market = Market::new(&host, ORACLE).await;
    let _ = won(&market, json!({})).await;
    let _ = market.funded(json!({ "price": "30" })).await;
    let _ = market.withdrawal(&market.buyer, "5").await;
    let gone = market.withdrawal(&market.worker, "1").await;
    let path = format!("/admin/ledger/withdrawals/{gone}/post");
    let _ = client.post_empty(&path, &operator).await.expect(200);
    let found = solvency(&market).await;
    for (field, value) in [
        ("balance", json!("99.000000")),
        ("liabilities", json!("97.000000")),
        ("agents", json!("67.000000")),
        ("escrow", json!("30.000000")),
        ("withdrawals_pending", json!("5.000000")),
        ("payouts_failed", json!("0.000000")),
        ("fees", json!("2.000000")),
        ("funded_jobs", json!(1)),
        ("ratio", json!("1.0206")),
        ("warnings", json!([])),
    ] {
        assert_eq!(found[field], value, "{field} in {found}");
    }
    expect_problem(&client.get("/platform/solvency", &market.buyer.key).await, 403, "operator_only");
    ledger_holds(&host).await;
}

async fn g21_what_is_reported_is_compared(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let _ = won(&market, json!({})).await;
    let path = "/admin/ledger/reported-balance";
    for (amount, ratio, warning) in [
        ("100", "1.0204", None),
        ("99", "1.0102", Some("less than the books")),
        ("49", "0.5000", Some("do not cover")),
    ] {
        let report = json!({ "amount": amount, "note": "statement 7" });
        let reported = market.client.post(path, &market.operator, &report).await.expect(201);
        assert_eq!(reported["ratio"], ratio);
        let found = solvency(&market).await;
        assert_eq!(found["reported"], reported);
        assert_eq!(found["ratio"], "1.0204", "of the books");
        let warnings = found["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{found}");
        assert!(warnings.iter().all(|told| told.as_str().unwrap().contains(warning.unwrap())), "{found}");
    }
    let bad = json!({ "amount": "1", "note": "x".repeat(501) });
    expect_problem(&market.client.post(path, &market.operator, &bad).await, 422, "invalid_fields");
    let audit = market.client.get("/audit?action=ledger:report", &market.operator).await.expect(200);
    assert_eq!(audit["entries"].as_array().unwrap().len(), 3, "{audit}");
}

async fn g21_a_payment_out_that_leaves_little_is_warned_of(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let withdraw = async |amount: &str| {
        let reference = format!("out-{amount}");
        let body = json!({ "agent_id": market.buyer.id, "amount": amount, "external_reference": reference });
        market.client.post("/admin/ledger/withdrawals", &market.operator, &body).await.expect(201)
    };
    // 100 less 33.333333 is twice that, and one more.
    for (amount, warned) in [("33.333333", false), ("33.333334", true)] {
        let made = withdraw(amount).await;
        assert_eq!(made["warnings"].as_array().unwrap().len(), usize::from(warned), "{made}");
        let path = format!("/admin/ledger/withdrawals/{}", made["withdrawal_id"].as_str().unwrap());
        if warned {
            let posted =
                market.client.post_empty(&format!("{path}/post"), &market.operator).await.expect(200);
            let told = posted["warnings"][0].as_str().unwrap();
            assert!(told.contains("33.333334 USDC leaves 66.666666"), "{told}");
        } else {
            let _ = market.client.post_empty(&format!("{path}/void"), &market.operator).await.expect(200);
        }
    }
    assert!(host.log().contains("leaves less than twice its size"), "{}", host.log());
    // 66.666666 are left. What is under way has left as good as that.
    for (amount, warned) in [("20", false), ("20.000001", true)] {
        let made = withdraw(amount).await;
        assert_eq!(made["warnings"].as_array().unwrap().len(), usize::from(warned), "{made}");
    }
}

fn check(host: &Host) -> (bool, String) {
    let done = host.command(&["ledger", "check"], "");
    let told = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(told).unwrap())
}

async fn the_ledger_is_checked_while_a_host_serves(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    // Money moves all along.
    let moving = async {
        for _ in 0..15 {
            let job = market.overpaid(json!({}), "30").await;
            for what in ["refund-excess", "cancel"] {
                let path = format!("/jobs/{job}/{what}");
                let _ = market.client.post_empty(&path, &market.buyer.key).await.expect(200);
            }
        }
    };
    let checking = async {
        for _ in 0..10 {
            let found = market.client.get("/admin/ledger/check", &market.operator).await.expect(200);
            assert_eq!((&found["ok"], &found["discrepancies"]), (&json!(true), &json!([])));
        }
    };
    futures::join!(moving, checking);
    let (good, told) = check(&host);
    assert!(good, "{told}");
    assert!(told.contains("46 transfers") && told.contains("15 jobs"), "{told}");
    let found = market.client.get("/admin/ledger/check", &market.operator).await.expect(200);
    assert_eq!((&found["transfers"], &found["jobs"]), (&json!(46), &json!(15)));
    expect_problem(&market.client.get("/admin/ledger/check", &market.buyer.key).await, 403, "operator_only");
}

async fn a_wrong_balance_is_found_and_the_command_fails(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ORACLE).await;
    let sql = "UPDATE ledger_accounts SET balance = balance + 7 WHERE kind = 'agent'";
    assert_eq!(host.database().meddle(sql).await.unwrap(), 1);
    let (good, told) = check(&host);
    assert!(!good, "{told}");
    assert!(told.contains("the balance is 100000007, its transfers come to 100000000"), "{told}");
    assert!(told.contains("all balances together are 7"), "{told}");
    let found = market.client.get("/admin/ledger/check", &market.operator).await.expect(200);
    assert_eq!((&found["ok"], found["discrepancies"].as_array().unwrap().len()), (&json!(false), 2));
}
