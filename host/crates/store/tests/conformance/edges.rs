//! Where the engines differ, or where a thing is done in two ways: what has gone wrong, or nearly.

use std::time::Duration;

use ringfence_model::{AccountId, JobStatus, MicroUsdc, OrgId, Timestamp, TransferId};
use ringfence_store::jobs::{self, Job, JobFilter, JobSort};
use ringfence_store::ledger::{
    self, Account, AccountKind, Posted, Transfer, TransferFilter, TransferKind, TransferPhase,
};
use ringfence_store::submissions::{self, Participant};
use ringfence_store::{Store, Tx, queue};
use ringfence_testkit::{Database, Engine, on_both_engines};
use serde_json::json;

use crate::fixture::{self, Fixture};

on_both_engines!(
    a_balance_never_runs_over,
    an_account_lists_both_sides_newest_first,
    who_wrote_about_a_job_can_lock_it,
    a_job_ends_only_in_an_end,
    few_and_many_in_a_range_are_listed_alike,
    work_is_due_when_it_can_be_taken,
    several_hosts_open_a_new_database_at_once,
);

/// The outside and an agent.
async fn accounts(fixture: &Fixture, tx: &mut Tx) -> (Account, Account) {
    let mut opened = Vec::new();
    for (kind, owner) in [(AccountKind::External, OrgId::platform().as_str()), (AccountKind::Agent, "agent")]
    {
        let id = AccountId::new(&fixture.clock, &fixture.rng);
        let empty = Account::empty(id, fixture.buyer.org_id.clone(), kind, owner.to_owned());
        // A new account is empty, whatever is wanted: only a transfer moves money.
        let wanted = Account { balance_micros: 1_000_000, ..empty };
        let [account] = ledger::ensure_accounts(tx, [wanted]).await.unwrap();
        assert_eq!(account.balance_micros, 0);
        opened.push(account);
    }
    let agent = opened.pop().unwrap();
    (opened.pop().unwrap(), agent)
}

fn transfer(fixture: &Fixture, from: &Account, to: &Account, micros: i64, once: &str) -> Transfer {
    fixture.tick();
    Transfer {
        id: TransferId::new(&fixture.clock, &fixture.rng),
        org_id: from.org_id.clone(),
        kind: TransferKind::Deposit,
        phase: TransferPhase::Single,
        pending_id: None,
        debit: from.id.clone(),
        credit: to.id.clone(),
        amount: MicroUsdc::from_micros(micros).unwrap(),
        job_id: None,
        idempotency_id: once.to_owned(),
        external_reference: None,
        created_at: fixture.now(),
    }
}

/// SQLite would go on with a floating-point number.
async fn a_balance_never_runs_over(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut tx = fixture.tx().await;
    let (outside, agent) = accounts(&fixture, &mut tx).await;
    let most = transfer(&fixture, &outside, &agent, i64::MAX, "most");
    assert_eq!(ledger::post(&mut tx, &most).await.unwrap(), Posted::Posted);
    tx.commit().await.unwrap();
    for micros in [1, 2, i64::MAX] {
        let mut tx = fixture.tx().await;
        let more = transfer(&fixture, &outside, &agent, micros, "more");
        assert!(ledger::post(&mut tx, &more).await.is_err(), "{micros}");
    }
    let mut reader = fixture.reader().await;
    let agent = ledger::account(&mut reader, agent.kind, &agent.owner_id).await.unwrap().unwrap();
    assert_eq!(agent.balance_micros, i64::MAX);
    assert_eq!(ledger::check(&mut reader).await.unwrap(), []);
}

