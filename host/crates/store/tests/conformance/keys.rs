//! API keys.

use std::time::Duration;

use ringfence_model::{AgentId, ApiKey, ApiKeyHash, ApiKeyId, OrgId, Role};
use ringfence_store::keys::{self, Key};
use ringfence_store::{StoreError, Tx};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::{self, Fixture};

on_both_engines!(
    a_key_is_read_as_written,
    a_hash_is_one_keys,
    a_key_is_revoked_once,
    a_key_lives_only_shorter,
    limits_and_use_are_noted,
    the_valid_keys_of_an_agent,
    a_key_that_is_being_revoked_is_not_valid,
    keys_are_listed_within_their_org_and_agent,
    live_keys_are_counted,
);

fn key(f: &Fixture) -> (Key, ApiKeyHash) {
    let secret = ApiKey::generate(&f.rng);
    let key = Key {
        id: ApiKeyId::new(&f.clock, &f.rng),
        org_id: f.buyer.org_id.clone(),
        agent_id: Some(f.buyer.id.clone()),
        role: None,
        name: String::new(),
        scopes: vec!["*".to_owned()],
        prefix: secret.prefix().to_owned(),
        reads_per_minute: None,
        writes_per_minute: None,
        created_at: f.now(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
    };
    (key, secret.hash())
}

async fn made(f: &Fixture, tx: &mut Tx) -> Key {
    let (key, hash) = key(f);
    keys::insert(tx, &key, &hash).await.unwrap();
    key
}

async fn read(tx: &mut Tx, key: &Key) -> Key {
    keys::get(tx, &key.id).await.unwrap().unwrap()
}

async fn a_key_is_read_as_written(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let (of_agent, hash) = key(&f);
    keys::insert(&mut tx, &of_agent, &hash).await.unwrap();
    assert_eq!(keys::get(&mut tx, &of_agent.id).await.unwrap().as_ref(), Some(&of_agent));
    assert_eq!(keys::find(&mut tx, &hash).await.unwrap().as_ref(), Some(&of_agent));
    for role in Role::ALL {
        let (plain, hash) = key(&f);
        let service = Key {
            agent_id: None,
            role: Some(*role),
            name: "Dienst \"ü\"".to_owned(),
            scopes: vec!["jobs:read".to_owned(), "bots:call".to_owned()],
            reads_per_minute: Some(u32::MAX),
            writes_per_minute: Some(0),
            expires_at: Some(f.now().plus(Duration::from_secs(60))),
            ..plain
        };
        keys::insert(&mut tx, &service, &hash).await.unwrap();
        keys::touch(&mut tx, &service.id, f.now()).await.unwrap();
        f.tick();
        assert!(keys::revoke(&mut tx, &service.id, f.now()).await.unwrap());
        let last_used_at = Some(f.now().minus(Duration::from_secs(1)));
        let service = Key { last_used_at, revoked_at: Some(f.now()), ..service };
        assert_eq!(
            keys::find(&mut tx, &hash).await.unwrap(),
            Some(service),
            "whether it still counts or not"
        );
    }
    let (unknown, hash) = key(&f);
    assert_eq!(keys::get(&mut tx, &unknown.id).await.unwrap(), None);
    assert_eq!(keys::find(&mut tx, &hash).await.unwrap(), None);
}

async fn a_hash_is_one_keys(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (first, hash) = key(&f);
    let mut tx = f.tx().await;
    keys::insert(&mut tx, &first, &hash).await.unwrap();
    assert!(keys::revoke(&mut tx, &first.id, f.now()).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = f.tx().await;
    let (second, _) = key(&f);
    assert!(matches!(keys::insert(&mut tx, &second, &hash).await, Err(StoreError::Conflict(_))));
}

async fn a_key_is_revoked_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let (key, other) = (made(&f, &mut tx).await, made(&f, &mut tx).await);
    tx.commit().await.unwrap();
    let tasks: Vec<_> = (f.hosts(engine, 8).await.into_iter().enumerate())
        .map(|(number, store)| {
            let (id, now) = (key.id.clone(), f.now().plus(Duration::from_secs(number as u64)));
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let revoked = keys::revoke(&mut tx, &id, now).await.unwrap();
                tx.commit().await.unwrap();
                revoked.then_some(now)
            })
        })
        .collect();
    let mut revoked = Vec::new();
    for task in tasks {
        revoked.extend(task.await.unwrap());
    }
    assert_eq!(revoked.len(), 1);
    let mut tx = f.tx().await;
    assert_eq!(read(&mut tx, &key).await, Key { revoked_at: Some(revoked[0]), ..key });
    assert_eq!(read(&mut tx, &other).await, other);
    assert!(!keys::revoke(&mut tx, &ApiKeyId::new(&f.clock, &f.rng), f.now()).await.unwrap());
}

