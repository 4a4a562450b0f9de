//! The common account of a rate limit.

use std::time::Duration;

use ringfence_model::Timestamp;
use ringfence_store::{Store, rates};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(
    exactly_the_burst_is_granted,
    a_block_that_is_too_large_leaves_what_is_there,
    time_gives_back,
    each_limit_is_an_account_of_its_own,
    a_cell_that_is_worth_more_than_the_window_waits_for_an_empty_account,
    parallel_takers_get_no_more_than_the_burst,
    what_is_not_spent_is_forgotten,
);

const WINDOW: Duration = Duration::from_secs(60);
/// Ten of them are a window.
const CELL: Duration = Duration::from_secs(6);

async fn take(store: &Store, id: &str, now: Timestamp, cost: Duration) -> Option<Duration> {
    if store.is_shared() {
        // As a host does it: a statement that commits itself.
        rates::take(&mut store.reader().await.unwrap(), id, now, cost, WINDOW).await.unwrap()
    } else {
        let mut tx = store.begin().await.unwrap();
        let taken = rates::take(&mut tx, id, now, cost, WINDOW).await.unwrap();
        tx.commit().await.unwrap();
        taken
    }
}

impl Fixture {
    async fn take(&self, cells: u32) -> Option<Duration> {
        take(&self.store, "reads a", self.now(), CELL * cells).await
    }
}

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

async fn exactly_the_burst_is_granted(engine: Engine) {
    let f = Fixture::new(engine).await;
    for number in 0..10 {
        assert_eq!(f.take(1).await, None, "{number}");
    }
    // What is refused costs nothing.
    for _ in 0..3 {
        assert_eq!(f.take(1).await, seconds(6));
    }
    assert_eq!(f.take(2).await, seconds(12));
    f.tick();
    assert_eq!(f.take(1).await, seconds(5));
}

async fn a_block_that_is_too_large_leaves_what_is_there(engine: Engine) {
    let f = Fixture::new(engine).await;
    assert_eq!(f.take(7).await, None);
    assert_eq!(f.take(5).await, seconds(12));
    assert_eq!(f.take(1).await, None);
    assert_eq!(f.take(3).await, seconds(6));
    assert_eq!(f.take(2).await, None, "to the last cell");
    assert_eq!(f.take(1).await, seconds(6));
}

async fn time_gives_back(engine: Engine) {
    let f = Fixture::new(engine).await;
    assert_eq!(f.take(10).await, None);
    f.clock.advance(CELL - Duration::from_micros(1));
    assert_eq!(f.take(1).await, Some(Duration::from_micros(1)));
    f.clock.advance(Duration::from_micros(1));
    assert_eq!(f.take(1).await, None);
    assert_eq!(f.take(1).await, seconds(6));
    f.clock.advance(CELL * 3);
    assert_eq!(f.take(4).await, seconds(6));
    assert_eq!(f.take(3).await, None);
    // It fills up, and not beyond.
    f.clock.advance(WINDOW * 100);
    assert_eq!(f.take(10).await, None);
    assert_eq!(f.take(1).await, seconds(6));
    // The clock of another host may be behind.
    let earlier = f.now().minus(Duration::from_secs(2));
    assert_eq!(take(&f.store, "reads a", earlier, CELL).await, seconds(8));
}

async fn each_limit_is_an_account_of_its_own(engine: Engine) {
    let f = Fixture::new(engine).await;
    for id in ["reads a", "writes a", "reads b", ""] {
        assert_eq!(take(&f.store, id, f.now(), WINDOW).await, None, "{id}");
        assert_eq!(take(&f.store, id, f.now(), CELL).await, Some(CELL), "{id}");
    }
}

async fn a_cell_that_is_worth_more_than_the_window_waits_for_an_empty_account(engine: Engine) {
    let f = Fixture::new(engine).await;
    assert_eq!(f.take(20).await, None);
    assert_eq!(f.take(20).await, seconds(120));
    assert_eq!(f.take(1).await, seconds(66));
    f.clock.advance(Duration::from_secs(119));
    assert_eq!(f.take(20).await, seconds(1));
    f.tick();
    assert_eq!(f.take(20).await, None);
}

async fn parallel_takers_get_no_more_than_the_burst(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hosts = f.hosts(engine, 2).await;
    // The first round makes the account; before the second, three cells come back.
    for (round, expected) in [(0, 10), (1, 3)] {
        let tasks: Vec<_> = (0..50)
            .map(|number: usize| {
                let (store, now) = (hosts[number % 2].clone(), f.now());
                tokio::spawn(async move { take(&store, "reads a", now, CELL).await })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            match task.await.unwrap() {
                None => granted += 1,
                Some(wait) => assert_eq!(wait, CELL),
            }
        }
        assert_eq!(granted, expected, "{round}");
        f.clock.advance(CELL * 3);
    }
}

async fn what_is_not_spent_is_forgotten(engine: Engine) {
    let f = Fixture::new(engine).await;
    assert_eq!(take(&f.store, "a", f.now(), CELL).await, None);
    assert_eq!(take(&f.store, "b", f.now(), CELL * 2).await, None);
    for (after, forgotten) in [(CELL - Duration::from_micros(1), 0), (Duration::from_micros(1), 1), (CELL, 1)]
    {
        f.clock.advance(after);
        let mut tx = f.tx().await;
        assert_eq!(rates::purge(&mut tx, f.now()).await.unwrap(), forgotten);
        tx.commit().await.unwrap();
    }
    assert_eq!(take(&f.store, "a", f.now(), WINDOW).await, None);
    assert_eq!(take(&f.store, "a", f.now(), CELL).await, Some(CELL), "the burst and no more");
}
