//! The audit log: one chain an org, which is only ever added to.

use std::slice::from_ref;
use std::time::Duration;

use ringfence_model::{OrgId, Timestamp};
use ringfence_store::accounts::{self, Org};
use ringfence_store::audit::{self, AuditFilter, Entry, Head};
use ringfence_store::{StoreError, Tx};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;
use crate::schema;

on_both_engines!(
    an_entry_is_read_as_written,
    a_place_is_taken_once,
    parallel_writers_make_one_chain,
    who_gives_up_leaves_no_gap,
    an_entry_is_neither_changed_nor_removed,
    entries_are_found_by_every_filter,
    every_listing_is_prepared_and_uses_an_index,
    the_chains_are_told_a_hundred_at_a_time,
);

fn entry(f: &Fixture, org: &OrgId, head: Head) -> Entry {
    let seq = head.seq + 1;
    Entry {
        org_id: org.clone(),
        seq,
        at: f.now(),
        actor: "command".to_owned(),
        credential: None,
        action: "bots:create".to_owned(),
        resource: "bot".to_owned(),
        resource_org_id: f.worker.org_id.clone(),
        outcome: "done".to_owned(),
        request_id: None,
        address: None,
        detail: "{}".to_owned(),
        previous_hash: head.hash,
        hash: format!("hash {seq}"),
    }
}

async fn appended(f: &Fixture, tx: &mut Tx, org: &OrgId) -> Entry {
    let head = audit::lock_head(tx, org).await.unwrap();
    let entry = entry(f, org, head);
    audit::append(tx, &entry).await.unwrap();
    entry
}

fn is_a_chain(entries: &[Entry], length: u64) {
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=length).collect::<Vec<_>>());
    let mut last = "";
    for entry in entries {
        assert_eq!(entry.previous_hash, last);
        last = &entry.hash;
    }
}

async fn an_entry_is_read_as_written(engine: Engine) {
    let f = Fixture::new(engine).await;
    let org = &f.buyer.org_id;
    let mut tx = f.tx().await;
    assert_eq!(audit::head(&mut tx, org).await.unwrap(), Head::default());
    assert_eq!(audit::lock_head(&mut tx, org).await.unwrap(), Head::default());
    let bare = appended(&f, &mut tx, org).await;
    f.tick();
    let head = audit::lock_head(&mut tx, org).await.unwrap();
    let full = Entry {
        credential: Some("key".to_owned()),
        request_id: Some("request".to_owned()),
        address: Some("2001:db8::1".to_owned()),
        detail: r#"{"b": 1, "a": "ü\u0000"}"#.to_owned(),
        ..entry(&f, org, head)
    };
    audit::append(&mut tx, &full).await.unwrap();
    let elsewhere = appended(&f, &mut tx, &f.worker.org_id).await;
    tx.commit().await.unwrap();
    let mut reader = f.reader().await;
    let head = Head { seq: 2, hash: full.hash.clone() };
    assert_eq!(audit::head(&mut reader, org).await.unwrap(), head);
    assert_eq!(audit::after(&mut reader, org, 0, 9).await.unwrap(), [bare.clone(), full.clone()]);
    assert_eq!(audit::after(&mut reader, org, 0, 1).await.unwrap(), from_ref(&bare));
    assert_eq!(audit::after(&mut reader, org, 1, 9).await.unwrap(), from_ref(&full));
    assert_eq!(audit::after(&mut reader, org, 2, 9).await.unwrap(), []);
    let all = AuditFilter::default();
    assert_eq!(audit::list(&mut reader, org, &all, 9).await.unwrap(), [full, bare]);
    assert_eq!(audit::list(&mut reader, &f.worker.org_id, &all, 9).await.unwrap(), [elsewhere]);
    let nobodys = OrgId::new(&f.clock, &f.rng);
    assert_eq!(audit::list(&mut reader, &nobodys, &all, 9).await.unwrap(), []);
    assert_eq!(audit::head(&mut reader, &nobodys).await.unwrap(), Head::default());
}

async fn a_place_is_taken_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let org = &f.buyer.org_id;
    let mut tx = f.tx().await;
    let first = appended(&f, &mut tx, org).await;
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let fork = Entry { hash: "another".to_owned(), ..first.clone() };
    let refused = audit::append(&mut tx, &fork).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_) | StoreError::Refused(_))), "{refused:?}");
    drop(tx);
    assert_eq!(audit::after(&mut f.reader().await, org, 0, 9).await.unwrap(), [first]);
}

