//! What is written is read back, and every change of state says whether its guard held.

use ringfence_model::*;
use ringfence_store::StoreError;
use ringfence_store::accounts;
use ringfence_store::bots::{self, BotFilter};
use ringfence_store::components::{self, ComponentKind};
use ringfence_store::invocations::{self, Invocation, Usage};
use ringfence_store::jobs::{self, JobFilter, JobSort, Payout};
use ringfence_store::outbox::{self, Event};
use ringfence_store::records::{self, Record};
use ringfence_store::submissions::{self, Judgement};
use ringfence_testkit::{Engine, on_both_engines};
use serde_json::json;

use crate::fixture::{self, Fixture};

on_both_engines!(
    orgs_and_agents,
    components_are_an_orgs_own,
    bots_by_name_and_version,
    jobs_change_state_once,
    an_escrow_is_disputed_and_held_again,
    jobs_are_listed,
    claims_and_attempts,
    one_submission_wins,
    invocations_and_logs,
    calls_are_recorded_by_the_hundred,
    events_in_order,
    what_is_not_committed_is_not_there
);

async fn orgs_and_agents(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    assert_eq!(accounts::agent(&mut tx, &f.buyer.id).await.unwrap().as_ref(), Some(&f.buyer));
    let changed = accounts::Agent { name: "New".to_owned(), wallet_address: None, ..f.buyer.clone() };
    assert!(accounts::update_agent(&mut tx, &changed).await.unwrap());
    assert_eq!(accounts::agent(&mut tx, &f.buyer.id).await.unwrap(), Some(changed));
    let unknown = accounts::Agent { id: AgentId::new(&f.clock, &f.rng), ..f.buyer.clone() };
    assert!(!accounts::update_agent(&mut tx, &unknown).await.unwrap());
    let org = accounts::lock_org(&mut tx, &f.buyer.org_id).await.unwrap().unwrap();
    assert_eq!((org.id, org.name.as_str()), (f.buyer.org_id.clone(), "Buyer"));
    assert_eq!(accounts::lock_org(&mut tx, &OrgId::new(&f.clock, &f.rng)).await.unwrap(), None);
}

async fn components_are_an_orgs_own(engine: Engine) {
    let f = Fixture::new(engine).await;
    let component = fixture::component(&f.buyer.org_id, b"\0asm\xff\x00 bytes", ComponentKind::Bot);
    let mut tx = f.tx().await;
    assert!(components::insert(&mut tx, &component, b"\0asm\xff\x00 bytes").await.unwrap());
    assert!(!components::insert(&mut tx, &component, b"\0asm\xff\x00 bytes").await.unwrap());
    assert_eq!(
        components::get(&mut tx, &f.buyer.org_id, &component.digest).await.unwrap(),
        Some(component.clone())
    );
    assert_eq!(components::get(&mut tx, &f.worker.org_id, &component.digest).await.unwrap(), None);
    assert_eq!(
        components::wasm(&mut tx, &component.digest).await.unwrap().as_deref(),
        Some(&b"\0asm\xff\x00 bytes"[..])
    );
    let page = components::list(&mut tx, &f.buyer.org_id, 1, 0).await.unwrap();
    assert_eq!((page.total, page.items.len()), (2, 1));
}

