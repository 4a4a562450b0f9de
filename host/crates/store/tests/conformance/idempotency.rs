use std::time::Duration;

use ringfence_store::idempotency::{self, Begun, KEPT};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(a_key_is_claimed_once, a_key_is_forgotten_after_a_day, of_two_at_once_the_second_waits);

async fn begin(fixture: &Fixture, key: &str, hash: &str) -> Begun {
    let mut tx = fixture.tx().await;
    let begun =
        idempotency::begin(&mut tx, "agent", key, &fixture.buyer.org_id, hash, fixture.now()).await.unwrap();
    tx.commit().await.unwrap();
    begun
}

async fn finish(fixture: &Fixture, key: &str, response: &str) {
    let mut tx = fixture.tx().await;
    idempotency::finish(&mut tx, "agent", key, response).await.unwrap();
    tx.commit().await.unwrap();
}

async fn a_key_is_claimed_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert_eq!(begin(&fixture, "k", "h").await, Begun::New);
    assert_eq!(begin(&fixture, "k", "h").await, Begun::Running);
    assert_eq!(begin(&fixture, "k", "other").await, Begun::Mismatch);
    finish(&fixture, "k", "{\"a\": 1}").await;
    assert_eq!(begin(&fixture, "k", "h").await, Begun::Replay("{\"a\": 1}".to_owned()));
    let mut tx = fixture.tx().await;
    let other = idempotency::begin(&mut tx, "another", "k", &fixture.worker.org_id, "x", fixture.now())
        .await
        .unwrap();
    assert_eq!(other, Begun::New, "each principal has keys of its own");
}

async fn a_key_is_forgotten_after_a_day(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    assert_eq!(begin(&fixture, "k", "h").await, Begun::New);
    finish(&fixture, "k", "1").await;
    fixture.clock.advance(KEPT - Duration::from_secs(1));
    assert_eq!(begin(&fixture, "k", "h").await, Begun::Replay("1".to_owned()));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(begin(&fixture, "k", "another").await, Begun::New);
    fixture.clock.advance(KEPT);
    let mut tx = fixture.tx().await;
    assert_eq!(idempotency::purge(&mut tx, fixture.now().minus(KEPT)).await.unwrap(), 1);
}

async fn of_two_at_once_the_second_waits(engine: Engine) {
    let fixture = std::sync::Arc::new(Fixture::new(engine).await);
    let mut first = fixture.tx().await;
    let now = fixture.now();
    let org = &fixture.buyer.org_id;
    assert_eq!(idempotency::begin(&mut first, "agent", "k", org, "h", now).await.unwrap(), Begun::New);
    let second = tokio::spawn({
        let fixture = fixture.clone();
        async move { begin(&fixture, "k", "h").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished(), "it waits");
    idempotency::finish(&mut first, "agent", "k", "done").await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), Begun::Replay("done".to_owned()));
}
