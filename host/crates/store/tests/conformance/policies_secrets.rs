//! Policies and their version, and the host's secrets.

use std::slice::from_ref;
use std::time::Duration;

use ringfence_model::PolicyId;
use ringfence_store::policies::{self, Policy};
use ringfence_store::secrets::{self, Secret};
use ringfence_store::{StoreError, Tx};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(
    a_policy_is_read_as_written,
    a_name_is_one_policys,
    a_change_raises_the_version,
    changes_of_policies_take_turns,
    the_first_change_is_made_once,
    a_secret_is_kept_once,
    of_many_who_keep_a_secret_the_first_does,
    a_secret_is_resealed_only_from_the_old_key,
);

fn policy(f: &Fixture, name: &str) -> Policy {
    Policy {
        id: PolicyId::new(&f.clock, &f.rng),
        org_id: ringfence_model::OrgId::platform(),
        name: name.to_owned(),
        description: String::new(),
        text: "forbid (principal, action, resource) when { \"ü\" == '' };".to_owned(),
        created_at: f.now(),
        updated_at: f.now(),
    }
}

async fn a_policy_is_read_as_written(engine: Engine) {
    let f = Fixture::new(engine).await;
    f.platform().await;
    let mut tx = f.tx().await;
    let (b, a) = (policy(&f, "b"), policy(&f, "a"));
    for policy in [&b, &a] {
        policies::insert(&mut tx, policy).await.unwrap();
    }
    assert_eq!(policies::get(&mut tx, &b.id).await.unwrap().as_ref(), Some(&b));
    assert_eq!(policies::all(&mut tx).await.unwrap(), [a.clone(), b.clone()], "by name");
    f.tick();
    let changed = Policy {
        name: "c".to_owned(),
        description: "for a reason".to_owned(),
        text: "permit (principal, action, resource);".to_owned(),
        updated_at: f.now(),
        ..a
    };
    assert!(policies::update(&mut tx, &changed).await.unwrap());
    assert_eq!(policies::all(&mut tx).await.unwrap(), [b.clone(), changed]);
    assert!(policies::delete(&mut tx, &b.id).await.unwrap());
    assert!(!policies::delete(&mut tx, &b.id).await.unwrap());
    assert!(!policies::update(&mut tx, &b).await.unwrap());
    assert_eq!(policies::get(&mut tx, &b.id).await.unwrap(), None);
}

async fn a_name_is_one_policys(engine: Engine) {
    let f = Fixture::new(engine).await;
    f.platform().await;
    let (one, other) = (policy(&f, "one"), policy(&f, "other"));
    let mut tx = f.tx().await;
    policies::insert(&mut tx, &one).await.unwrap();
    policies::insert(&mut tx, &other).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    assert!(matches!(policies::insert(&mut tx, &policy(&f, "one")).await, Err(StoreError::Conflict(_))));
    drop(tx);
    let mut tx = f.tx().await;
    let renamed = Policy { name: "one".to_owned(), ..other };
    assert!(matches!(policies::update(&mut tx, &renamed).await, Err(StoreError::Conflict(_))));
    drop(tx);
    let mut tx = f.tx().await;
    assert!(policies::delete(&mut tx, &one.id).await.unwrap());
    assert!(policies::update(&mut tx, &renamed).await.unwrap(), "the name is free again");
}

async fn a_change_raises_the_version(engine: Engine) {
    let f = Fixture::new(engine).await;
    f.platform().await;
    assert_eq!(policies::version(&mut f.reader().await).await.unwrap(), 0);
    for version in 1..4 {
        let mut tx = f.tx().await;
        policies::changing(&mut tx).await.unwrap();
        assert_eq!(policies::version(&mut f.reader().await).await.unwrap(), version - 1, "not committed");
        tx.commit().await.unwrap();
        assert_eq!(policies::version(&mut f.reader().await).await.unwrap(), version);
    }
    let mut tx = f.tx().await;
    policies::changing(&mut tx).await.unwrap();
    drop(tx);
    assert_eq!(policies::version(&mut f.reader().await).await.unwrap(), 3, "what is not done raises nothing");
}

/// The second sees what the first has done, so that a bound on their number holds.
async fn changes_of_policies_take_turns(engine: Engine) {
    const MOST: usize = 3;
    let f = Fixture::new(engine).await;
    f.platform().await;
    let hosts = f.hosts(engine, 2).await;
    let tasks: Vec<_> = (0..12)
        .map(|number: usize| {
            let (store, policy) = (hosts[number % 2].clone(), policy(&f, &format!("p{number:02}")));
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                policies::changing(&mut tx).await.unwrap();
                let full = policies::all(&mut tx).await.unwrap().len() >= MOST;
                tokio::time::sleep(Duration::from_millis(10)).await;
                if !full {
                    policies::insert(&mut tx, &policy).await.unwrap();
                    tx.commit().await.unwrap();
                }
                !full
            })
        })
        .collect();
    let mut added = 0;
    for task in tasks {
        added += usize::from(task.await.unwrap());
    }
    let mut reader = f.reader().await;
    assert_eq!((added, policies::all(&mut reader).await.unwrap().len()), (MOST, MOST));
    assert_eq!(policies::version(&mut reader).await.unwrap(), 3);
}