async fn bots_by_name_and_version(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    assert_eq!(bots::get(&mut tx, &f.oracle.id).await.unwrap().as_ref(), Some(&f.oracle));
    let filter = BotFilter {
        status: Some(BotStatus::Running),
        kind: Some(ComponentKind::Oracle),
        name: Some("oracle".to_owned()),
    };
    assert_eq!(
        bots::list(&mut tx, &f.buyer.org_id, &filter, 10, 0).await.unwrap().items,
        std::slice::from_ref(&f.oracle)
    );
    let none = BotFilter { kind: Some(ComponentKind::Bot), ..BotFilter::default() };
    assert_eq!(bots::list(&mut tx, &f.buyer.org_id, &none, 10, 0).await.unwrap().total, 0);
    assert_eq!(bots::list(&mut tx, &f.worker.org_id, &BotFilter::default(), 10, 0).await.unwrap().total, 0);
    let deployed = bots::deployed(&mut tx, "", 10).await.unwrap();
    assert!(deployed.contains(&(f.oracle.id.clone(), f.oracle.component_digest)), "{deployed:?}");
    let last = &deployed.last().unwrap().0;
    assert_eq!(bots::deployed(&mut tx, "", 1).await.unwrap(), deployed[..1]);
    assert_eq!(bots::deployed(&mut tx, last.as_str(), 10).await.unwrap(), []);
    let changed = bots::Bot { version: 2, name: "judge".to_owned(), ..f.oracle.clone() };
    assert!(bots::update(&mut tx, &changed, 1).await.unwrap());
    assert!(!bots::update(&mut tx, &changed, 1).await.unwrap(), "another change came before");
    assert!(!bots::used_by_unfinished_job(&mut tx, &f.oracle.id).await.unwrap());
    jobs::insert(&mut tx, &f.job(1), None).await.unwrap();
    assert!(bots::used_by_unfinished_job(&mut tx, &f.oracle.id).await.unwrap());
    assert!(bots::terminate(&mut tx, &f.oracle.id, f.now()).await.unwrap());
    assert!(!bots::terminate(&mut tx, &f.oracle.id, f.now()).await.unwrap());
    assert!(!bots::update(&mut tx, &bots::Bot { version: 3, ..changed.clone() }, 2).await.unwrap());
    let again = bots::Bot { id: BotId::new(&f.clock, &f.rng), ..changed.clone() };
    bots::insert(&mut tx, &again).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let taken = bots::Bot { id: BotId::new(&f.clock, &f.rng), ..changed };
    assert!(matches!(bots::insert(&mut tx, &taken).await, Err(StoreError::Conflict(_))));
}

async fn jobs_change_state_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let job = f.job(5);
    jobs::insert(&mut tx, &job, Some("[1]")).await.unwrap();
    assert_eq!(jobs::get(&mut tx, &job.id).await.unwrap().as_ref(), Some(&job));
    assert_eq!(jobs::lock(&mut tx, &job.id).await.unwrap().as_ref(), Some(&job));
    assert_eq!(jobs::input(&mut tx, &job.id).await.unwrap().as_deref(), Some("[1]"));
    let (winner, worker, org) = (SubmissionId::new(&f.clock, &f.rng), &f.worker.id, &f.worker.org_id);
    let (status, excess_refunded) = (PayoutStatus::Success, MicroUsdc::from_micros(1));
    let payout = Payout { status, error: None, excess_refunded };
    let resolve = async |tx: &mut ringfence_store::Tx| {
        jobs::resolve(tx, &job.id, &winner, worker, org, &payout, f.now()).await.unwrap()
    };
    assert!(!resolve(&mut tx).await, "open");
    let funded = jobs::fund(&mut tx, &job.id, &json!({ "p": 1 }), job.price, f.now()).await.unwrap();
    assert_eq!(funded.as_ref().map(|funded| funded.status), Some(JobStatus::Funded));
    assert_eq!(jobs::get(&mut tx, &job.id).await.unwrap(), funded);
    assert_eq!(jobs::fund(&mut tx, &job.id, &json!({}), job.price, f.now()).await.unwrap(), None);
    let pinned = jobs::pinned(&mut tx, None, 10).await.unwrap();
    let [only] = &pinned[..] else { panic!("{pinned:?}") };
    assert_eq!((&only.id, only.created_at, &only.pin), (&job.id, job.created_at, &Some(json!({ "p": 1 }))));
    assert_eq!(jobs::pinned(&mut tx, Some(only), 10).await.unwrap(), []);
    assert!(
        !jobs::end(&mut tx, &job.id, JobStatus::Cancelled, JobStatus::Open, None, f.now()).await.unwrap()
    );
    assert!(resolve(&mut tx).await);
    assert!(!resolve(&mut tx).await);
    assert!(
        !jobs::end(&mut tx, &job.id, JobStatus::Expired, JobStatus::Funded, None, f.now()).await.unwrap()
    );
    assert!(
        !jobs::end(&mut tx, &job.id, JobStatus::Cancelled, JobStatus::Resolved, None, f.now()).await.unwrap()
    );
    let ended = jobs::get(&mut tx, &job.id).await.unwrap().unwrap();
    assert_eq!(
        (ended.status, ended.winning_submission_id, ended.payout_status),
        (JobStatus::Resolved, Some(winner), Some(PayoutStatus::Success))
    );
    assert_eq!((ended.escrow_status, ended.payout_error), (Some(EscrowStatus::Released), None));
    assert_eq!(ended.excess_refunded, excess_refunded);
    assert_eq!((ended.oracle_pin, ended.deposit_amount), (Some(json!({ "p": 1 })), Some(job.price)));
    let other = f.job(5);
    jobs::insert(&mut tx, &other, None).await.unwrap();
    assert!(
        jobs::end(&mut tx, &other.id, JobStatus::Expired, JobStatus::Open, Some(job.price), f.now())
            .await
            .unwrap()
    );
    assert_eq!(jobs::get(&mut tx, &other.id).await.unwrap().unwrap().refunded_amount, Some(job.price));
    assert_eq!(jobs::input(&mut tx, &other.id).await.unwrap(), None);
}

