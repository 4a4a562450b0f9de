//! The oracle on what the two bots make of the job's data, and on what a cheat would try.

use ringfence::testing::Host;
use ringfence::{Failure, Verdict};
use serde_json::{Value, json};

/// What was done to a result, and how.
type Spoil = (&'static str, fn(&mut Value));

const ORDERS: &str = include_str!("../../data/orders.csv");

fn input() -> String {
    json!({ "csv": ORDERS }).to_string()
}

fn judged(content: &Value) -> Verdict {
    Host::new().judge(orders_oracle::evaluate, Some(&input()), &content.to_string()).unwrap()
}

fn right_report() -> Value {
    Host::new().call(orders_report::handle, &input()).unwrap()
}

#[test]
fn the_right_bot_passes() {
    let verdict = judged(&right_report());
    assert!(verdict.passed && verdict.score == 100, "{verdict:#?}");
}

#[test]
fn the_naive_bot_fails_with_a_reason() {
    let report = Host::new().call(orders_report_naive::handle, &input()).unwrap();
    let verdict = judged(&report);
    assert!(!verdict.passed && verdict.score < 50, "{verdict:#?}");
    assert!(
        verdict.reason.contains("duplicates: expected ") && verdict.reason.contains(", found 0"),
        "{}",
        verdict.reason
    );
}

#[test]
fn every_part_of_a_result_is_looked_at() {
    let spoil: [Spoil; 11] = [
        ("a cent more", |report| {
            report["rows"][5]["total_cents"] = json!(report["rows"][5]["total_cents"].as_i64().unwrap() + 1)
        }),
        ("an order more", |report| report["rows"][5]["orders"] = json!(99)),
        ("a row less", |report| drop(report["rows"].as_array_mut().unwrap().pop())),
        ("a row twice", |report| {
            let row = report["rows"][0].clone();
            report["rows"].as_array_mut().unwrap().insert(0, row);
        }),
        ("another order", |report| report["rows"].as_array_mut().unwrap().swap(0, 1)),
        ("a customer's other writing", |report| report["rows"][0]["customer"] = json!("ACME BOOKS")),
        ("a month's other writing", |report| report["rows"][0]["month"] = json!("2025-1")),
        ("a total of its own", |report| report["grand_total_cents"] = json!(1)),
        ("a count of its own", |report| report["counts"]["duplicates"] = json!(0)),
        ("another reason", |report| report["rejected"][3]["reason"] = json!("weather")),
        ("a count less", |report| drop(report["counts"].as_object_mut().unwrap().remove("kept"))),
    ];
    for (what, spoil) in spoil {
        let mut report = right_report();
        spoil(&mut report);
        let verdict = judged(&report);
        assert!(!verdict.passed && verdict.score < 100, "{what}: {verdict:#?}");
    }
}

#[test]
fn something_else_is_a_verdict_and_not_a_fault() {
    for content in [
        json!("done!"),
        json!({}),
        json!({"rows": [], "counts": {}, "grand_total_cents": 1e300, "rejected": []}),
    ] {
        let verdict = judged(&content);
        assert!(!verdict.passed && verdict.score == 0, "{verdict:?}");
        assert!(
            verdict.reason.starts_with("the submission has the form that was asked for: "),
            "{}",
            verdict.reason
        );
    }
}

#[test]
fn a_job_without_orders_is_the_oracles_fault() {
    let host = Host::new();
    for input in [None, Some("{}"), Some(r#"{"csv": "a;b"}"#)] {
        let content = right_report().to_string();
        let failure: Failure = host.judge(orders_oracle::evaluate, input, &content).map(drop).unwrap_err();
        assert_eq!(failure.code, "bad_job_input");
    }
}

/// Bot and oracle were written apart; on rows that are odd in every way they still have to agree.
#[test]
fn bot_and_oracle_agree_on_odd_rows() {
    let ids = ["ORD-1", " ord-2 ", "ORD-", "ORD-3x", "", "\"ORD-4\"", "ORD-5\"", "ord-ı6"];
    let customers = ["a  b", " ÉCOLE x", "", "\"x, y\"", "\"x\"\"y\"", "\"open", "\"x\"y", "ß", "o'neill"];
    let dates = [
        "2025-02-28",
        "29.02.2024",
        "29.02.2025",
        "02/30/2025",
        "1 Jan 2025",
        "1  Jan 2025",
        "01 janu 2025",
        "0 Jan 2025",
        "2025-1-1",
    ];
    let states = ["paid", "SHIPPED", "Canceled", "cancelled", "lost", ""];
    let amounts = [
        "1",
        "\"1,50\"",
        "\"1.234,50\"",
        "1.234.567",
        "\"1,234,56\"",
        "\"1.234.50\"",
        "€ 1",
        "1€€",
        "EUR1EUR",
        "'1",
        "1'",
        "12 345.67",
        "0001.00",
        "1 23",
        ".50",
        "99999999999999999999",
        "１",
    ];
    let mut state = 7_u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..300 {
        let mut csv = "order_id,customer,date,status,amount\n".to_owned();
        for _ in 0..40 {
            // Mostly right, so that the odd part is what decides.
            let odd = below(6);
            let mut pick = |place: usize, from: &[&str]| {
                from[if odd == place || odd == 5 { below(from.len()) } else { below(2) }].to_owned()
            };
            let row =
                [pick(0, &ids), pick(1, &customers), pick(2, &dates), pick(3, &states), pick(4, &amounts)];
            csv += &row.join(",");
            csv += ["\n", "\r\n", ",\n", "\n\n \n"][below(4)];
        }
        let input = json!({ "csv": csv }).to_string();
        let report = Host::new().call(orders_report::handle, &input).unwrap();
        let verdict = Host::new().judge(orders_oracle::evaluate, Some(&input), &report.to_string()).unwrap();
        assert!(verdict.passed, "{csv}\n{report:#}\n{verdict:#?}");
    }
}
