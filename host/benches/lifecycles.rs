//! Whole lives of jobs over HTTP (post, fund, claim, submit, judged in the sandbox, paid), and how long it takes from the
//! submission to the payout, with 8 drivers at once. Beside it, in turns in the same run: durable commits of one row by 8
//! drivers on the same database engine and disk, which is what any such service is bound by.
//!
//! Needs `scripts/build-guests.sh`. `cargo bench -p ringfence --bench lifecycles` on SQLite; on PostgreSQL where
//! `RINGFENCE_TEST_POSTGRES` names a server. Ends by itself after about a minute.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a load script says what it found"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_model::Timestamp;
use ringfence_testkit::{Agent, DurableRows, Engine, Host, HostOptions, Market};
use serde_json::json;

const DRIVERS: usize = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(5);

fn main() {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
    executor.block_on(compare());
}

async fn compare() {
    let postgres = std::env::var_os("RINGFENCE_TEST_POSTGRES").is_some();
    let engine = if postgres { Engine::Postgres } else { Engine::Sqlite };
    let host = Host::start(env!("CARGO_BIN_EXE_ringfence"), engine, HostOptions::default()).await;
    let market = Arc::new(Market::new(&host, "hostile/oracle-accept").await);
    market.deposit(&market.buyer, "100000").await;
    let reference = DurableRows::new(engine, DRIVERS).await;
    let mut ratios = Vec::new();
    println!("{engine:?}, {DRIVERS} drivers, rounds of {ROUND:?} in turns");
    for _ in 0..ROUNDS {
        let commits = reference.commits(ROUND).await;
        let Found { lives, p50, p99 } = lifecycles(&market).await;
        let worth = commits / lives;
        println!(
            "{commits:.0} commits/s; {lives:.0} lifecycles/s, submitted to paid p50 {p50:.1?}, p99 {p99:.1?}: \
             a lifecycle is worth {worth:.1} commits"
        );
        ratios.push(worth);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.1} commits", ratios.get(ROUNDS / 2).copied().unwrap_or_default());
}

/// What a round found.
struct Found {
    lives: f64,
    p50: Duration,
    p99: Duration,
}

async fn lifecycles(market: &Arc<Market>) -> Found {
    let begun = Instant::now();
    let drivers: Vec<_> = (0..DRIVERS)
        .map(|_| {
            let market = Arc::clone(market);
            tokio::spawn(async move {
                let worker = Market::register(&market.client, "Worker").await;
                let mut paid = Vec::new();
                while begun.elapsed() < ROUND {
                    paid.push(life(&market, &worker).await);
                }
                paid
            })
        })
        .collect();
    let mut paid = Vec::new();
    for driver in drivers {
        paid.extend(driver.await.expect("a driver ends well"));
    }
    let lives = paid.len() as f64 / begun.elapsed().as_secs_f64();
    paid.sort_unstable();
    let at = |part: usize| paid.get(paid.len() * part / 100).copied().unwrap_or_default();
    Found { lives, p50: at(50), p99: at(99) }
}

/// One job from the posting to the payout; how long it took from the submission on, as the host says.
async fn life(market: &Market, worker: &Agent) -> Duration {
    let job = market.funded(json!({ "price": "0.01" })).await;
    market.claim(worker, &job).await;
    let begun = Instant::now();
    let submission = market.submit(worker, &job, &json!({ "work": 1 })).await;
    let path = format!("/submissions/{submission}");
    loop {
        // About as long as it takes: neither the questions nor the waiting are to be what is measured.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let found = market.client.get(&path, &worker.key).await;
        if found.text_at("/status") == "passed" {
            let at = |field: &str| found.text_at(field).parse::<Timestamp>().expect("a time");
            return at("/judged_at").since(at("/created_at"));
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "a submission is not judged");
    }
}
