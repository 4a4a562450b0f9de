use ringfence_testkit::{Engine, HostOptions, Market, expect_problem, on_both_engines};
use serde_json::json;

use super::{ACCEPTS, job, judged};
use crate::{host, host_with};

on_both_engines!(
    g13_reads_and_writes_are_limited,
    g18_an_evaluation_is_repeated_after_a_fault,
    g18_a_task_that_cannot_be_done_ends_as_a_dead_letter,
    g19_the_fee_is_20_percent_unless_it_is_named,
    g19_the_platforms_fee_is_an_option,
);

fn with(env: &[(&str, &str)]) -> HostOptions {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HostOptions { env, ..HostOptions::default() }
}

async fn g13_reads_and_writes_are_limited(engine: Engine) {
    let limits = [("RINGFENCE_READS_PER_MINUTE", "60"), ("RINGFENCE_WRITES_PER_MINUTE", "20")];
    let host = host_with(engine, with(&limits)).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let begun = std::time::Instant::now();
    let (mut reads, mut writes) = (0, 0);
    let limited = loop {
        let answer = client.get("/jobs", &ada.key).await;
        if answer.status != 200 {
            break answer;
        }
        reads += 1;
    };
    expect_problem(&limited, 429, "rate_limited");
    assert!(limited.headers.contains_key("retry-after"));
    // One comes back each second while this test asks.
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(reads >= 60 && reads <= 60 + seconds, "{reads} in {seconds} s");
    let begun = std::time::Instant::now();
    let change = json!({ "name": "Ada" });
    let limited = loop {
        let answer = client.patch(&format!("/agents/{}", ada.id), &ada.key, &change).await;
        if answer.status != 200 {
            break answer;
        }
        writes += 1;
    };
    expect_problem(&limited, 429, "rate_limited");
    assert!(writes >= 20 && writes <= 20 + begun.elapsed().as_secs() / 3 + 1, "{writes}");
    let _ = client.get("/jobs", &bob.key).await.expect(200);
}

async fn g18_an_evaluation_is_repeated_after_a_fault(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, "hostile/oracle-fault").await;
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    let submission = market.submit(&market.worker, &job, &json!(1)).await;
    let verdict = market.verdict(&market.worker, &submission).await;
    assert_eq!((&verdict["status"], &verdict["oracle_fault"]), (&json!("failed"), &json!("failed")));
    let path = format!("/bots/{}/invocations", market.oracle);
    let calls = market.client.get(&path, &market.buyer.key).await.expect(200);
    assert_eq!(calls["total"], 2, "once more, and no more");
}

/// What cannot be read is tried twenty times, with pauses; then it stays for a person to look at.
async fn g18_a_task_that_cannot_be_done_ends_as_a_dead_letter(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.post(json!({})).await;
    let broken = format!(
        "UPDATE queue SET subject_id = 'nonsense', run_at = 1, attempt = 19 WHERE subject_id = '{id}'"
    );
    assert_eq!(host.database().meddle(&broken).await, Ok(1));
    let buried =
        "UPDATE queue SET last_error = last_error WHERE subject_id = 'nonsense' AND dead_at IS NOT NULL
        AND last_error IS NOT NULL";
    let begun = std::time::Instant::now();
    while host.database().meddle(buried).await != Ok(1) {
        assert!(begun.elapsed().as_secs() < 30, "{}", host.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(host.log().contains("dead letter"));
    // The rest goes on.
    let job = market.funded(json!({})).await;
    market.claim(&market.worker, &job).await;
    assert_eq!(judged(&market, &market.worker, &job, &json!(1)).await, "passed");
}

async fn g19_the_fee_is_20_percent_unless_it_is_named(engine: Engine) {
    let host = host(engine).await;
    let market = Market::new(&host, ACCEPTS).await;
    for (more, fee_bps, payout, fees) in [
        (json!({}), 2000, "8.000000", "2.000000"),
        (json!({ "fee_bps": 0 }), 0, "10.000000", "2.000000"),
        (json!({ "fee_bps": 10_000 }), 10_000, "0.000000", "12.000000"),
        // Rounded down, to the worker's advantage.
        (json!({ "fee_bps": 3333, "price": "0.000010" }), 3333, "0.000007", "12.000003"),
    ] {
        let id = market.funded(more).await;
        let worker = Market::register(&market.client, "Worker").await;
        market.claim(&worker, &id).await;
        assert_eq!(judged(&market, &worker, &id, &json!(1)).await, "passed");
        let job = job(&market, &id).await;
        assert_eq!((&job["fee_bps"], &job["payout"]), (&json!(fee_bps), &json!(payout)));
        assert_eq!(market.balance(&worker.key).await, payout);
        assert_eq!(market.balance(&market.operator).await, fees);
    }
}

async fn g19_the_platforms_fee_is_an_option(engine: Engine) {
    let host = host_with(engine, with(&[("PLATFORM_FEE_BPS", "500")])).await;
    let market = Market::new(&host, ACCEPTS).await;
    let id = market.post(json!({})).await;
    let posted = job(&market, &id).await;
    assert_eq!((&posted["fee_bps"], &posted["payout"]), (&json!(500), &json!("9.500000")));
    let named = market.post(json!({ "fee_bps": 1000 })).await;
    assert_eq!(job(&market, &named).await["fee_bps"], 1000);
}
