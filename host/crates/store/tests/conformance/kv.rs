//! The bots' key-value stores: order, quota, what is in use, and writers that meet.

use std::collections::BTreeMap;

use ringfence_model::{BotId, Rng, SeededRng};
use ringfence_store::kv::Written::{Differs, Done, QuotaExceeded};
use ringfence_store::kv::{self, Write};
use ringfence_store::{Session, Store};
use ringfence_testkit::{Engine, on_both_engines};

use crate::fixture::Fixture;

on_both_engines!(
    keys_of_any_bytes_are_listed_in_order,
    a_bots_store_has_a_quota,
    a_swap_needs_what_was_expected,
    what_is_in_use_is_always_the_sum,
    what_is_in_use_is_the_sum_after_parallel_writers,
    parallel_swaps_lose_nothing,
);

impl Fixture {
    fn write<'a>(&'a self, key: &'a [u8], quota_bytes: u64) -> Write<'a> {
        Write { org: &self.oracle.org_id, bot: &self.oracle.id, key, quota_bytes, now: self.now() }
    }
}

/// What the entries take, added up one by one.
async fn sum(s: &mut Session, bot: &BotId) -> u64 {
    let mut sum = 0;
    for key in kv::list_keys(s, bot, b"", None, 10_000).await.unwrap() {
        let value = kv::get(s, bot, &key).await.unwrap().unwrap();
        sum += (key.len() + value.len()) as u64 + 64;
    }
    sum
}

async fn keys_of_any_bytes_are_listed_in_order(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let bot = &fixture.oracle.id;
    let keys: [&[u8]; 8] = [b"", b"A", b"a", b"a\0", b"a\xff", b"a\xff\xff", b"b", b"\xff\xff"];
    let mut tx = fixture.tx().await;
    for key in keys.iter().rev() {
        assert_eq!(kv::set(&mut tx, &fixture.write(key, 1000), Some(b"")).await.unwrap(), Done);
        assert_eq!(kv::get(&mut tx, bot, key).await.unwrap().as_deref(), Some(b"".as_slice()));
    }
    for (prefix, after, limit, expected) in [
        (b"".as_slice(), None, 100, &keys[..]),
        (b"", Some(b"".as_slice()), 100, &keys[1..]),
        (b"", Some(b"a"), 2, &keys[3..5]),
        (b"a", None, 100, &keys[2..6]),
        (b"a", Some(b"A"), 2, &keys[2..4]),
        (b"a", Some(b"a\xff"), 100, &keys[5..6]),
        (b"a", Some(b"b"), 100, &[]),
        (b"\xff", None, 100, &keys[7..]),
        (b"c", None, 100, &[]),
    ] {
        let found = kv::list_keys(&mut tx, bot, prefix, after, limit).await.unwrap();
        assert_eq!(found, expected, "{prefix:?} {after:?}");
    }
}

async fn a_bots_store_has_a_quota(engine: Engine) {
    let f = Fixture::new(engine).await;
    let bot = &f.oracle.id;
    let quota = 2 * 64 + 10;
    let mut tx = f.tx().await;
    assert_eq!(kv::set(&mut tx, &f.write(b"a", quota), Some(&[0, 255, 7])).await.unwrap(), Done);
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", quota), Some(b"1234")).await.unwrap(), Done, "4 + 6 = 10");
    assert_eq!(kv::set(&mut tx, &f.write(b"c", quota), Some(b"")).await.unwrap(), QuotaExceeded);
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", quota), Some(b"12345")).await.unwrap(), QuotaExceeded);
    assert_eq!(kv::get(&mut tx, bot, b"ab").await.unwrap().as_deref(), Some(b"1234".as_slice()));
    let swap = kv::compare_and_swap(&mut tx, &f.write(b"ab", quota), Some(b"1234"), Some(b"12345")).await;
    assert_eq!(swap.unwrap(), QuotaExceeded);
    let swap = kv::compare_and_swap(&mut tx, &f.write(b"ab", quota), Some(b"1234"), Some(b"4321")).await;
    assert_eq!(swap.unwrap(), Done, "what is replaced does not count");
    assert_eq!(kv::used_bytes(&mut tx, bot).await.unwrap(), quota);
    // The owner has lowered the quota: what takes no more than before is let through.
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", 10), Some(b"12")).await.unwrap(), Done);
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", 10), Some(b"123")).await.unwrap(), QuotaExceeded);
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", 10), None).await.unwrap(), Done);
    assert_eq!(kv::set(&mut tx, &f.write(b"ab", 10), None).await.unwrap(), Done);
    assert_eq!(kv::get(&mut tx, bot, b"ab").await.unwrap(), None);
    assert_eq!(kv::used_bytes(&mut tx, bot).await.unwrap(), 64 + 4);
    assert_eq!(kv::get(&mut tx, bot, b"a").await.unwrap(), Some(vec![0, 255, 7]));
}