async fn an_account_lists_both_sides_newest_first(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut tx = fixture.tx().await;
    let (outside, agent) = accounts(&fixture, &mut tx).await;
    let mut all = Vec::new();
    for number in 0..4 {
        let mut deposit = transfer(&fixture, &outside, &agent, 10, &format!("in-{number}"));
        deposit.external_reference = Some(format!("wire-{number}"));
        let withdrawal = transfer(&fixture, &agent, &outside, 10, &format!("out-{number}"));
        for movement in [deposit, withdrawal] {
            assert_eq!(ledger::post(&mut tx, &movement).await.unwrap(), Posted::Posted);
            all.insert(0, movement);
        }
    }
    let newest = (Timestamp::from_micros(i64::MAX), String::new());
    for (limit, offset) in [(8, 0usize), (3, 2), (5, 6), (2, 8)] {
        // Behind the one before the first that is wanted.
        let before = offset.checked_sub(1).map(|last| (all[last].created_at, all[last].id.to_string()));
        let before = before.unwrap_or_else(|| newest.clone());
        let filter = TransferFilter { kind: None, since: fixture::start(), before, limit };
        let found = ledger::of_account(&mut tx, &agent.id, &filter).await.unwrap();
        let expected: Vec<_> = all.iter().skip(offset).take(limit as usize).cloned().collect();
        assert_eq!(found, expected, "{limit} {offset}");
    }
    let since = all[4].created_at;
    let filter =
        TransferFilter { kind: Some(TransferKind::Deposit), since, before: newest.clone(), limit: 9 };
    assert_eq!(ledger::of_account(&mut tx, &agent.id, &filter).await.unwrap(), all[..5]);
    let filter = TransferFilter { kind: Some(TransferKind::Payout), since, before: newest, limit: 9 };
    assert_eq!(ledger::of_account(&mut tx, &agent.id, &filter).await.unwrap(), []);
    // What was booked is not refused for want of the money that has left since.
    let mut again = transfer(&fixture, &agent, &outside, 10, "other");
    assert_eq!(ledger::post(&mut tx, &again).await.unwrap(), Posted::InsufficientFunds);
    again.external_reference = Some("wire-3".to_owned());
    assert_eq!(ledger::post(&mut tx, &again).await.unwrap(), Posted::AlreadyPosted);
    again = Transfer { idempotency_id: "out-0".to_owned(), external_reference: None, ..again };
    assert_eq!(ledger::post(&mut tx, &again).await.unwrap(), Posted::AlreadyPosted);
}

/// A row that refers to a job shares it. Two that have each written one must not wait for each other to end.
async fn who_wrote_about_a_job_can_lock_it(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let job = fixture.claimed_job().await;
    let mut others = Vec::new();
    let mut tx = fixture.tx().await;
    for name in ["one", "other"] {
        let agent = fixture::agent(&mut tx, &fixture.clock, &fixture.rng, name).await;
        let claim = fixture.participant(&job);
        others.push(Participant { worker_id: agent.id, org_id: agent.org_id, ..claim });
    }
    tx.commit().await.unwrap();
    let tasks: Vec<_> = others
        .into_iter()
        .map(|claim| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                assert!(submissions::claim(&mut tx, &claim).await.unwrap());
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(jobs::lock(&mut tx, &claim.job_id).await.unwrap().is_some());
                tx.commit().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn a_job_ends_only_in_an_end(engine: Engine) {
    use JobStatus::{Cancelled, Expired, Funded, Open, Resolved};
    let fixture = Fixture::new(engine).await;
    let job = fixture.claimed_job().await;
    let mut tx = fixture.tx().await;
    for to in [Open, Funded, Resolved] {
        assert!(!jobs::end(&mut tx, &job.id, to, Funded, None, fixture.now()).await.unwrap(), "{to}");
    }
    assert!(jobs::end(&mut tx, &job.id, Expired, Funded, Some(job.price), fixture.now()).await.unwrap());
    assert!(!jobs::end(&mut tx, &job.id, Cancelled, Expired, Some(job.price), fixture.now()).await.unwrap());
}

/// A listing that leaves out what is outside of a range of prices is led by one index if many are in it, and by another
/// if few are. What is found is the same, in the same order.
async fn few_and_many_in_a_range_are_listed_alike(engine: Engine) {
    const MANY: i64 = 1_500;
    let fixture = Fixture::new(engine).await;
    let job = fixture.job(1);
    let mut tx = fixture.tx().await;
    jobs::insert(&mut tx, &job, None).await.unwrap();
    tx.commit().await.unwrap();
    // The dearer a job, the older it is, and the longer it runs.
    let copies = "INSERT INTO jobs (id, org_id, buyer_id, title, description, rubric, artifact_type, price, fee_bps,
            expiry, max_submissions, max_retries, status, oracle_bot_id, created_at, updated_at)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1499)
        SELECT 'job_0000000000000000000' || (1000000 + n), org_id, buyer_id, title, description, rubric, artifact_type,
            price + n, fee_bps, expiry + n, max_submissions, max_retries, status, oracle_bot_id, created_at - n,
            updated_at
        FROM jobs, n";
    fixture.meddle(engine, copies).await;
    let mut reader = fixture.reader().await;
    for cheapest in [1, 2, 600, 1_400] {
        for sort_by in [JobSort::CreatedAt, JobSort::Price, JobSort::Expiry] {
            for descending in [false, true] {
                let filter = JobFilter {
                    party: None,
                    status: Some(JobStatus::Open),
                    buyer_id: None,
                    worker_id: None,
                    claims_seen_by: None,
                    artifact_type: None,
                    min_price: MicroUsdc::from_micros(cheapest),
                    max_price: None,
                    sort_by,
                    descending,
                    limit: 2,
                    offset: 1,
                };
                let page = jobs::list(&mut reader, &filter).await.unwrap();
                let dearest_first = descending != (sort_by == JobSort::CreatedAt);
                let expected =
                    if dearest_first { [MANY - 1, MANY - 2] } else { [cheapest + 1, cheapest + 2] };
                let prices: Vec<_> = page.items.iter().map(|job: &Job| job.price.as_micros()).collect();
                assert_eq!(prices, expected, "{filter:?}");
                assert_eq!(
                    page.total,
                    u64::try_from(MANY - cheapest + 1).unwrap().min(ringfence_store::COUNTED)
                );
            }
        }
    }
}

