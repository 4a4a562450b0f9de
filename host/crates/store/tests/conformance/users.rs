//! People and their sessions.

use std::time::Duration;

use ringfence_model::{OrgId, Role, SessionId, UserId};
use ringfence_store::sessions::{self, EndReason, UserSession};
use ringfence_store::users::{self, User};
use ringfence_store::{StoreError, Tx, accounts};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(
    a_user_is_read_as_written,
    an_address_is_one_users_until_it_is_deleted,
    of_many_who_take_an_address_one_gets_it,
    users_are_listed_oldest_first,
    a_deleted_user_is_not_there,
    only_the_password_that_was_tested_is_rehashed,
    two_admins_cannot_remove_each_other,
    a_session_is_read_with_its_user,
    a_generation_is_exchanged_once,
    of_many_exchanges_one_succeeds,
    what_is_over_is_not_exchanged,
    the_sessions_of_a_user_end,
    sessions_are_forgotten_when_their_time_is_over,
);

fn user(f: &Fixture, email: &str) -> User {
    User {
        id: UserId::new(&f.clock, &f.rng),
        org_id: f.buyer.org_id.clone(),
        email: email.to_owned(),
        name: "Ünal".to_owned(),
        role: Role::Admin,
        password_hash: "$argon2id$…".to_owned(),
        created_at: f.now(),
        updated_at: f.now(),
        last_login_at: None,
        disabled_at: None,
    }
}

async fn made_in(f: &Fixture, tx: &mut Tx, email: &str) -> User {
    let user = user(f, email);
    users::insert(tx, &user).await.unwrap();
    user
}

async fn made(f: &Fixture, email: &str) -> User {
    let mut tx = f.tx().await;
    let user = made_in(f, &mut tx, email).await;
    tx.commit().await.unwrap();
    user
}

async fn a_user_is_read_as_written(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut user = made(&f, "a@example.com").await;
    let mut tx = f.tx().await;
    assert_eq!(users::get(&mut tx, &user.id).await.unwrap().as_ref(), Some(&user));
    f.tick();
    for role in Role::ALL {
        (user.role, user.name, user.password_hash) = (*role, role.to_string(), format!("hash {role}"));
        (user.updated_at, user.disabled_at) = (f.now(), Some(f.now()));
        assert!(users::update(&mut tx, &user).await.unwrap());
        users::logged_in(&mut tx, &user.id, f.now()).await.unwrap();
        user.last_login_at = Some(f.now());
        assert_eq!(users::get(&mut tx, &user.id).await.unwrap().as_ref(), Some(&user));
        assert_eq!(users::lock(&mut tx, &user.id).await.unwrap().as_ref(), Some(&user));
        assert_eq!(users::by_email(&mut tx, "a@example.com").await.unwrap().as_ref(), Some(&user));
        user.disabled_at = None;
        assert!(users::update(&mut tx, &user).await.unwrap());
        assert_eq!(users::get(&mut tx, &user.id).await.unwrap().as_ref(), Some(&user));
    }
    assert_eq!(users::by_email(&mut tx, "A@example.com").await.unwrap(), None, "addresses are in lower case");
    assert!(!format!("{user:?}").contains(&user.password_hash));
    let nobody = UserId::new(&f.clock, &f.rng);
    assert_eq!(users::get(&mut tx, &nobody).await.unwrap(), None);
    assert!(!users::update(&mut tx, &User { id: nobody, ..user }).await.unwrap());
}

async fn an_address_is_one_users_until_it_is_deleted(engine: Engine) {
    let f = Fixture::new(engine).await;
    let first = made(&f, "a@example.com").await;
    // In another org as well: one logs in with the address alone.
    let second = User { org_id: f.worker.org_id.clone(), ..user(&f, "a@example.com") };
    for disabled_at in [None, Some(f.now())] {
        let mut tx = f.tx().await;
        assert!(users::update(&mut tx, &User { disabled_at, ..first.clone() }).await.unwrap());
        tx.commit().await.unwrap();
        let mut tx = f.tx().await;
        assert!(matches!(users::insert(&mut tx, &second).await, Err(StoreError::Conflict(_))));
    }
    for round in 0..2 {
        let mut tx = f.tx().await;
        let found = users::by_email(&mut tx, "a@example.com").await.unwrap().unwrap();
        assert!(users::delete(&mut tx, &found.id, f.now()).await.unwrap());
        let next = User { id: UserId::new(&f.clock, &f.rng), ..second.clone() };
        users::insert(&mut tx, &next).await.unwrap();
        assert_eq!(users::by_email(&mut tx, "a@example.com").await.unwrap(), Some(next), "{round}");
        tx.commit().await.unwrap();
    }
    // No engine finds what nobody can have, and none fails over it.
    let mut tx = f.tx().await;
    for odd in ["", "a@example.com\0", "\0", "a@example.com' OR '1'='1"] {
        assert_eq!(users::by_email(&mut tx, odd).await.unwrap(), None, "{odd:?}");
    }
}