async fn a_key_lives_only_shorter(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let key = made(&f, &mut tx).await;
    for (to, until) in [(100, 100), (200, 100), (50, 50), (50, 50), (51, 50), (0, 0), (1, 0)] {
        let at = |seconds| f.now().plus(Duration::from_secs(seconds));
        keys::expire(&mut tx, &key.id, at(to)).await.unwrap();
        assert_eq!(read(&mut tx, &key).await.expires_at, Some(at(until)), "{to}");
    }
}

async fn limits_and_use_are_noted(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let (mut key, other) = (made(&f, &mut tx).await, made(&f, &mut tx).await);
    for (reads, writes) in [(Some(7), None), (None, Some(u32::MAX)), (Some(0), Some(1)), (None, None)] {
        keys::set_limits(&mut tx, &key.id, reads, writes).await.unwrap();
        f.tick();
        keys::touch(&mut tx, &key.id, f.now()).await.unwrap();
        (key.reads_per_minute, key.writes_per_minute, key.last_used_at) = (reads, writes, Some(f.now()));
        assert_eq!(read(&mut tx, &key).await, key);
    }
    assert_eq!(read(&mut tx, &other).await, other);
}

async fn the_valid_keys_of_an_agent(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let elsewhere = Key { agent_id: Some(f.worker.id.clone()), org_id: f.worker.org_id.clone(), ..key(&f).0 };
    keys::insert(&mut tx, &elsewhere, &key(&f).1).await.unwrap();
    let service = Key { agent_id: None, role: Some(Role::User), ..key(&f).0 };
    keys::insert(&mut tx, &service, &key(&f).1).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(made(&f, &mut tx).await);
        f.tick();
    }
    assert_eq!(keys::lock_valid_of_agent(&mut tx, &f.buyer.id, f.now()).await.unwrap(), all, "oldest first");
    let soon = f.now().plus(Duration::from_micros(1));
    assert!(keys::revoke(&mut tx, &all[0].id, f.now()).await.unwrap());
    keys::expire(&mut tx, &all[1].id, f.now()).await.unwrap();
    keys::expire(&mut tx, &all[2].id, soon).await.unwrap();
    let valid = keys::lock_valid_of_agent(&mut tx, &f.buyer.id, f.now()).await.unwrap();
    assert_eq!(valid, [Key { expires_at: Some(soon), ..all[2].clone() }, all[3].clone()]);
    assert_eq!(keys::lock_valid_of_agent(&mut tx, &f.buyer.id, soon).await.unwrap(), [all[3].clone()]);
    assert_eq!(keys::lock_valid_of_agent(&mut tx, &f.worker.id, f.now()).await.unwrap(), [elsewhere]);
}