async fn work_is_due_when_it_can_be_taken(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let at = |seconds| fixture::start().plus(Duration::from_secs(seconds));
    let mut tx = fixture.tx().await;
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), None);
    for (id, seconds) in [("a", 10), ("b", 20)] {
        let item = queue::NewItem {
            id: id.to_owned(),
            org_id: fixture.buyer.org_id.clone(),
            kind: "evaluate".to_owned(),
            payload: json!({}),
            subject_id: id.to_owned(),
            run_at: at(seconds),
            created_at: at(0),
        };
        assert!(queue::put(&mut tx, &item).await.unwrap());
    }
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), Some(at(10)));
    assert_eq!(queue::lease(&mut tx, "evaluate", "host", at(10), at(40), 9).await.unwrap().len(), 1);
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), Some(at(20)));
    assert_eq!(queue::lease(&mut tx, "evaluate", "host", at(20), at(50), 9).await.unwrap().len(), 1);
    // Both are held: what was taken first can be taken next, when its lease ends.
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), Some(at(40)));
    assert!(queue::extend(&mut tx, "a", 1, at(60)).await.unwrap());
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), Some(at(50)));
    assert!(queue::retry(&mut tx, "b", 1, at(55), "later").await.unwrap());
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), Some(at(55)));
    assert!(queue::bury(&mut tx, "a", 1, "poison", at(30)).await.unwrap());
    assert!(queue::lease(&mut tx, "evaluate", "host", at(55), at(99), 9).await.unwrap()[0].attempt == 2);
    assert!(queue::finish(&mut tx, "b", 2).await.unwrap());
    assert_eq!(queue::next_due(&mut tx, "evaluate").await.unwrap(), None);
}

async fn several_hosts_open_a_new_database_at_once(engine: Engine) {
    let database = Database::new(engine).await;
    let hosts: Vec<_> = (0..4)
        .map(|_| {
            let url = database.url().to_owned();
            tokio::spawn(async move { Store::connect(&url).await.map(|_| ()) })
        })
        .collect();
    for host in hosts {
        host.await.unwrap().unwrap();
    }
}