async fn of_many_who_take_an_address_one_gets_it(engine: Engine) {
    let f = Fixture::new(engine).await;
    let tasks: Vec<_> = (f.hosts(engine, 10).await.into_iter())
        .map(|store| {
            let user = user(&f, "a@example.com");
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                match users::insert(&mut tx, &user).await {
                    Ok(()) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        tx.commit().await.unwrap();
                        true
                    }
                    Err(StoreError::Conflict(_)) => false,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += u32::from(task.await.unwrap());
    }
    assert_eq!(made, 1);
}

async fn users_are_listed_oldest_first(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut all = Vec::new();
    for number in 0..5 {
        // Two at a time: then by id.
        if number % 2 == 0 {
            f.tick();
        }
        all.push(made(&f, &format!("{number}@example.com")).await);
    }
    all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let mut tx = f.tx().await;
    let elsewhere = User { org_id: f.worker.org_id.clone(), ..user(&f, "elsewhere@example.com") };
    users::insert(&mut tx, &elsewhere).await.unwrap();
    let gone = all.remove(2);
    assert!(users::delete(&mut tx, &gone.id, f.now()).await.unwrap());
    for (limit, offset) in [(10, 0), (2, 1), (10, 3), (1, 4)] {
        let page = users::list(&mut tx, &f.buyer.org_id, limit, offset).await.unwrap();
        let expected: Vec<_> = all.iter().skip(offset as usize).take(limit as usize).cloned().collect();
        assert_eq!((page.items, page.total), (expected, 4), "{limit} {offset}");
    }
    let page = users::list(&mut tx, &f.worker.org_id, 10, 0).await.unwrap();
    assert_eq!((page.items, page.total), (vec![elsewhere], 1));
    let nobodys = OrgId::new(&f.clock, &f.rng);
    assert_eq!(users::list(&mut tx, &nobodys, 10, 0).await.unwrap().total, 0);
}

async fn a_deleted_user_is_not_there(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    let mut tx = f.tx().await;
    assert!(users::delete(&mut tx, &user.id, f.now()).await.unwrap());
    assert!(!users::delete(&mut tx, &user.id, f.now()).await.unwrap(), "once");
    assert!(!users::update(&mut tx, &user).await.unwrap());
    assert_eq!(users::get(&mut tx, &user.id).await.unwrap(), None);
    assert_eq!(users::lock(&mut tx, &user.id).await.unwrap(), None);
    assert_eq!(users::by_email(&mut tx, &user.email).await.unwrap(), None);
    assert_eq!(users::list(&mut tx, &user.org_id, 10, 0).await.unwrap().total, 0);
    assert_eq!(users::admins(&mut tx, &user.org_id).await.unwrap(), 0);
}

async fn only_the_password_that_was_tested_is_rehashed(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    let other = made(&f, "b@example.com").await;
    let mut tx = f.tx().await;
    users::rehash(&mut tx, &user.id, "another hash", "new").await.unwrap();
    assert_eq!(users::get(&mut tx, &user.id).await.unwrap().as_ref(), Some(&user));
    users::rehash(&mut tx, &user.id, &user.password_hash, "new").await.unwrap();
    assert_eq!(users::get(&mut tx, &user.id).await.unwrap().unwrap().password_hash, "new");
    assert_eq!(users::get(&mut tx, &other.id).await.unwrap(), Some(other));
}

/// Each counts the admins while it holds the org: the second sees what the first has done.
async fn two_admins_cannot_remove_each_other(engine: Engine) {
    let f = Fixture::new(engine).await;
    let admins = [made(&f, "a@example.com").await, made(&f, "b@example.com").await];
    let mut tx = f.tx().await;
    let disabled = User { disabled_at: Some(f.now()), ..made_in(&f, &mut tx, "c@example.com").await };
    assert!(users::update(&mut tx, &disabled).await.unwrap());
    let reader = User { role: Role::Viewer, ..made_in(&f, &mut tx, "d@example.com").await };
    assert!(users::update(&mut tx, &reader).await.unwrap());
    assert_eq!(
        users::admins(&mut tx, &f.buyer.org_id).await.unwrap(),
        2,
        "neither the disabled nor the viewer"
    );
    tx.commit().await.unwrap();
    let tasks: Vec<_> = (admins.into_iter().zip(f.hosts(engine, 2).await))
        .map(|(victim, store)| {
            let now = f.now();
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                assert!(accounts::lock_org(&mut tx, &victim.org_id).await.unwrap().is_some());
                assert!(users::lock(&mut tx, &victim.id).await.unwrap().is_some());
                let another = users::admins(&mut tx, &victim.org_id).await.unwrap() > 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                if another {
                    assert!(users::delete(&mut tx, &victim.id, now).await.unwrap());
                    tx.commit().await.unwrap();
                }
                another
            })
        })
        .collect();
    let mut removed = 0;
    for task in tasks {
        removed += u32::from(task.await.unwrap());
    }
    assert_eq!(removed, 1);
    assert_eq!(users::admins(&mut f.reader().await, &f.buyer.org_id).await.unwrap(), 1);
}