async fn parallel_writers_make_one_chain(engine: Engine) {
    let f = std::sync::Arc::new(Fixture::new(engine).await);
    let hosts = f.hosts(engine, 3).await;
    let tasks: Vec<_> = (0..40)
        .map(|number: usize| {
            let (f, store) = (f.clone(), hosts[number % hosts.len()].clone());
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let head = audit::lock_head(&mut tx, &f.buyer.org_id).await.unwrap();
                // Between the two, whoever does not hold the end would read the same.
                tokio::time::sleep(Duration::from_millis(2)).await;
                let entry = Entry { actor: format!("{number}"), ..entry(&f, &f.buyer.org_id, head) };
                audit::append(&mut tx, &entry).await.unwrap();
                tx.commit().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut reader = f.reader().await;
    let entries = audit::after(&mut reader, &f.buyer.org_id, 0, 100).await.unwrap();
    is_a_chain(&entries, 40);
    let actors: std::collections::BTreeSet<_> = entries.iter().map(|entry| &entry.actor).collect();
    assert_eq!(actors.len(), 40);
    let head = Head { seq: 40, hash: "hash 40".to_owned() };
    assert_eq!(audit::head(&mut reader, &f.buyer.org_id).await.unwrap(), head);
}

async fn who_gives_up_leaves_no_gap(engine: Engine) {
    let f = std::sync::Arc::new(Fixture::new(engine).await);
    let org = &f.buyer.org_id;
    // First with no chain there yet, then with one.
    for length in 1..=2 {
        let mut first = f.tx().await;
        appended(&f, &mut first, org).await;
        let second = tokio::spawn({
            let f = f.clone();
            async move {
                let mut tx = f.tx().await;
                appended(&f, &mut tx, &f.buyer.org_id).await;
                tx.commit().await.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!second.is_finished(), "it waits");
        drop(first);
        second.await.unwrap();
        is_a_chain(&audit::after(&mut f.reader().await, org, 0, 9).await.unwrap(), length);
    }
}

async fn an_entry_is_neither_changed_nor_removed(engine: Engine) {
    let f = Fixture::new(engine).await;
    let org = &f.buyer.org_id;
    let mut written = Vec::new();
    let mut tx = f.tx().await;
    for _ in 0..3 {
        written.push(appended(&f, &mut tx, org).await);
    }
    tx.commit().await.unwrap();
    let on_both = [
        "UPDATE audit_log SET detail = '{\"a\": 1}'",
        "UPDATE audit_log SET seq = seq + 10 WHERE seq = 3",
        "UPDATE audit_log SET actor = actor",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE seq = 3",
        "INSERT INTO audit_log SELECT * FROM audit_log WHERE seq = 3
            ON CONFLICT (org_id, seq) DO UPDATE SET hash = 'x'",
        "INSERT INTO audit_log SELECT * FROM audit_log WHERE seq = 3",
    ];
    let on_one: &[_] = match engine {
        Engine::Postgres => &["TRUNCATE audit_log", "TRUNCATE orgs CASCADE"],
        Engine::Sqlite => &[
            "INSERT OR REPLACE INTO audit_log SELECT org_id, seq, at, 'x', credential, action, resource,
                resource_org_id, outcome, request_id, address, detail, previous_hash, hash FROM audit_log WHERE seq = 3",
            "REPLACE INTO audit_log SELECT * FROM audit_log",
            "UPDATE OR REPLACE audit_log SET seq = 1 WHERE seq = 3",
        ],
    };
    for sql in on_both.iter().chain(on_one) {
        let refused = f.try_to_meddle(engine, sql).await;
        let refused = refused.expect_err(sql).to_string();
        let duplicate = refused.contains("duplicate key");
        // What refers to orgs, the ledger too, is kept by triggers of its own.
        let kept =
            refused.contains("the audit log is append-only") || refused.contains("transfers are never");
        assert!(kept || duplicate, "{sql}: {refused}");
        let found = audit::after(&mut f.reader().await, org, 0, 9).await.unwrap();
        assert_eq!(found, written, "{sql}");
    }
    let mut tx = f.tx().await;
    assert_eq!(appended(&f, &mut tx, org).await.seq, 4, "it can be added to all the same");
}

/// Each of the seven, there or not.
fn every_filter(since: Timestamp, until: Timestamp) -> Vec<AuditFilter> {
    (0..1u32 << 7)
        .map(|bits| {
            let asked = |bit: u32, text: &str| (bits & (1 << bit) != 0).then(|| text.to_owned());
            AuditFilter {
                actor: asked(0, "actor 1"),
                action: asked(1, "action 1"),
                resource: asked(2, "resource 1"),
                outcome: asked(3, "denied"),
                since: asked(4, "").map(|_| since),
                until: asked(5, "").map(|_| until),
                before: asked(6, "").map(|_| 60),
            }
        })
        .collect()
}

async fn entries_are_found_by_every_filter(engine: Engine) {
    let f = Fixture::new(engine).await;
    let org = &f.buyer.org_id;
    let mut all = Vec::new();
    let mut tx = f.tx().await;
    for number in 0..72u32 {
        f.tick();
        // The same in another org: what is listed is never that.
        for org in [org, &f.worker.org_id] {
            let head = audit::lock_head(&mut tx, org).await.unwrap();
            let entry = Entry {
                actor: format!("actor {}", number % 2),
                action: format!("action {}", number / 2 % 2),
                resource: format!("resource {}", number / 4 % 2),
                outcome: if number / 8 % 2 == 1 { "denied" } else { "done" }.to_owned(),
                ..entry(&f, org, head)
            };
            audit::append(&mut tx, &entry).await.unwrap();
            all.insert(0, entry);
        }
    }
    all.retain(|entry| entry.org_id == *org);
    let (since, until) = (all[62].at, all[5].at);
    let mut filters = every_filter(since, until);
    filters.push(AuditFilter { before: Some(1), ..AuditFilter::default() });
    filters.push(AuditFilter { before: Some(0), ..AuditFilter::default() });
    filters.push(AuditFilter { before: Some(u64::MAX), ..AuditFilter::default() });
    filters.push(AuditFilter { since: Some(until), until: Some(since), ..AuditFilter::default() });
    // Whoever asks can write what cannot be there.
    filters.push(AuditFilter { actor: Some("actor\0 1".to_owned()), ..AuditFilter::default() });
    filters.push(AuditFilter { resource: Some("\0".to_owned()), ..AuditFilter::default() });
    for filter in filters {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let expected: Vec<_> = (all.iter())
            .filter(|entry| is(&filter.actor, &entry.actor) && is(&filter.action, &entry.action))
            .filter(|entry| is(&filter.resource, &entry.resource) && is(&filter.outcome, &entry.outcome))
            .filter(|entry| filter.since.is_none_or(|since| entry.at >= since))
            .filter(|entry| filter.until.is_none_or(|until| entry.at < until))
            .filter(|entry| filter.before.is_none_or(|before| entry.seq < before))
            .take(20)
            .cloned()
            .collect();
        assert_eq!(audit::list(&mut tx, org, &filter, 20).await.unwrap(), expected, "{filter:?}");
        let first = &expected[..expected.len().min(2)];
        assert_eq!(audit::list(&mut tx, org, &filter, 2).await.unwrap(), first, "{filter:?}");
    }
}

async fn every_listing_is_prepared_and_uses_an_index(engine: Engine) {
    let f = Fixture::new(engine).await;
    for filter in every_filter(f.now(), f.now()) {
        let mut args = vec![f.buyer.org_id.as_str().into()];
        let sql = audit::list_statement(&filter, &mut args);
        let plan = schema::plan(&f, &sql).await;
        schema::uses_an_index(&sql, &plan);
        schema::does_not_sort(&sql, &plan);
        assert!(plan.contains("org_id"), "within the org\n{sql}\n{plan}");
    }
}

async fn the_chains_are_told_a_hundred_at_a_time(engine: Engine) {
    let f = Fixture::new(engine).await;
    // Whether there is anything in it or not: who removes the end of a chain does not hide it.
    let mut orgs = vec![f.platform().await, f.buyer.org_id.clone(), f.worker.org_id.clone()];
    let mut tx = f.tx().await;
    for number in 0..250 {
        let org = Org { id: OrgId::new(&f.clock, &f.rng), name: number.to_string(), created_at: f.now() };
        accounts::insert_org(&mut tx, &org).await.unwrap();
        orgs.push(org.id);
    }
    for org in orgs.iter().rev() {
        appended(&f, &mut tx, org).await;
    }
    tx.commit().await.unwrap();
    orgs.sort();
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    let mut reader = f.reader().await;
    loop {
        let last = found.last().map_or("", OrgId::as_str);
        let next = audit::orgs(&mut reader, last).await.unwrap();
        sizes.push(next.len());
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    assert_eq!(sizes, [100, 100, 53, 0]);
    assert_eq!(found, orgs);
}
