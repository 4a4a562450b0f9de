//! Leases and their fence.

use std::collections::BTreeSet;
use std::time::Duration;

use ringfence_model::{OrgId, Timestamp};
use ringfence_store::queue::{self, Leased, NewItem};
use ringfence_testkit::{Engine, on_both_engines};
use serde_json::json;

use crate::fixture::Fixture;

on_both_engines!(
    a_late_attempt_changes_nothing,
    what_is_put_anew_is_there_once,
    parallel_leasers_never_share,
    work_waits_its_time,
    orgs_share_the_queue,
    dead_letters_stay
);

const LEASE: Duration = Duration::from_secs(10);

async fn put(fixture: &Fixture, subject: &str, run_at: Timestamp) -> bool {
    put_for(fixture, &fixture.buyer.org_id, subject, run_at).await
}

async fn put_for(fixture: &Fixture, org: &OrgId, subject: &str, run_at: Timestamp) -> bool {
    let item = item(fixture, org, subject, run_at);
    let mut tx = fixture.tx().await;
    let put = queue::put(&mut tx, &item).await.unwrap();
    tx.commit().await.unwrap();
    put
}

fn item(fixture: &Fixture, org: &OrgId, subject: &str, run_at: Timestamp) -> NewItem {
    NewItem {
        id: format!("task_{subject}"),
        org_id: org.clone(),
        kind: "evaluate".to_owned(),
        payload: json!({ "n": 1 }),
        subject_id: subject.to_owned(),
        run_at,
        created_at: fixture.now(),
    }
}

async fn lease(fixture: &Fixture, limit: u32) -> Vec<Leased> {
    let mut tx = fixture.tx().await;
    let now = fixture.now();
    let leased = queue::lease(&mut tx, "evaluate", "host", now, now.plus(LEASE), limit).await.unwrap();
    tx.commit().await.unwrap();
    leased
}

async fn a_late_attempt_changes_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert!(put(&fixture, "a", fixture.now()).await);
    assert!(!put(&fixture, "a", fixture.now()).await, "one piece of work of a kind for a subject");
    let first = lease(&fixture, 5).await.pop().unwrap();
    assert_eq!((first.attempt, &first.payload, first.subject_id.as_str()), (1, &json!({ "n": 1 }), "a"));
    assert!(lease(&fixture, 5).await.is_empty(), "it is held");
    fixture.clock.advance(LEASE + Duration::from_secs(1));
    let second = lease(&fixture, 5).await.pop().unwrap();
    assert_eq!(second.attempt, 2, "whoever takes it over is ahead");

    let (now, later) = (fixture.now(), fixture.now().plus(LEASE));
    let mut tx = fixture.tx().await;
    assert!(!queue::holds(&mut tx, &first.id, 1).await.unwrap());
    assert!(!queue::extend(&mut tx, &first.id, 1, later).await.unwrap());
    assert!(!queue::retry(&mut tx, &first.id, 1, now, "late").await.unwrap());
    assert!(!queue::bury(&mut tx, &first.id, 1, "late", now).await.unwrap());
    assert!(!queue::finish(&mut tx, &first.id, 1).await.unwrap());
    assert!(queue::holds(&mut tx, &first.id, 2).await.unwrap());
    assert!(queue::extend(&mut tx, &first.id, 2, later).await.unwrap());
    assert!(queue::finish(&mut tx, &first.id, 2).await.unwrap());
    assert!(!queue::finish(&mut tx, &first.id, 2).await.unwrap(), "once");
    tx.commit().await.unwrap();
    assert!(put(&fixture, "a", fixture.now()).await, "the subject is free again");
}

/// Also while another host is just putting it back, which takes it off and puts it on under another id.
async fn what_is_put_anew_is_there_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let named = |id: &str| {
        let item = item(&fixture, &fixture.buyer.org_id, "a", fixture.now());
        NewItem { id: id.to_owned(), ..item }
    };
    assert!(put(&fixture, "a", fixture.now()).await);
    assert_eq!(lease(&fixture, 1).await.len(), 1);
    let mut back = fixture.tx().await;
    assert!(queue::finish(&mut back, "task_a", 1).await.unwrap());
    assert!(queue::put(&mut back, &named("task_back")).await.unwrap());
    let (store, anew) = (fixture.store.clone(), named("task_anew"));
    let anew = tokio::spawn(async move {
        let mut tx = store.begin().await.unwrap();
        queue::put_anew(&mut tx, &anew).await.unwrap();
        tx.commit().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!anew.is_finished());
    back.commit().await.unwrap();
    anew.await.unwrap();
    let leased = lease(&fixture, 5).await;
    let leased: Vec<_> = leased.iter().map(|item| (item.id.as_str(), item.attempt)).collect();
    assert_eq!(leased, [("task_anew", 1)]);

    // Who carries it out is late as soon as it is put anew once more.
    let mut tx = fixture.tx().await;
    queue::put_anew(&mut tx, &named("task_last")).await.unwrap();
    assert!(!queue::finish(&mut tx, "task_anew", 1).await.unwrap());
    assert!(!queue::finish(&mut tx, "task_last", 1).await.unwrap(), "nobody has taken it on");
    tx.commit().await.unwrap();
    assert_eq!(lease(&fixture, 5).await.len(), 1);
}