async fn an_escrow_is_disputed_and_held_again(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (job, open) = (f.claimed_job().await, f.job(5));
    let mut tx = f.tx().await;
    jobs::insert(&mut tx, &open, None).await.unwrap();
    assert!(!jobs::dispute(&mut tx, &open.id, f.now()).await.unwrap(), "there is no escrow");
    assert!(!jobs::resume(&mut tx, &job.id, f.now()).await.unwrap(), "it is held");
    assert_eq!(jobs::fault(&mut tx, &job.id, f.now()).await.unwrap(), 1);
    jobs::no_fault(&mut tx, &job.id).await.unwrap();
    for faults in 1..=3 {
        assert_eq!(jobs::fault(&mut tx, &job.id, f.now()).await.unwrap(), faults, "in a row");
    }
    assert!(jobs::dispute(&mut tx, &job.id, f.now()).await.unwrap());
    assert!(!jobs::dispute(&mut tx, &job.id, f.now()).await.unwrap(), "once");
    let winner = SubmissionId::new(&f.clock, &f.rng);
    let (worker, org) = (&f.worker.id, &f.worker.org_id);
    let payout = Payout { status: PayoutStatus::Success, error: None, excess_refunded: None };
    let paid = jobs::resolve(&mut tx, &job.id, &winner, worker, org, &payout, f.now());
    assert!(!paid.await.unwrap(), "nothing is paid from a disputed escrow");
    let submission = f.submission(&job, 1);
    submissions::insert(&mut tx, &submission).await.unwrap();
    assert_eq!(submissions::being_judged(&mut tx, &job.id).await.unwrap(), [submission.id]);
    assert!(jobs::resume(&mut tx, &job.id, f.now()).await.unwrap());
    assert_eq!(jobs::fault(&mut tx, &job.id, f.now()).await.unwrap(), 1, "they are counted anew");
    let held = jobs::get(&mut tx, &job.id).await.unwrap().unwrap();
    assert_eq!(held.escrow_status, Some(EscrowStatus::Held));
}

async fn jobs_are_listed(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut prices = Vec::new();
    for price in [30, 10, 20, 10] {
        let mut tx = f.tx().await;
        jobs::insert(&mut tx, &f.job(price), None).await.unwrap();
        tx.commit().await.unwrap();
        f.tick();
        prices.push(price);
    }
    let all = JobFilter {
        party: None,
        status: None,
        buyer_id: None,
        worker_id: None,
        claims_seen_by: None,
        artifact_type: None,
        min_price: None,
        max_price: None,
        sort_by: JobSort::Price,
        descending: false,
        limit: 10,
        offset: 0,
    };
    let mut reader = f.reader().await;
    let page = jobs::list(&mut reader, &all).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|job| job.price.as_micros()).collect();
    assert_eq!(found, [10, 10, 20, 30]);
    assert!(page.items[0].id < page.items[1].id, "equal ones by id");
    let part = JobFilter { min_price: MicroUsdc::from_micros(11), limit: 1, offset: 1, ..all.clone() };
    let page = jobs::list(&mut reader, &part).await.unwrap();
    assert_eq!((page.total, page.items[0].price.as_micros()), (2, 30));
    let mine = JobFilter { worker_id: Some(f.worker.id.clone()), ..all };
    assert_eq!(jobs::list(&mut reader, &mine).await.unwrap().total, 0);
    let job = f.claimed_job().await;
    assert_eq!(jobs::list(&mut reader, &mine).await.unwrap().items[0].id, job.id);
}

