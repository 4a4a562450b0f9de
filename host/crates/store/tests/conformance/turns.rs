//! SQLite: transactions take turns, and share commits.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ringfence_model::{Clock as _, OrgId};
use ringfence_store::accounts::{self, Org};
use ringfence_store::{Store, StoreError, Tx, audit, idempotency};
use ringfence_testkit::Engine;
use sqlx::{Connection as _, SqliteConnection};
use tokio::task::JoinHandle;

use crate::fixture::Fixture;

async fn insert(fixture: &Fixture, tx: &mut Tx, name: &str) -> Result<OrgId, StoreError> {
    let org = Org {
        id: OrgId::new(&fixture.clock, &fixture.rng),
        name: name.to_owned(),
        created_at: fixture.clock.now(),
    };
    accounts::insert_org(tx, &org).await?;
    Ok(org.id)
}

async fn is_there(fixture: &Fixture, org: &OrgId) -> bool {
    audit::orgs(&mut fixture.reader().await, "").await.unwrap().contains(org)
}

/// A transaction that stands in the queue behind the one that is open.
async fn waiting(store: &Store) -> JoinHandle<Tx> {
    let store = store.clone();
    let waiting = tokio::spawn(async move { store.begin().await.unwrap() });
    // It has been asked for its first step, and so has its place.
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    waiting
}

type Commit = JoinHandle<Result<(), StoreError>>;

/// A transaction that has inserted an org and asks for its commit, and those that were waiting for their turn by then.
async fn ended<const N: usize>(fixture: &Fixture) -> (OrgId, Commit, [JoinHandle<Tx>; N]) {
    let mut tx = fixture.tx().await;
    let org = insert(fixture, &mut tx, "one").await.unwrap();
    let mut behind = Vec::new();
    for _ in 0..N {
        behind.push(waiting(&fixture.store).await);
    }
    (org, tokio::spawn(tx.commit()), behind.try_into().ok().unwrap())
}

/// As it is for a client: told of its end by nobody but the commit.
async fn is_pending(commit: &Commit) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    !commit.is_finished()
}

#[tokio::test]
async fn who_has_ended_is_told_when_it_is_durable() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let (one, first, [second, third]) = ended(&fixture).await;

    let mut second = second.await.unwrap();
    let two = insert(&fixture, &mut second, "two").await.unwrap();
    assert!(is_pending(&first).await, "the second's turn comes before the commit");
    assert!(!is_there(&fixture, &one).await, "what is not committed is nobody else's to see");
    let second = tokio::spawn(second.commit());

    let mut third = third.await.unwrap();
    let three = insert(&fixture, &mut third, "three").await.unwrap();
    assert!(is_pending(&first).await && is_pending(&second).await);
    third.commit().await.unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    for org in [&one, &two, &three] {
        assert!(is_there(&fixture, org).await);
    }
}

/// Such as a refusal, or the answer that an idempotency key had: it may be told as soon as the transaction is dropped.
#[tokio::test]
async fn what_somebody_has_seen_is_durable_when_it_goes() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let (one, first, [second]) = ended(&fixture).await;
    let mut second = second.await.unwrap();
    assert!(audit::orgs(&mut second, "").await.unwrap().contains(&one));
    let two = insert(&fixture, &mut second, "two").await.unwrap();
    assert!(!is_there(&fixture, &one).await);
    drop(second);
    // At once: whoever answers from it now answers from what stays.
    assert!(is_there(&fixture, &one).await && !is_there(&fixture, &two).await);
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_all_whom_it_concerns() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for odd in [
        "CREATE TABLE odd (id TEXT REFERENCES orgs (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER odd_one AFTER INSERT ON orgs WHEN NEW.name = 'odd' BEGIN INSERT INTO odd VALUES ('nobody'); END",
    ] {
        fixture.meddle(Engine::Sqlite, odd).await;
    }
    let (one, first, [second]) = ended(&fixture).await;
    let mut second = second.await.unwrap();
    let two = insert(&fixture, &mut second, "odd").await.unwrap();
    assert!(matches!(second.commit().await, Err(StoreError::Refused(_))));
    assert!(matches!(first.await.unwrap(), Err(StoreError::Refused(_))));
    assert!(!is_there(&fixture, &one).await && !is_there(&fixture, &two).await);
    let mut third = fixture.tx().await;
    let three = insert(&fixture, &mut third, "three").await.unwrap();
    third.commit().await.unwrap();
    assert!(is_there(&fixture, &three).await);
}

