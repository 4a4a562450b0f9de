//! Usage added up, and lines looked for and deleted.

use std::time::Duration;

use ringfence_model::*;
use ringfence_store::bots;
use ringfence_store::invocations::{self, Invocation, Usage};
use ringfence_store::logs::{self, KeepDays};
use ringfence_store::records::{self, Record};
use ringfence_store::usage::{self, Days};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::{self, Fixture};

on_both_engines!(
    usage_is_added_up,
    a_sealed_run_is_counted_and_not_added,
    calls_are_walked_from_the_newest,
    old_lines_are_deleted_in_parts,
    a_bot_keeps_its_lines_less_long,
    old_calls_are_deleted_but_not_about_submissions
);

const DAY: Duration = Duration::from_secs(86_400);

fn midnight(days: u32) -> Timestamp {
    fixture::start().plus(DAY * days)
}

async fn keep(f: &Fixture, calls: impl IntoIterator<Item = Invocation>) -> Vec<Invocation> {
    let calls: Vec<_> = calls.into_iter().collect();
    let lines = Some(r#"[{"message":"m"}]"#.to_owned());
    let records: Vec<_> =
        calls.iter().map(|call| Record { call: call.clone(), lines: lines.clone() }).collect();
    let mut tx = f.tx().await;
    records::insert(&mut tx, &records).await.unwrap();
    tx.commit().await.unwrap();
    calls
}

/// A call of another bot of the same org.
async fn another_bot(f: &Fixture) -> BotId {
    let bot = bots::Bot {
        id: BotId::new(&f.clock, &f.rng),
        name: "another".to_owned(),
        log_keep_days: None,
        ..f.oracle.clone()
    };
    let mut tx = f.tx().await;
    bots::insert(&mut tx, &bot).await.unwrap();
    tx.commit().await.unwrap();
    bot.id
}

async fn usage_is_added_up(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (org, other) = (f.buyer.org_id.clone(), another_bot(&f).await);
    let large = u64::try_from(i64::MAX).unwrap();
    let call = |bot: &BotId, day, fuel, peak_memory_bytes| Invocation {
        bot_id: bot.clone(),
        started_at: midnight(day).plus(Duration::from_secs(7)),
        usage: Usage { fuel, peak_memory_bytes, cpu_us: 1 << 33, ..Usage::default() },
        ..f.call()
    };
    let failed = Invocation { outcome: "failed".to_owned(), ..call(&f.oracle.id, 0, 5, 9) };
    keep(&f, [failed, call(&f.oracle.id, 0, 6, 7), call(&other, 0, 1, 1)]).await;
    keep(&f, [call(&f.oracle.id, 2, large, 3), call(&other, 2, large, 4)]).await;
    let mut reader = f.reader().await;
    let days = |from, to| Days { from: midnight(from), to: midnight(to) };

    let by_day = usage::by_day(&mut reader, &org, None, days(0, 2), 9).await.unwrap();
    let found: Vec<_> = by_day.iter().map(|day| (day.key, day.calls, day.completed)).collect();
    assert_eq!(found, [(midnight(0), 3, 2), (midnight(2), 2, 2)]);
    assert_eq!((by_day[0].usage.fuel, by_day[0].usage.peak_memory_bytes), (12, 9));
    assert_eq!(by_day[0].usage.cpu_us, 3 << 33);
    assert_eq!((by_day[1].usage.fuel, by_day[1].usage.peak_memory_bytes), (large, 4), "it stops at the top");
    let of_bot = usage::by_day(&mut reader, &org, Some(&other), days(0, 2), 1).await.unwrap();
    assert_eq!(of_bot.iter().map(|day| (day.key, day.usage.fuel)).collect::<Vec<_>>(), [(midnight(0), 1)]);

    let by_bot = usage::by_bot(&mut reader, &org, "", days(0, 1), 9).await.unwrap();
    let found: Vec<_> = by_bot.iter().map(|bot| (&bot.key, bot.calls)).collect();
    let mut expected = [(&f.oracle.id, 2), (&other, 1)];
    expected.sort();
    assert_eq!(found, expected);
    let next = usage::by_bot(&mut reader, &org, expected[0].0.as_str(), days(0, 1), 9).await.unwrap();
    assert_eq!(next.iter().map(|bot| &bot.key).collect::<Vec<_>>(), [expected[1].0]);

    let by_org = usage::by_org(&mut reader, "", days(0, 2), 9).await.unwrap();
    assert_eq!(by_org.iter().map(|one| (&one.key, one.calls)).collect::<Vec<_>>(), [(&org, 5)]);
    assert_eq!(usage::by_org(&mut reader, org.as_str(), days(0, 2), 9).await.unwrap(), []);

    assert_eq!(usage::total(&mut reader, &org, None, days(1, 2)).await.unwrap().calls, 2);
    assert_eq!(usage::total(&mut reader, &org, Some(&other), days(0, 0)).await.unwrap().usage.fuel, 1);
    let none = usage::total(&mut reader, &f.worker.org_id, None, days(0, 2)).await.unwrap();
    assert_eq!((none.calls, none.usage), (0, Usage::default()));
}

async fn a_submission(f: &Fixture) -> SubmissionId {
    let job = f.claimed_job().await;
    let submission = f.submission(&job, 1);
    let mut tx = f.tx().await;
    ringfence_store::submissions::insert(&mut tx, &submission).await.unwrap();
    tx.commit().await.unwrap();
    submission.id
}

async fn a_sealed_run_is_counted_and_not_added(engine: Engine) {
    let f = Fixture::new(engine).await;
    let sealed = Invocation { submission_id: Some(a_submission(&f).await), ..f.call() };
    keep(&f, [sealed.clone()]).await;
    let days = Days { from: midnight(0), to: midnight(1) };
    let sums = usage::total(&mut f.reader().await, &sealed.org_id, None, days).await.unwrap();
    assert_eq!((sums.calls, sums.completed, sums.usage), (1, 0, Usage::default()));
    let passed = Invocation { submission_id: Some(a_submission(&f).await), ..f.call() };
    let mut tx = f.tx().await;
    let record = Record { call: passed.clone(), lines: None };
    records::keep(&mut tx, std::slice::from_ref(&record)).await.unwrap();
    records::add_run(&mut tx, &record.call, true).await.unwrap();
    tx.commit().await.unwrap();
    let mut reader = f.reader().await;
    let sums = usage::total(&mut reader, &sealed.org_id, None, days).await.unwrap();
    assert_eq!((sums.calls, sums.completed, sums.usage), (2, 1, passed.usage));
    assert_eq!(invocations::get(&mut reader, &passed.id).await.unwrap(), Some(passed));
}

/// Calls that begin a second after one another.
async fn some_calls(f: &Fixture, count: usize) -> Vec<Invocation> {
    let mut calls = Vec::new();
    for _ in 0..count {
        f.tick();
        calls.push(f.call());
    }
    keep(f, calls).await
}

async fn calls_are_walked_from_the_newest(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut calls = some_calls(&f, 4).await;
    // Two at the same moment.
    calls.extend(keep(&f, [f.call(), f.call()]).await);
    calls.sort_by_key(|call| std::cmp::Reverse((call.started_at, call.id.clone())));
    let mut reader = f.reader().await;
    let (mut place, mut found) = ((Timestamp::MAX, f.call().id), Vec::new());
    loop {
        let since = calls[4].started_at;
        let part = logs::calls(&mut reader, &f.oracle.id, (place.0, &place.1), since, 2).await.unwrap();
        let Some(last) = part.last() else { break };
        place = (last.started_at, last.id.clone());
        found.extend(part);
    }
    let ids = |calls: &[Invocation]| calls.iter().map(|call| call.id.clone()).collect::<Vec<_>>();
    assert_eq!(found.iter().map(|call| call.id.clone()).collect::<Vec<_>>(), ids(&calls[..5]));
    assert_eq!((found[0].log_bytes, found[0].outcome.as_str()), (6, "completed"));
}

/// Which of these calls still have lines.
async fn with_lines(f: &Fixture, calls: &[Invocation]) -> Vec<bool> {
    let mut reader = f.reader().await;
    let mut found = Vec::new();
    for call in calls {
        found.push(invocations::logs(&mut reader, &call.id).await.unwrap().is_some());
    }
    found
}

async fn old_lines_are_deleted_in_parts(engine: Engine) {
    let f = Fixture::new(engine).await;
    let calls = some_calls(&f, 5).await;
    let before = InvocationId::least_at(calls[3].started_at);
    let mut tx = f.tx().await;
    assert_eq!(logs::delete_old(&mut tx, &before, 2).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(with_lines(&f, &calls).await, [false, false, true, true, true]);
    let mut tx = f.tx().await;
    assert_eq!(logs::delete_old(&mut tx, &before, 2).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(with_lines(&f, &calls).await, [false, false, false, true, true]);
}

async fn a_bot_keeps_its_lines_less_long(engine: Engine) {
    let f = Fixture::new(engine).await;
    let other = another_bot(&f).await;
    let of_other = keep(&f, [Invocation { bot_id: other, ..f.call() }]).await;
    let calls = some_calls(&f, 5).await;
    let mut tx = f.tx().await;
    let found = logs::keep_days(&mut tx, "", 9).await.unwrap();
    let mut keep = KeepDays { bot_id: f.oracle.id.clone(), days: 7, deleted_until: Timestamp::EPOCH };
    assert_eq!(found, [keep.clone()]);
    let before = calls[4].started_at;
    let mut parts = 0;
    while let Some(next) = logs::delete_of_bot(&mut tx, &keep, before, 2).await.unwrap() {
        (keep, parts) = (next, parts + 1);
    }
    tx.commit().await.unwrap();
    assert_eq!(parts, 2);
    assert_eq!(with_lines(&f, &calls).await, [false, false, false, false, true]);
    assert_eq!(with_lines(&f, &of_other).await, [true]);
    let kept = logs::keep_days(&mut f.reader().await, "", 9).await.unwrap();
    assert_eq!(kept[0].deleted_until, before, "nothing is looked at twice");
    assert!(logs::keep_days(&mut f.reader().await, f.oracle.id.as_str(), 9).await.unwrap().is_empty());
}

async fn old_calls_are_deleted_but_not_about_submissions(engine: Engine) {
    let f = Fixture::new(engine).await;
    let judged = Invocation { submission_id: Some(a_submission(&f).await), ..f.call() };
    keep(&f, [judged.clone()]).await;
    let calls = some_calls(&f, 4).await;
    let before = InvocationId::least_at(calls[3].started_at);
    let (mut after, mut deleted) = (InvocationId::least_at(Timestamp::EPOCH), 0);
    loop {
        let mut tx = f.tx().await;
        let (some, next) = logs::delete_calls(&mut tx, &after, &before, 2).await.unwrap();
        tx.commit().await.unwrap();
        deleted += some;
        let Some(next) = next else { break };
        after = next;
    }
    assert_eq!(deleted, 3);
    let mut reader = f.reader().await;
    for (call, is_there) in calls.iter().zip([false, false, false, true]) {
        assert_eq!(invocations::get(&mut reader, &call.id).await.unwrap().is_some(), is_there);
    }
    assert!(invocations::get(&mut reader, &judged.id).await.unwrap().is_some());
    assert_eq!(with_lines(&f, &[judged]).await, [true]);
    let days = Days { from: midnight(0), to: midnight(0) };
    let sums = usage::total(&mut reader, &f.buyer.org_id, None, days).await.unwrap();
    assert_eq!(sums.calls, 5, "the sums stay");
}
