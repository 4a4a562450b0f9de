//! What listing 50 jobs costs with 1,000,000 jobs in the table, over what it costs with 1,000: every filter alone, some
//! together, in every order. On SQLite; on PostgreSQL where `RINGFENCE_TEST_POSTGRES` names a server.
//!
//! `cargo bench -p ringfence-store --bench listing`. The larger table takes a minute or two to fill. `JOBS` sets another size.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::{Duration, Instant};

use ringfence_model::{AgentId, JobStatus, MicroUsdc};
use ringfence_store::Store;
use ringfence_store::jobs::{self, JobFilter, JobSort};
use ringfence_testkit::{Database, Engine};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

const SMALL: u64 = 1_000;
const BUYERS: u64 = 20;
const CLAIMS: u64 = 200;
const ROUNDS: usize = 41;

/// The id with this number.
fn id(engine: Engine, prefix: &str, number: &str) -> String {
    match engine {
        Engine::Sqlite => format!("'{prefix}_01JZ' || printf('%022d', {number})"),
        Engine::Postgres => format!("'{prefix}_01JZ' || lpad(({number})::text, 22, '0')"),
    }
}

/// As many jobs of `BUYERS` buyers, of all states, kinds and prices; one worker has claimed `CLAIMS` of them.
async fn fill(engine: Engine, url: &str, jobs: u64) {
    let (job, buyer) = (id(engine, "job", "i"), id(engine, "agent", &format!("i % {BUYERS}")));
    let (org, bot) = (id(engine, "org", "1"), id(engine, "bot", "1"));
    let numbers = |to: u64| {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {to})"
        )
    };
    let mixed = |by: u64, modulus: u64| format!("((i * {by}) % {modulus})");
    let digest = "'0000000000000000000000000000000000000000000000000000000000000000'";
    let all = [
        format!("INSERT INTO orgs (id, name, created_at) VALUES ({org}, 'org', 0)"),
        format!(
            "INSERT INTO agents (id, org_id, name, created_at, updated_at)
             SELECT {buyer}, {org}, 'agent', 0, 0 FROM ({} SELECT i FROM n) AS n",
            numbers(BUYERS)
        ),
        format!(
            "INSERT INTO components (org_id, digest, kind, size_bytes, imports, capabilities, created_at, wasm)
             VALUES ({org}, {digest}, 'oracle', 0, '[]', '[]', 0, '')"
        ),
        format!(
            "INSERT INTO bots (id, org_id, name, description, kind, version, component_digest, config, grants, limits,
             status, created_at, updated_at)
             VALUES ({bot}, {org}, 'oracle', '', 'oracle', 1, {digest}, '{{}}', '{{}}', '{{}}', 'running', 0, 0)"
        ),
        format!(
            "INSERT INTO jobs (id, org_id, buyer_id, title, description, rubric, artifact_type, price, fee_bps, expiry,
             max_submissions, max_retries, status, oracle_bot_id, winning_submission_id, created_at, updated_at)
             SELECT {job}, {org}, {buyer}, 'A title of usual length', 'A description. ' || {job}, 'A rubric.',
                 'kind-' || {}, 1 + {} * 1000, 2000, {} * 1000000, 100, 3,
                 CASE {status} WHEN 0 THEN 'open' WHEN 1 THEN 'funded' WHEN 2 THEN 'funded' WHEN 3 THEN 'expired'
                     WHEN 4 THEN 'cancelled' ELSE 'resolved' END,
                 {bot}, CASE WHEN {status} > 4 THEN {job_sub} END, i * 1000000, 0
             FROM ({} SELECT i FROM n) AS n",
            mixed(7, 20),
            mixed(7_919, 1_000_003),
            mixed(104_729, 1_000_003),
            numbers(jobs),
            status = mixed(31, 10),
            job_sub = id(engine, "sub", "i"),
        ),
        format!(
            "INSERT INTO participants (id, job_id, worker_id, org_id, buyer_org_id, claimed_at)
             SELECT 'claim' || i, {}, {}, {org}, {org}, 0 FROM ({} SELECT i FROM n) AS n",
            id(engine, "job", &format!("i * {}", jobs / CLAIMS)),
            id(engine, "agent", "1"),
            numbers(CLAIMS)
        ),
    ];
    match engine {
        Engine::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            for sql in ["PRAGMA synchronous = OFF".to_owned()].into_iter().chain(all) {
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            }
        }
        Engine::Postgres => {
            let mut connection = PgConnection::connect(url).await.unwrap();
            // What autovacuum does sooner or later.
            for sql in all.into_iter().chain(["VACUUM ANALYZE".to_owned()]) {
                sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            }
        }
    }
}

