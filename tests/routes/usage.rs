use reqwest::Method;
use ringfence_testkit::{Engine, Market, expect_problem, on_both_engines};
use serde_json::{Value, json};

use super::refuses_without_a_key;
use crate::host;

on_both_engines!(what_calls_used_is_added_up, what_a_sealed_run_used_is_in_no_sum);

const AMOUNTS: [&str; 11] = [
    "fuel",
    "wall_us",
    "cpu_us",
    "host_calls",
    "log_bytes",
    "input_bytes",
    "output_bytes",
    "egress_sent_bytes",
    "egress_received_bytes",
    "llm_input_tokens",
    "llm_output_tokens",
];

async fn what_calls_used_is_added_up(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    let operator = host.operator_key();
    let echo = Market::deploy(&client, &ada, "echo", json!({})).await;
    let ticker = Market::deploy(&client, &ada, "hostile/ticker", json!({})).await;
    let mut used = Vec::new();
    for (bot, input) in [(&echo, json!(1)), (&echo, json!([1, 2])), (&ticker, json!({ "lines": 3 }))] {
        let call = client.post(&format!("/bots/{bot}/invoke"), &ada.key, &json!({ "input": input })).await;
        used.push(call.expect(200)["usage"].clone());
    }
    let usage = async |query: &str, key: &str| client.get(&format!("/usage{query}"), key).await.expect(200);
    let agrees = |row: &Value, calls: &[Value]| {
        assert_eq!((&row["calls"], &row["completed"]), (&json!(calls.len()), &json!(calls.len())), "{row}");
        for amount in AMOUNTS {
            let sum: u64 = calls.iter().map(|call| call[amount].as_u64().unwrap()).sum();
            assert_eq!(row[amount], sum, "{amount} of {row}");
        }
        let peak = calls.iter().map(|call| call["peak_memory_bytes"].as_u64().unwrap()).max();
        assert_eq!(row["peak_memory_bytes"].as_u64(), peak);
    };
    // Midnight may lie between the calls.
    let total = usage("?group_by=none", &ada.key).await;
    agrees(&total["usage"][0], &used);
    let by_day = usage("", &ada.key).await;
    let days = by_day["usage"].as_array().unwrap();
    assert!((1..=2).contains(&days.len()) && days[0]["day"].as_str().unwrap().len() == 10, "{by_day}");
    agrees(&usage(&format!("?group_by=none&bot_id={ticker}"), &ada.key).await["usage"][0], &used[2..]);
    assert!(!usage(&format!("?bot_id={ticker}"), &ada.key).await["usage"].as_array().unwrap().is_empty());

    let by_bot = usage("?group_by=bot", &ada.key).await;
    let bots: Vec<_> = by_bot["usage"].as_array().unwrap().iter().map(|row| row["bot_id"].clone()).collect();
    let mut sorted = [json!(echo), json!(ticker)];
    sorted.sort_by_key(Value::to_string);
    assert_eq!(bots, sorted);
    let first = usage("?group_by=bot&limit=1", &ada.key).await;
    let next = first["next_page_token"].as_str().unwrap();
    let second = usage(&format!("?group_by=bot&limit=1&page_token={next}"), &ada.key).await;
    assert_eq!((&first["usage"][0], &second["usage"][0]), (&by_bot["usage"][0], &by_bot["usage"][1]));
    assert!(second.get("next_page_token").is_none());

    let org = client.who_is(&ada.key).await["org_id"].as_str().unwrap().to_owned();
    agrees(&usage(&format!("?group_by=none&org_id={org}"), &operator).await["usage"][0], &used);
    let by_org = usage("?group_by=org", &operator).await;
    assert_eq!(by_org["usage"].as_array().unwrap().len(), 1);
    assert_eq!(by_org["usage"][0]["org_id"], org.as_str());
    assert_eq!(usage("?group_by=none", &bob.key).await["usage"][0]["calls"], 0);
    expect_problem(&client.get(&format!("/usage?org_id={org}"), &bob.key).await, 404, "org_not_found");
    expect_problem(&client.get("/usage?group_by=org", &bob.key).await, 403, "operator_only");
    assert_eq!(usage("?from=2026-01-01&to=2026-12-31", &ada.key).await["from"], "2026-01-01");
    for bad in [
        "?from=2026-02-01&to=2026-01-31",
        "?from=2025-01-01&to=2026-01-02",
        "?group_by=bot&bot_id=bot_00000000000000000000000000",
        "?page_token=x",
        "?limit=201",
    ] {
        expect_problem(&client.get(&format!("/usage{bad}"), &ada.key).await, 422, "invalid_fields");
    }
    for bad in ["?from=yesterday", "?from=2026-02-30", "?group_by=colour"] {
        expect_problem(&client.get(&format!("/usage{bad}"), &ada.key).await, 422, "invalid_query");
    }
    refuses_without_a_key(&client, Method::GET, "/usage").await;
}

/// What an oracle uses could carry the work to a buyer who has not paid for it, also as a part of a sum.
async fn what_a_sealed_run_used_is_in_no_sum(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "orders-oracle").await;
    let usage = async || {
        let path = format!("/usage?group_by=none&bot_id={}", market.oracle);
        market.client.get(&path, &market.buyer.key).await.expect(200)["usage"][0].clone()
    };
    let input = json!({ "input": [] });
    let job = market.funded(input).await;
    market.claim(&market.worker, &job).await;
    let failed = market.submit(&market.worker, &job, &json!("nothing of it")).await;
    assert_ne!(market.verdict(&market.worker, &failed).await["status"], "passed");
    let sums = usage().await;
    assert!(sums["calls"].as_u64().unwrap() >= 1, "{sums}");
    assert_eq!(sums["completed"], 0);
    for amount in AMOUNTS.iter().chain(&["peak_memory_bytes"]) {
        assert_eq!(sums[amount], 0, "{amount}");
    }

    let accepting = Market::deploy(&market.client, &market.buyer, "hostile/oracle-accept", json!({})).await;
    let job = market.funded(json!({ "oracle": accepting })).await;
    market.claim(&market.worker, &job).await;
    let passed = market.submit(&market.worker, &job, &json!(1)).await;
    assert_eq!(market.verdict(&market.worker, &passed).await["status"], "passed");
    let path = format!("/usage?group_by=none&bot_id={accepting}");
    let sums = market.client.get(&path, &market.buyer.key).await.expect(200)["usage"][0].clone();
    assert_eq!((&sums["calls"], &sums["completed"]), (&json!(1), &json!(1)));
    let path = format!("/bots/{accepting}/invocations");
    let call = market.client.get(&path, &market.buyer.key).await.expect(200)["invocations"][0].clone();
    assert_eq!(sums["fuel"], call["usage"]["fuel"]);
    let logs =
        market.client.get(&format!("/bots/{}/logs", market.oracle), &market.buyer.key).await.expect(200);
    assert_eq!(logs["lines"], json!([]), "sealed runs have no lines");
}