const SESSION_FOR: Duration = Duration::from_secs(3600);

async fn session_in(f: &Fixture, tx: &mut Tx, user: &User) -> UserSession {
    let session = UserSession {
        id: SessionId::new(&f.clock, &f.rng),
        user_id: user.id.clone(),
        org_id: user.org_id.clone(),
        generation: 1,
        expires_at: f.now().plus(SESSION_FOR),
        over: false,
        role: user.role,
    };
    sessions::insert(tx, &session, f.now()).await.unwrap();
    session
}

async fn session(f: &Fixture, user: &User) -> UserSession {
    let mut tx = f.tx().await;
    let session = session_in(f, &mut tx, user).await;
    tx.commit().await.unwrap();
    session
}

async fn a_session_is_read_with_its_user(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut user = made(&f, "a@example.com").await;
    let session = session(&f, &user).await;
    let mut tx = f.tx().await;
    let read = sessions::get(&mut tx, &session.id).await.unwrap().unwrap();
    assert_eq!(read, session);
    assert_eq!(sessions::get(&mut tx, &SessionId::new(&f.clock, &f.rng)).await.unwrap(), None);
    for role in Role::ALL {
        user.role = *role;
        assert!(users::update(&mut tx, &user).await.unwrap());
        let read = sessions::get(&mut tx, &session.id).await.unwrap().unwrap();
        assert_eq!((read.role, read.over), (*role, false), "what the user may do now");
    }
    user.disabled_at = Some(f.now());
    assert!(users::update(&mut tx, &user).await.unwrap());
    assert!(sessions::get(&mut tx, &session.id).await.unwrap().unwrap().over, "disabled");
    user.disabled_at = None;
    assert!(users::update(&mut tx, &user).await.unwrap());
    assert!(!sessions::get(&mut tx, &session.id).await.unwrap().unwrap().over, "enabled again");
    assert!(users::delete(&mut tx, &user.id, f.now()).await.unwrap());
    assert!(sessions::get(&mut tx, &session.id).await.unwrap().unwrap().over, "deleted");
}

async fn a_generation_is_exchanged_once(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    let (one, other) = (session(&f, &user).await, session(&f, &user).await);
    let mut tx = f.tx().await;
    for generation in 1..5 {
        f.tick();
        assert!(!sessions::advance(&mut tx, &one.id, generation + 1, f.now()).await.unwrap(), "not yet");
        assert!(sessions::advance(&mut tx, &one.id, generation, f.now()).await.unwrap());
        assert!(
            !sessions::advance(&mut tx, &one.id, generation, f.now()).await.unwrap(),
            "{generation} again"
        );
        let read = sessions::get(&mut tx, &one.id).await.unwrap().unwrap();
        assert_eq!(read, UserSession { generation: generation + 1, ..one.clone() });
    }
    assert_eq!(sessions::get(&mut tx, &other.id).await.unwrap(), Some(other));
    assert!(!sessions::advance(&mut tx, &SessionId::new(&f.clock, &f.rng), 1, f.now()).await.unwrap());
}