fn filters() -> Vec<(&'static str, JobFilter)> {
    let agent = |text: &str| text.parse::<AgentId>().unwrap();
    let buyer = agent("agent_01JZ0000000000000000000003");
    let worker = agent("agent_01JZ0000000000000000000001");
    let price = |micros| MicroUsdc::from_micros(micros);
    let all = JobFilter {
        party: None,
        status: None,
        buyer_id: None,
        worker_id: None,
        claims_seen_by: None,
        artifact_type: None,
        min_price: None,
        max_price: None,
        sort_by: JobSort::CreatedAt,
        descending: true,
        limit: 50,
        offset: 0,
    };
    let kind = || Some("kind-7".to_owned());
    let status = Some(JobStatus::Funded);
    vec![
        ("all", all.clone()),
        ("status", JobFilter { status, ..all.clone() }),
        ("buyer", JobFilter { buyer_id: Some(buyer), ..all.clone() }),
        ("worker", JobFilter { worker_id: Some(worker), ..all.clone() }),
        ("type", JobFilter { artifact_type: kind(), ..all.clone() }),
        ("price, half", JobFilter { min_price: price(500_000_000), ..all.clone() }),
        (
            "price, a twentieth",
            JobFilter { min_price: price(500_000_000), max_price: price(550_000_000), ..all.clone() },
        ),
        ("status, type", JobFilter { status, artifact_type: kind(), ..all.clone() }),
        ("status, price, half", JobFilter { status, min_price: price(500_000_000), ..all.clone() }),
        ("offset 500", JobFilter { offset: 500, ..all }),
    ]
}

async fn listed(store: &Store, filter: &JobFilter) -> Duration {
    let mut session = store.reader().await.unwrap();
    let begun = Instant::now();
    let page = jobs::list(&mut session, filter).await.unwrap();
    let took = begun.elapsed();
    assert!(page.total >= page.items.len() as u64);
    took
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

async fn compare(engine: Engine, large: u64) {
    let mut stores = Vec::new();
    for jobs in [SMALL, large] {
        let database = Database::new(engine).await;
        let store = Store::connect(database.url()).await.unwrap();
        let begun = Instant::now();
        fill(engine, database.url(), jobs).await;
        println!("{engine:?}: {jobs} jobs are there after {:.0?}", begun.elapsed());
        stores.push((store, database));
    }
    let [(small, _), (large, _)] = stores.as_slice() else { return };
    for (name, filter) in filters() {
        for sort_by in [JobSort::CreatedAt, JobSort::Price, JobSort::Expiry] {
            let filter = JobFilter { sort_by, ..filter.clone() };
            let (mut few, mut many) = (Vec::new(), Vec::new());
            // In turns, so that what else the machine does falls on both.
            for _ in 0..ROUNDS {
                few.push(listed(small, &filter).await);
                many.push(listed(large, &filter).await);
            }
            let (few, many) = (median(few), median(many));
            println!(
                "{engine:?}  {name:<20} by {sort_by:?}: {few:>7.3} ms, {many:>8.3} ms: {:>6.2} ×",
                many / few
            );
        }
    }
}

fn main() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let large = std::env::var("JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1_000_000);
    tokio.block_on(async {
        let postgres = std::env::var_os("RINGFENCE_TEST_POSTGRES").is_some();
        compare(if postgres { Engine::Postgres } else { Engine::Sqlite }, large).await;
    });
}