async fn parallel_leasers_never_share(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for number in 0..40 {
        assert!(put(&fixture, &format!("s{number}"), fixture.now()).await);
    }
    let (store, now) = (fixture.store.clone(), fixture.now());
    let leasers: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                loop {
                    let mut tx = store.begin().await.unwrap();
                    let leased =
                        queue::lease(&mut tx, "evaluate", &format!("host-{number}"), now, now.plus(LEASE), 3)
                            .await
                            .unwrap();
                    tx.commit().await.unwrap();
                    if leased.is_empty() {
                        return taken;
                    }
                    taken.extend(leased.into_iter().map(|item| (item.id, item.attempt)));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for leaser in leasers {
        all.extend(leaser.await.unwrap());
    }
    assert!(all.iter().all(|(_, attempt)| *attempt == 1));
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
    assert_eq!((all.len(), ids.len()), (40, 40));
}

async fn work_waits_its_time(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let mut reader = fixture.reader().await;
    assert_eq!(queue::next_due(&mut reader, "evaluate").await.unwrap(), None);
    let at = fixture.now().plus(Duration::from_secs(5));
    assert!(put(&fixture, "later", at).await);
    assert_eq!(queue::next_due(&mut reader, "evaluate").await.unwrap(), Some(at));
    assert!(lease(&fixture, 1).await.is_empty());
    fixture.clock.advance(Duration::from_secs(5));
    let item = lease(&fixture, 1).await.pop().unwrap();
    assert_eq!(
        queue::next_due(&mut reader, "evaluate").await.unwrap(),
        Some(fixture.now().plus(LEASE)),
        "when the lease ends"
    );
    let again = fixture.now().plus(Duration::from_secs(60));
    let mut tx = fixture.tx().await;
    assert!(queue::retry(&mut tx, &item.id, 1, again, "busy").await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(queue::next_due(&mut reader, "evaluate").await.unwrap(), Some(again));
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(lease(&fixture, 1).await.pop().unwrap().attempt, 2);
    let mut tx = fixture.tx().await;
    assert_eq!(queue::remove(&mut tx, "evaluate", "later").await.unwrap(), 1);
    tx.commit().await.unwrap();
}

/// Leases as `host` does, at most two of an org at a time; their subjects.
async fn lease_fairly(fixture: &Fixture, host: &str, limit: u32) -> Vec<String> {
    let now = fixture.now();
    let orgs = queue::due_orgs(&mut fixture.reader().await, "evaluate", host, now).await.unwrap();
    let mut tx = fixture.tx().await;
    let lease = (host, now, now.plus(LEASE));
    let leased = queue::lease_fairly(&mut tx, "evaluate", lease, (limit, 2), orgs).await.unwrap();
    tx.commit().await.unwrap();
    leased.into_iter().map(|item| item.subject_id).collect()
}

async fn orgs_share_the_queue(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (flood, other) = (&fixture.buyer.org_id, &fixture.worker.org_id);
    assert!(lease_fairly(&fixture, "host", 4).await.is_empty());
    let long_ago = fixture.now();
    for number in 0..10 {
        assert!(put_for(&fixture, flood, &format!("f{number}"), long_ago).await);
    }
    fixture.clock.advance(Duration::from_secs(1));
    let later = fixture.now().plus(Duration::from_secs(60));
    assert!(
        put_for(&fixture, other, "o0", fixture.now()).await && put_for(&fixture, other, "o1", later).await
    );

    assert_eq!(lease_fairly(&fixture, "host", 1).await, ["f0"], "the one that has been due for longest");
    assert_eq!(lease_fairly(&fixture, "host", 1).await, ["o0"], "the org that has nothing running");
    assert_eq!(lease_fairly(&fixture, "host", 4).await, ["f1"], "two of an org, and the rest waits");
    assert!(lease_fairly(&fixture, "host", 4).await.is_empty());
    let mut reader = fixture.reader().await;
    let now = fixture.now();
    assert_eq!(queue::next_due(&mut reader, "evaluate").await.unwrap(), Some(long_ago));
    assert_eq!(queue::next_due_after(&mut reader, "evaluate", now).await.unwrap(), Some(now.plus(LEASE)));
    assert_eq!(lease_fairly(&fixture, "another", 4).await, ["f2", "f3"], "each host has a share for it");

    let mut tx = fixture.tx().await;
    assert!(queue::finish(&mut tx, "task_f0", 1).await.unwrap());
    let again = fixture.now();
    assert!(queue::retry(&mut tx, "task_o0", 1, again, "busy").await.unwrap());
    assert!(queue::bury(&mut tx, "task_f1", 1, "broken", again).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(lease_fairly(&fixture, "host", 4).await, ["f4", "o0", "f5"], "what has ended makes room");
    fixture.clock.advance(Duration::from_secs(61));
    let taken = lease_fairly(&fixture, "host", 4).await;
    assert_eq!(taken, ["f2", "o0", "f3", "o1"], "leases have ended, and what was to come later is due");
}

async fn dead_letters_stay(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert!(put(&fixture, "a", fixture.now()).await);
    let item = lease(&fixture, 1).await.pop().unwrap();
    let mut tx = fixture.tx().await;
    assert!(queue::bury(&mut tx, &item.id, 1, "broken", fixture.now()).await.unwrap());
    tx.commit().await.unwrap();
    fixture.clock.advance(LEASE * 10);
    assert!(lease(&fixture, 1).await.is_empty());
    let mut reader = fixture.reader().await;
    assert_eq!(queue::next_due(&mut reader, "evaluate").await.unwrap(), None);
    assert!(!queue::holds(&mut reader, &item.id, 1).await.unwrap());
}