/// There is no version to hold yet: who comes second waits all the same, also for one that then changes nothing.
async fn the_first_change_is_made_once(engine: Engine) {
    let f = std::sync::Arc::new(Fixture::new(engine).await);
    f.platform().await;
    for (commits, version) in [(false, 1), (true, 3)] {
        let mut first = f.tx().await;
        policies::changing(&mut first).await.unwrap();
        let second = tokio::spawn({
            let f = f.clone();
            async move {
                let mut tx = f.tx().await;
                policies::changing(&mut tx).await.unwrap();
                tx.commit().await.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!second.is_finished(), "it waits");
        if commits {
            first.commit().await.unwrap();
        } else {
            drop(first);
        }
        second.await.unwrap();
        assert_eq!(policies::version(&mut f.reader().await).await.unwrap(), version);
    }
}

fn secret(f: &Fixture, id: &str, kind: &str) -> Secret {
    Secret {
        id: id.to_owned(),
        org_id: f.buyer.org_id.clone(),
        kind: kind.to_owned(),
        sealed: format!("sealed {id}"),
        master_key_id: "old".to_owned(),
        created_at: f.now(),
    }
}

async fn all(tx: &mut Tx) -> Vec<Secret> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        assert_eq!(secrets::any(tx).await.unwrap(), !secrets::page(tx, "", 1).await.unwrap().is_empty());
        let page = secrets::page(tx, &after, 2).await.unwrap();
        let Some(last) = page.last() else { return all };
        after.clone_from(&last.id);
        all.extend(page);
    }
}

async fn a_secret_is_kept_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let first = secret(&f, "b", "signing");
    assert!(secrets::insert(&mut tx, &first).await.unwrap());
    f.tick();
    let again = Secret { sealed: "another".to_owned(), kind: "audit".to_owned(), ..secret(&f, "b", "x") };
    assert!(!secrets::insert(&mut tx, &again).await.unwrap());
    assert_eq!(all(&mut tx).await, from_ref(&first), "the first is kept");
    // The younger has the smaller id: a kind is in the order of time, all are in the order of ids.
    let (younger, other) = (secret(&f, "a", "signing"), secret(&f, "c", "audit"));
    for secret in [&younger, &other] {
        assert!(secrets::insert(&mut tx, secret).await.unwrap());
    }
    assert_eq!(secrets::of_kind(&mut tx, "signing").await.unwrap(), [first.clone(), younger.clone()]);
    assert_eq!(secrets::of_kind(&mut tx, "audit").await.unwrap(), from_ref(&other));
    assert_eq!(secrets::of_kind(&mut tx, "none").await.unwrap(), []);
    assert_eq!(all(&mut tx).await, [younger, first.clone(), other.clone()]);
    assert!(!format!("{first:?}").contains(&first.sealed));
    assert!(secrets::delete(&mut tx, "a").await.unwrap());
    assert!(!secrets::delete(&mut tx, "a").await.unwrap());
    assert_eq!(all(&mut tx).await, [first.clone(), other.clone()]);
    // Put is what the second time replaces.
    f.tick();
    let newer =
        Secret { sealed: "newer".to_owned(), master_key_id: "new".to_owned(), ..secret(&f, "b", "signing") };
    let added = secret(&f, "d", "signing");
    for secret in [&newer, &added] {
        secrets::put(&mut tx, secret).await.unwrap();
    }
    assert_eq!(all(&mut tx).await, [newer.clone(), other.clone(), added.clone()]);
    let ids = [(newer.id, newer.created_at), (added.id, added.created_at)];
    assert_eq!(secrets::ids(&mut tx, "signing").await.unwrap(), ids);
    secrets::delete_kind(&mut tx, "signing").await.unwrap();
    assert_eq!(all(&mut tx).await, [other]);
}

/// Several hosts that start at once on a new database go by one audit key.
async fn of_many_who_keep_a_secret_the_first_does(engine: Engine) {
    let f = Fixture::new(engine).await;
    let tasks: Vec<_> = (f.hosts(engine, 6).await.into_iter().enumerate())
        .map(|(number, store)| {
            let secret = Secret { sealed: format!("by {number}"), ..secret(&f, "audit-key", "audit-key") };
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let kept = secrets::insert(&mut tx, &secret).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                tx.commit().await.unwrap();
                // What each sees from here on is the same.
                let seen = secrets::of_kind(&mut store.reader().await.unwrap(), "audit-key").await.unwrap();
                (kept.then_some(secret), seen)
            })
        })
        .collect();
    let (mut kept, mut seen) = (Vec::new(), Vec::new());
    for task in tasks {
        let (by_it, by_all) = task.await.unwrap();
        kept.extend(by_it);
        seen.push(by_all);
    }
    assert_eq!(kept.len(), 1);
    assert!(seen.iter().all(|seen| *seen == kept));
}

async fn a_secret_is_resealed_only_from_the_old_key(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let (one, other) = (secret(&f, "a", "signing"), secret(&f, "b", "signing"));
    for secret in [&one, &other] {
        assert!(secrets::insert(&mut tx, secret).await.unwrap());
    }
    assert!(!secrets::reseal(&mut tx, "a", "resealed", "new", "older").await.unwrap());
    assert!(!secrets::reseal(&mut tx, "none", "resealed", "new", "old").await.unwrap());
    assert_eq!(all(&mut tx).await, [one.clone(), other.clone()]);
    assert!(secrets::reseal(&mut tx, "a", "resealed", "new", "old").await.unwrap());
    assert!(!secrets::reseal(&mut tx, "a", "again", "new", "old").await.unwrap());
    let one = Secret { sealed: "resealed".to_owned(), master_key_id: "new".to_owned(), ..one };
    assert_eq!(all(&mut tx).await, [one, other]);
}
