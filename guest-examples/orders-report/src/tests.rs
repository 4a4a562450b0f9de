use ringfence::testing::Host;
use serde_json::json;

use super::*;

#[test]
fn a_small_mess_is_cleaned() {
    let csv = "order_id,customer,date,status,amount\r\n\
        ORD-1, ACME  gmbh,2025-03-07,paid,\"1.234,50\"\n\
        \n\
        ORD-2,Zoë,07.03.2025,Shipped,€2\n\
        ord-1,Acme Gmbh,2025-03-07,cancelled,5\n\
        ORD-3,Zoë,03/08/2025,canceled,5\n\
        ORD-3,Zoë,03/08/2025,paid,5\n\
        ORD-4,Zoë,31.02.2025,paid,5\n\
        ORD-5,acme GMBH,1 Mar 2025,paid,0.50 EUR\n";
    let input = json!({ "csv": csv }).to_string();
    let report = Host::new().call(handle, &input).unwrap();
    assert_eq!(
        report,
        json!({
            "rows": [
                {"customer": "Acme Gmbh", "month": "2025-03", "orders": 2, "total_cents": 123_500},
                {"customer": "Zoë", "month": "2025-03", "orders": 1, "total_cents": 200},
            ],
            "counts": {"rows_read": 7, "kept": 3, "duplicates": 2, "cancelled": 1, "rejected": 1},
            "grand_total_cents": 123_700,
            "rejected": [{"line": 8, "reason": "date"}],
        })
    );
}

#[test]
fn a_job_of_the_market_asks_for_the_same() {
    let csv = "order_id,customer,date,status,amount\nORD-1,A,2025-03-07,paid,2.00\n";
    let call = json!({ "csv": csv });
    let job = json!({ "job": { "task_id": "job_1", "rubric": "…", "input": call } });
    let reports = [call, job].map(|input| Host::new().call(handle, &input.to_string()).unwrap());
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0]["grand_total_cents"], 200);
    let neither = Host::new().call(handle, r#"{"job":{"input":null}}"#).unwrap_err();
    assert!(neither.message.contains("expected `csv`"), "{}", neither.message);
}

#[test]
fn the_checked_in_orders_add_up() {
    let report = handle(Orders { csv: include_str!("../../data/orders.csv").to_owned() }).unwrap();
    let Counts { rows_read, kept, duplicates, cancelled, rejected } = report.counts;
    assert_eq!(rows_read, kept + duplicates + cancelled + rejected);
    assert_eq!(rows_read, 4000);
    assert!(duplicates > 50 && cancelled > 50 && rejected > 30, "{:?}", report.counts);
    assert_eq!(kept, report.rows.iter().map(|row| row.orders).sum::<u64>());
}

#[test]
fn another_csv_is_refused_in_words() {
    let failure = Host::new().call(handle, r#"{"csv": "a;b"}"#).unwrap_err();
    assert_eq!(failure.code, "bad_input");
    assert!(failure.message.contains("`a;b`"), "{failure}");
}

#[test]
fn the_readme_says_what_the_rubric_says() {
    assert!(include_str!("../README.md").contains(include_str!("../../data/rubric.md")));
}