async fn of_many_exchanges_one_succeeds(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    let session = session(&f, &user).await;
    let hosts = f.hosts(engine, 2).await;
    let tasks: Vec<_> = (0..20)
        .map(|number: usize| {
            let (store, id, now) = (hosts[number % 2].clone(), session.id.clone(), f.now());
            tokio::spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let advanced = sessions::advance(&mut tx, &id, 1, now).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
                tx.commit().await.unwrap();
                advanced
            })
        })
        .collect();
    let mut advanced = 0;
    for task in tasks {
        advanced += u32::from(task.await.unwrap());
    }
    assert_eq!(advanced, 1);
    let read = sessions::get(&mut f.reader().await, &session.id).await.unwrap().unwrap();
    assert_eq!(read.generation, 2);
}

async fn what_is_over_is_not_exchanged(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    for reason in EndReason::ALL {
        let session = session(&f, &user).await;
        let mut tx = f.tx().await;
        assert!(sessions::end(&mut tx, &session.id, *reason, f.now()).await.unwrap());
        assert!(!sessions::end(&mut tx, &session.id, *reason, f.now()).await.unwrap(), "once");
        assert!(!sessions::advance(&mut tx, &session.id, 1, f.now()).await.unwrap(), "{reason}");
        let read = sessions::get(&mut tx, &session.id).await.unwrap().unwrap();
        assert_eq!(read, UserSession { over: true, ..session });
        tx.commit().await.unwrap();
    }
    let session = session(&f, &user).await;
    f.clock.advance(SESSION_FOR - Duration::from_micros(1));
    let mut tx = f.tx().await;
    assert!(sessions::advance(&mut tx, &session.id, 1, f.now()).await.unwrap());
    f.clock.advance(Duration::from_micros(1));
    assert!(!sessions::advance(&mut tx, &session.id, 2, f.now()).await.unwrap(), "expired");
    let read = sessions::get(&mut tx, &session.id).await.unwrap().unwrap();
    assert_eq!((read.generation, read.expires_at <= f.now()), (2, true));
}

async fn the_sessions_of_a_user_end(engine: Engine) {
    let f = Fixture::new(engine).await;
    let (user, other) = (made(&f, "a@example.com").await, made(&f, "b@example.com").await);
    let elsewhere = session(&f, &other).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(session(&f, &user).await.id);
    }
    let mut tx = f.tx().await;
    assert!(sessions::end(&mut tx, &all[0], EndReason::Reuse, f.now()).await.unwrap());
    let reason = EndReason::Password;
    assert_eq!(sessions::end_of_user(&mut tx, &user.id, reason, f.now()).await.unwrap(), 2);
    for (id, over) in [(&all[0], true), (&all[1], true), (&all[2], true), (&elsewhere.id, false)] {
        assert_eq!(sessions::get(&mut tx, id).await.unwrap().unwrap().over, over, "{id}");
    }
    let late = session_in(&f, &mut tx, &user).await;
    assert_eq!(sessions::end_of_user(&mut tx, &user.id, reason, f.now()).await.unwrap(), 1);
    assert_eq!(sessions::end_of_user(&mut tx, &user.id, reason, f.now()).await.unwrap(), 0);
    assert!(sessions::get(&mut tx, &late.id).await.unwrap().unwrap().over);
    assert!(!sessions::get(&mut tx, &elsewhere.id).await.unwrap().unwrap().over);
}

async fn sessions_are_forgotten_when_their_time_is_over(engine: Engine) {
    let f = Fixture::new(engine).await;
    let user = made(&f, "a@example.com").await;
    let old = session(&f, &user).await;
    f.tick();
    let young = session(&f, &user).await;
    f.clock.advance(SESSION_FOR - Duration::from_secs(1));
    let mut tx = f.tx().await;
    assert!(sessions::end(&mut tx, &young.id, EndReason::Logout, f.now()).await.unwrap());
    assert_eq!(sessions::purge(&mut tx, f.now().minus(Duration::from_micros(1))).await.unwrap(), 0);
    assert_eq!(sessions::purge(&mut tx, f.now()).await.unwrap(), 1);
    assert_eq!(sessions::get(&mut tx, &old.id).await.unwrap(), None);
    assert!(
        sessions::get(&mut tx, &young.id).await.unwrap().is_some(),
        "kept until its time, though it has ended"
    );
}