async fn claims_and_attempts(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.claimed_job().await;
    let mut tx = f.tx().await;
    assert!(!submissions::claim(&mut tx, &f.participant(&job)).await.unwrap(), "once");
    assert!(submissions::is_participant(&mut tx, &job.id, &f.worker.id).await.unwrap());
    assert!(!submissions::is_participant(&mut tx, &job.id, &f.buyer.id).await.unwrap());
    for (org, found) in [(None, 1), (Some(&f.worker.org_id), 1), (Some(&f.buyer.org_id), 0)] {
        let page = submissions::participants(&mut tx, &job.id, org, 10, 0).await.unwrap();
        assert_eq!((page.total, page.items.len()), (found, found as usize));
    }
    let none = submissions::attempts(&mut tx, &job.id, &f.worker.id).await.unwrap();
    assert_eq!((none.claimed, none.last_attempt, none.counted_total), (true, 0, 0));
    assert!(!submissions::attempts(&mut tx, &job.id, &f.buyer.id).await.unwrap().claimed);
    let first = f.submission(&job, 1);
    submissions::insert(&mut tx, &first).await.unwrap();
    f.tick();
    let second = f.submission(&job, 2);
    submissions::insert(&mut tx, &second).await.unwrap();
    assert_eq!(submissions::judging_count(&mut tx, &job.id).await.unwrap(), 2);
    let fault = Judgement {
        score: None,
        reason: "the oracle".to_owned(),
        steps: None,
        oracle_fault: Some("timed_out".to_owned()),
        invocation_id: None,
    };
    assert!(
        submissions::judged(&mut tx, &first.id, SubmissionStatus::Failed, &fault, f.now()).await.unwrap()
    );
    assert!(
        !submissions::judged(&mut tx, &first.id, SubmissionStatus::Passed, &fault, f.now()).await.unwrap(),
        "once"
    );
    let attempts = submissions::attempts(&mut tx, &job.id, &f.worker.id).await.unwrap();
    assert_eq!(
        (
            attempts.last_attempt,
            attempts.counted_by_worker,
            attempts.counted_total,
            attempts.faulted_by_worker
        ),
        (2, 1, 1, 1)
    );
    assert_eq!(submissions::attempts(&mut tx, &job.id, &f.buyer.id).await.unwrap().counted_by_worker, 0);
    assert_eq!(submissions::get(&mut tx, &second.id).await.unwrap().as_ref(), Some(&second));
    let of_job = submissions::list_of_job(&mut tx, &job.id, 10, 0).await.unwrap();
    assert_eq!((of_job.items[0].id.clone(), of_job.total), (first.id.clone(), 2), "oldest first");
    let of_worker = submissions::list_of_worker(&mut tx, &f.worker.id, 1, 0).await.unwrap();
    assert_eq!((of_worker.items[0].id.clone(), of_worker.total), (second.id.clone(), 2), "newest first");
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let same_attempt = f.submission(&job, 2);
    assert!(matches!(submissions::insert(&mut tx, &same_attempt).await, Err(StoreError::Conflict(_))));
}

async fn one_submission_wins(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.claimed_job().await;
    let mut tx = f.tx().await;
    let rows: Vec<_> = (1..=3).map(|attempt| f.submission(&job, attempt)).collect();
    for row in &rows {
        submissions::insert(&mut tx, row).await.unwrap();
    }
    let pass = Judgement {
        score: Some(100),
        reason: "good".to_owned(),
        steps: Some(json!([{ "name": "n" }])),
        oracle_fault: None,
        invocation_id: None,
    };
    assert!(
        submissions::judged(&mut tx, &rows[0].id, SubmissionStatus::Passed, &pass, f.now()).await.unwrap()
    );
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let second = submissions::judged(&mut tx, &rows[1].id, SubmissionStatus::Passed, &pass, f.now()).await;
    assert!(
        matches!(second, Err(StoreError::Conflict(_))),
        "the index keeps a second winner out: {second:?}"
    );
    drop(tx);
    let mut tx = f.tx().await;
    let mut closed: Vec<_> = submissions::close_all(&mut tx, &job.id, "over", f.now())
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.id)
        .collect();
    closed.sort();
    assert_eq!(
        closed,
        [rows[1].id.clone(), rows[2].id.clone()]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    let won = submissions::get(&mut tx, &rows[0].id).await.unwrap().unwrap();
    assert_eq!((won.score, won.steps, won.judged_at), (Some(100), pass.steps, Some(f.now())));
}