/// A statement that is carried out on a thread has the transaction with it.
#[tokio::test]
async fn who_stops_waiting_for_a_statement_cannot_commit() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let mut tx = fixture.tx().await;
    let one = insert(&fixture, &mut tx, "one").await.unwrap();
    // The thread may be done before it is asked about.
    loop {
        let mut purge = pin!(idempotency::purge(&mut tx, fixture.clock.now()));
        if poll_fn(|context| Poll::Ready(purge.as_mut().poll(context).is_pending())).await {
            break;
        }
    }
    assert!(insert(&fixture, &mut tx, "two").await.is_err());
    assert!(matches!(tx.commit().await, Err(StoreError::Database(_))));
    fixture.tx().await.commit().await.unwrap();
    assert!(!is_there(&fixture, &one).await);
}

#[tokio::test]
async fn a_database_is_closed_behind_what_has_ended() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let (one, first, [second]) = ended(&fixture).await;
    let second = second.await.unwrap();
    let store = fixture.store.clone();
    let closing = tokio::spawn(async move { store.close().await });
    tokio::task::yield_now().await;
    second.commit().await.unwrap();
    first.await.unwrap().unwrap();
    closing.await.unwrap();
    let store = Store::connect(fixture.database.url()).await.unwrap();
    assert!(audit::orgs(&mut store.reader().await.unwrap(), "").await.unwrap().contains(&one));
}

#[tokio::test]
async fn who_goes_away_in_its_commit_has_committed() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let (one, first, [second]) = ended(&fixture).await;
    let second = second.await.unwrap();
    assert!(is_pending(&first).await);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    drop(second);
    // Behind the commit that was under way.
    fixture.tx().await.commit().await.unwrap();
    assert!(is_there(&fixture, &one).await);
}

/// On a full disk, or one that fails, SQLite rolls back everything: those who have ended and wait, too.
#[tokio::test]
async fn a_database_that_gives_up_a_transaction_takes_all_with_it() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let give_up = "CREATE TRIGGER gives_up BEFORE INSERT ON orgs WHEN NEW.name = 'full'
        BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END";
    fixture.meddle(Engine::Sqlite, give_up).await;
    let (one, first, [second, third]) = ended(&fixture).await;

    let mut second = second.await.unwrap();
    assert!(insert(&fixture, &mut second, "full").await.is_err());
    // What comes now would be carried out by itself, outside of any transaction.
    assert!(matches!(insert(&fixture, &mut second, "two").await, Err(StoreError::Database(_))));
    assert!(second.commit().await.is_err());
    assert!(first.await.unwrap().is_err(), "it was told that it is durable");

    let mut third = third.await.unwrap();
    let three = insert(&fixture, &mut third, "three").await.unwrap();
    third.commit().await.unwrap();
    assert!(!is_there(&fixture, &one).await && is_there(&fixture, &three).await);
}

/// Such as `ringfence ledger check` beside a host.
#[tokio::test]
async fn another_process_is_waited_for() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let mut other = SqliteConnection::connect(fixture.database.url()).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let waiting = waiting(&fixture.store).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    // Readers do not wait.
    assert!(!is_there(&fixture, &OrgId::platform()).await);
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    waiting.await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn nothing_begins_once_it_is_closed() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let reader = fixture.reader().await;
    fixture.store.close().await;
    drop(reader);
    assert!(matches!(fixture.store.begin().await, Err(StoreError::Database(_))));
    assert!(matches!(fixture.store.reader().await, Err(StoreError::Database(_))));
}