/// Whoever replaces a key waits for whoever revokes it.
async fn a_key_that_is_being_revoked_is_not_valid(engine: Engine) {
    let f = std::sync::Arc::new(Fixture::new(engine).await);
    let mut tx = f.tx().await;
    let key = made(&f, &mut tx).await;
    tx.commit().await.unwrap();
    let mut revoking = f.tx().await;
    assert!(keys::revoke(&mut revoking, &key.id, f.now()).await.unwrap());
    let replacing = tokio::spawn({
        let f = f.clone();
        async move {
            let mut tx = f.tx().await;
            keys::lock_valid_of_agent(&mut tx, &f.buyer.id, f.now()).await.unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!replacing.is_finished(), "it waits");
    revoking.commit().await.unwrap();
    assert_eq!(replacing.await.unwrap(), []);
}

async fn keys_are_listed_within_their_org_and_agent(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let stranger = fixture::agent(&mut tx, &f.clock, &f.rng, "stranger").await;
    let (mut all, mut of_agent) = (Vec::new(), Vec::new());
    for number in 0..9 {
        if number % 2 == 0 {
            f.tick();
        }
        let (plain, hash) = key(&f);
        let made = match number % 3 {
            0 => plain,
            1 => Key { agent_id: None, role: Some(Role::Operator), ..plain },
            _ => Key { org_id: stranger.org_id.clone(), agent_id: Some(stranger.id.clone()), ..plain },
        };
        keys::insert(&mut tx, &made, &hash).await.unwrap();
        if made.org_id == f.buyer.org_id {
            all.push(made.clone());
        }
        if made.agent_id.as_ref() == Some(&f.buyer.id) {
            of_agent.push(made);
        }
    }
    // Those that no longer count are listed as well.
    assert!(keys::revoke(&mut tx, &all[0].id, f.now()).await.unwrap());
    (all[0].revoked_at, of_agent[0].revoked_at) = (Some(f.now()), Some(f.now()));
    for list in [&mut all, &mut of_agent] {
        list.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    }
    for (limit, offset) in [(100, 0), (2, 1), (3, 2), (5, 9)] {
        let part = |all: &[Key]| all.iter().skip(offset as usize).take(limit as usize).cloned().collect();
        let expected: Vec<_> = part(&all);
        let page = keys::list(&mut tx, &f.buyer.org_id, limit, offset).await.unwrap();
        assert_eq!((page.items, page.total), (expected, 6), "{limit} {offset}");
        let expected: Vec<_> = part(&of_agent);
        let page = keys::list_of_agent(&mut tx, &f.buyer.id, limit, offset).await.unwrap();
        assert_eq!((page.items, page.total), (expected, 3), "{limit} {offset}");
    }
    assert_eq!(keys::list(&mut tx, &stranger.org_id, 100, 0).await.unwrap().total, 3);
    assert_eq!(keys::list_of_agent(&mut tx, &f.worker.id, 100, 0).await.unwrap().total, 0);
    assert_eq!(keys::list(&mut tx, &OrgId::new(&f.clock, &f.rng), 100, 0).await.unwrap().items, []);
    let nobody = AgentId::new(&f.clock, &f.rng);
    assert_eq!(keys::list_of_agent(&mut tx, &nobody, 100, 0).await.unwrap().items, []);
}

/// What has expired takes up no room: an agent that changes its key with a time of grace leaves one behind each time.
async fn live_keys_are_counted(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let org = f.buyer.org_id.clone();
    assert_eq!(keys::live_count(&mut tx, &org, f.now()).await.unwrap(), 0);
    let (revoked, expiring) = (made(&f, &mut tx).await, made(&f, &mut tx).await);
    made(&f, &mut tx).await;
    assert_eq!(keys::live_count(&mut tx, &org, f.now()).await.unwrap(), 3);
    assert!(keys::revoke(&mut tx, &revoked.id, f.now()).await.unwrap());
    assert_eq!(keys::live_count(&mut tx, &org, f.now()).await.unwrap(), 2);
    f.tick();
    keys::expire(&mut tx, &expiring.id, f.now()).await.unwrap();
    assert_eq!(keys::live_count(&mut tx, &org, f.now().minus(Duration::from_micros(1))).await.unwrap(), 2);
    assert_eq!(keys::live_count(&mut tx, &org, f.now()).await.unwrap(), 1);
    assert_eq!(keys::live_count(&mut tx, &f.worker.org_id, f.now()).await.unwrap(), 0);
}