async fn invocations_and_logs(engine: Engine) {
    let f = Fixture::new(engine).await;
    let call = f.call();
    let mut tx = f.tx().await;
    let lines = Some(r#"[{"message":"m"}]"#.to_owned());
    records::insert(&mut tx, &[Record { call: call.clone(), lines }]).await.unwrap();
    assert_eq!(invocations::get(&mut tx, &call.id).await.unwrap().as_ref(), Some(&call));
    assert_eq!(invocations::logs(&mut tx, &call.id).await.unwrap(), Some(json!([{ "message": "m" }])));
    f.tick();
    let silent = Invocation { id: InvocationId::new(&f.clock, &f.rng), started_at: f.now(), ..call.clone() };
    records::insert(&mut tx, &[Record { call: silent.clone(), lines: None }]).await.unwrap();
    assert_eq!(invocations::logs(&mut tx, &silent.id).await.unwrap(), None);
    let page = invocations::list(&mut tx, &f.oracle.id, 1, 0).await.unwrap();
    assert_eq!((page.total, page.items), (2, vec![silent]));
}

/// More than one statement of each size is needed for, on two days; the second lot is added to the first.
async fn calls_are_recorded_by_the_hundred(engine: Engine) {
    const LOT: u64 = 64 + 2 * 8 + 3;
    let f = Fixture::new(engine).await;
    let lot = |lot: u64| -> Vec<Record> {
        let record = |number: u64| {
            let id = InvocationId::new(&f.clock, &f.rng);
            let next_day = if number < 3 { 86_400_000_000 } else { 0 };
            let started_at = Timestamp::from_micros(f.now().as_micros() + next_day);
            let outcome = if number == 0 { "failed" } else { "completed" }.to_owned();
            let usage = Usage { fuel: 10, peak_memory_bytes: lot * 1000 + number, ..Usage::default() };
            let lines = number.is_multiple_of(2).then(|| format!(r#"[{{"message":"{number}"}}]"#));
            Record { call: Invocation { id, started_at, outcome, usage, ..f.call() }, lines }
        };
        (0..LOT).map(record).collect()
    };
    let (first, second) = (lot(1), lot(2));
    for lot in [&first, &second] {
        let mut tx = f.tx().await;
        records::insert(&mut tx, lot).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut reader = f.reader().await;
    for (number, record) in first.iter().chain(&second).enumerate() {
        assert_eq!(
            invocations::get(&mut reader, &record.call.id).await.unwrap().as_ref(),
            Some(&record.call)
        );
        let lines = invocations::logs(&mut reader, &record.call.id).await.unwrap();
        assert_eq!(lines.map(|lines| lines.to_string()), record.lines, "{number}");
    }
    let is_so = async |day: &str, sums: &str| {
        let sql = format!(
            "UPDATE usage_by_day SET calls = calls WHERE day {day} {} AND {sums}",
            f.now().as_micros()
        );
        assert_eq!(f.database.meddle(&sql).await.unwrap(), 1, "{sums}");
    };
    let (calls, top) = (2 * (LOT - 3), 2000 + LOT - 1);
    let today =
        format!("calls = {calls} AND completed = {calls} AND fuel = {calls}0 AND peak_memory_bytes = {top}");
    is_so("<=", &today).await;
    is_so(">", "calls = 6 AND completed = 4 AND fuel = 60 AND peak_memory_bytes = 2002 AND wall_us = 0")
        .await;
}

async fn events_in_order(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.claimed_job().await;
    let mut written = Vec::new();
    let mut tx = f.tx().await;
    for number in 0..3 {
        let event = Event {
            id: EventId::new(&f.clock, &f.rng),
            org_id: f.buyer.org_id.clone(),
            other_org_id: (number > 0).then(|| f.worker.org_id.clone()),
            event: "job.funded".to_owned(),
            task_id: Some(job.id.clone()),
            data: json!({ "n": number }),
            created_at: f.now(),
        };
        written.push(event);
        f.tick();
    }
    outbox::insert(&mut tx, &written[..1]).await.unwrap();
    outbox::insert(&mut tx, &written[1..]).await.unwrap();
    assert_eq!(outbox::list(&mut tx, None, 10).await.unwrap(), written);
    let after = (written[0].created_at, written[0].id.clone());
    assert_eq!(outbox::list(&mut tx, Some(&after), 1).await.unwrap(), written[1..2]);
}

async fn what_is_not_committed_is_not_there(engine: Engine) {
    let f = Fixture::new(engine).await;
    let job = f.job(1);
    let mut tx = f.tx().await;
    jobs::insert(&mut tx, &job, None).await.unwrap();
    drop(tx);
    let mut reader = f.reader().await;
    assert_eq!(jobs::get(&mut reader, &job.id).await.unwrap(), None);
    drop(reader);
    let mut tx = f.tx().await;
    jobs::insert(&mut tx, &job, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(jobs::get(&mut f.reader().await, &job.id).await.unwrap(), Some(job));
}