async fn a_swap_needs_what_was_expected(engine: Engine) {
    let f = Fixture::new(engine).await;
    let mut tx = f.tx().await;
    let write = f.write(b"k", 1000);
    for (expected, value, written, there) in [
        (Some(b"".as_slice()), Some(b"1".as_slice()), Differs, None),
        (None, None, Done, None),
        (None, Some(b"1"), Done, Some(b"1".as_slice())),
        (None, Some(b"2"), Differs, Some(b"1")),
        (Some(b"2"), None, Differs, Some(b"1")),
        (Some(b"1"), Some(b""), Done, Some(b"")),
        (None, Some(b"3"), Differs, Some(b"")),
        (Some(b""), Some(b"3"), Done, Some(b"3")),
        (Some(b"3"), None, Done, None),
    ] {
        let swapped = kv::compare_and_swap(&mut tx, &write, expected, value).await.unwrap();
        assert_eq!(swapped, written, "{expected:?} {value:?}");
        assert_eq!(kv::get(&mut tx, write.bot, b"k").await.unwrap().as_deref(), there);
    }
}

/// One random write of a key among four: set, delete, or swap, by what is there or not.
async fn write_something(s: &mut Session, write: &Write<'_>, rng: &SeededRng) -> kv::Written {
    let mut random = [0; 4];
    rng.fill(&mut random);
    let [what, key, length, expected] = random;
    let key = [&b"abcd"[usize::from(key % 4)..][..1], &b"long"[..usize::from(key % 5)]].concat();
    let write = Write { key: &key, ..*write };
    let value = vec![length; usize::from(length)];
    match what % 4 {
        0 => kv::set(s, &write, None).await.unwrap(),
        1 => {
            let there = kv::get(s, write.bot, &key).await.unwrap();
            let expected = if expected % 4 == 0 { None } else { there };
            let value = (expected.is_none() || length % 3 > 0).then_some(value);
            kv::compare_and_swap(s, &write, expected.as_deref(), value.as_deref()).await.unwrap()
        }
        _ => kv::set(s, &write, Some(&value)).await.unwrap(),
    }
}

async fn what_is_in_use_is_always_the_sum(engine: Engine) {
    let f = Fixture::new(engine).await;
    let bot = &f.oracle.id;
    let mut tx = f.tx().await;
    let mut seen = BTreeMap::<_, u32>::new();
    for _ in 0..300 {
        let written = write_something(&mut tx, &f.write(b"", 700), &f.rng).await;
        *seen.entry(format!("{written:?}")).or_default() += 1;
        let used = kv::used_bytes(&mut tx, bot).await.unwrap();
        assert_eq!(used, sum(&mut tx, bot).await);
        assert!(used <= 700, "{used}");
    }
    assert_eq!(seen.len(), 3, "each way that a write can end: {seen:?}");
}

async fn what_is_in_use_is_the_sum_after_parallel_writers(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hosts = f.hosts(engine, 3).await;
    let writer = |store: &Store, seed| {
        let (store, bot, now) = (store.clone(), f.oracle.clone(), f.now());
        tokio::spawn(async move {
            let rng = SeededRng::new(seed);
            for _ in 0..15 {
                let mut tx = store.begin().await.unwrap();
                let (org, bot) = (&bot.org_id, &bot.id);
                write_something(&mut tx, &Write { org, bot, key: b"", quota_bytes: 900, now }, &rng).await;
                tx.commit().await.unwrap();
            }
        })
    };
    let writers: Vec<_> = (0..6).map(|seed| writer(&hosts[seed as usize % hosts.len()], seed)).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut reader = f.reader().await;
    let used = kv::used_bytes(&mut reader, &f.oracle.id).await.unwrap();
    assert_eq!(used, sum(&mut reader, &f.oracle.id).await);
    assert!(used > 0 && used <= 900, "{used}");
}

async fn parallel_swaps_lose_nothing(engine: Engine) {
    let f = Fixture::new(engine).await;
    let hosts = f.hosts(engine, 3).await;
    let adder = |store: &Store| {
        let (store, bot, now) = (store.clone(), f.oracle.clone(), f.now());
        tokio::spawn(async move {
            let write = Write { org: &bot.org_id, bot: &bot.id, key: b"count", quota_bytes: 900, now };
            let mut added = 0;
            while added < 8 {
                let there = kv::get(&mut store.reader().await.unwrap(), &bot.id, b"count").await.unwrap();
                let count = there.as_deref().map_or(0, |text| str::from_utf8(text).unwrap().parse().unwrap());
                let next = (count + 1_u32).to_string();
                let mut tx = store.begin().await.unwrap();
                let swapped =
                    kv::compare_and_swap(&mut tx, &write, there.as_deref(), Some(next.as_bytes())).await;
                tx.commit().await.unwrap();
                added += u32::from(swapped.unwrap() == Done);
            }
        })
    };
    let adders: Vec<_> = (0..6).map(|n| adder(&hosts[n % hosts.len()])).collect();
    for adder in adders {
        adder.await.unwrap();
    }
    let count = kv::get(&mut f.reader().await, &f.oracle.id, b"count").await.unwrap().unwrap();
    assert_eq!(count, b"48");
}
