//! Instance slots: bounded, waited for in turn, given back whatever happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_runtime::{BotCall, CallError, Limits, NoSource, Outcome, Runtime, RuntimeConfig, StartError};

use crate::guests::{bot, built, prepared, runtime};

fn small() -> RuntimeConfig {
    RuntimeConfig { slots: 1, queue_length: 1, queue_timeout_ms: 200, ..RuntimeConfig::default() }
}

/// A call that holds its slot for so long.
async fn sleeper(runtime: &Runtime, ms: u64) -> BotCall {
    BotCall { input: ms.to_string(), ..prepared(runtime, built("hostile/park")).await }
}

fn start(runtime: &Runtime, call: BotCall) -> tokio::task::JoinHandle<Result<Outcome, CallError>> {
    let runtime = runtime.clone();
    tokio::spawn(async move { runtime.call_bot(call).await.map(|invocation| invocation.outcome) })
}

/// The same call on behalf of another tenant.
fn of(call: &BotCall, tenant: &str) -> BotCall {
    BotCall { tenant: tenant.into(), ..call.clone() }
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "it never came to be");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn callers_wait_in_a_bounded_queue() {
    let host = runtime(RuntimeConfig { queue_timeout_ms: 5000, ..small() });
    let call = sleeper(&host, 300).await;
    let running = start(&host, call.clone());
    until(|| host.load().free_slots == 0).await;
    let waiting = start(&host, call.clone());
    until(|| host.load().waiting == 1).await;
    // The queue is full: this one is sent away at once.
    let sent_away = Instant::now();
    assert_eq!(host.call_bot(call).await, Err(CallError::Busy { retry_after_ms: 5000 }));
    assert!(sent_away.elapsed() < Duration::from_millis(100));
    assert_eq!(running.await.unwrap(), Ok(Outcome::Completed));
    assert_eq!(waiting.await.unwrap(), Ok(Outcome::Completed));
    assert_eq!((host.load().free_slots, host.load().waiting), (1, 0));
}

#[tokio::test]
async fn callers_do_not_wait_for_ever() {
    let host = runtime(small());
    let running = start(&host, sleeper(&host, 1500).await);
    until(|| host.load().free_slots == 0).await;
    let start = Instant::now();
    let late = host.call_bot(sleeper(&host, 0).await).await;
    assert!(matches!(late, Err(CallError::Busy { .. })), "{late:?}");
    assert!((200..1200).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(host.load().waiting, 0);
    assert_eq!(running.await.unwrap(), Ok(Outcome::Completed));
}

#[tokio::test]
async fn a_dropped_call_gives_its_slot_back() {
    let host = runtime(small());
    let park = sleeper(&host, 3_600_000).await;
    let spin = BotCall {
        limits: Limits { fuel: u64::MAX, wall_time_ms: 60_000, ..Limits::default() },
        ..prepared(&host, built("hostile/spin")).await
    };
    for call in [park, spin] {
        let running = start(&host, call.clone());
        until(|| host.load().free_slots == 0).await;
        let waiting = start(&host, call);
        until(|| host.load().waiting == 1).await;
        waiting.abort();
        until(|| host.load().waiting == 0).await;
        running.abort();
        until(|| host.load().free_slots == 1).await;
        // The pool has room for one instance in all: it is really gone.
        let next = start(&host, sleeper(&host, 0).await);
        assert_eq!(next.await.unwrap(), Ok(Outcome::Completed));
    }
}

/// More callers than slots, with components that use all that one may have, and no call ever hears of the pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_is_never_short() {
    let config = RuntimeConfig { slots: 3, queue_timeout_ms: 30_000, ..RuntimeConfig::default() };
    let host = runtime(config);
    let tables = "(table 1 funcref)".repeat(16);
    let large =
        prepared(&host, bot(&format!("(memory 1) (memory 1) (memory 1) {tables}"), "(i32.const 16)")).await;
    let echo = prepared(&host, built("echo")).await;
    let trap = BotCall { input: r#""panic""#.to_owned(), ..prepared(&host, built("hostile/trap")).await };
    let calls: Vec<_> = (0..600)
        .map(|number: u32| {
            let (call, outcome) = match number % 3 {
                0 => (&large, Outcome::Completed),
                1 => (&echo, Outcome::Completed),
                _ => (&trap, Outcome::Trapped),
            };
            (start(&host, of(call, &format!("org_{}", number % 5))), outcome)
        })
        .collect();
    for (call, outcome) in calls {
        assert_eq!(call.await.unwrap(), Ok(outcome));
    }
}

#[test]
fn configuration_is_checked() {
    let none = RuntimeConfig { slots: 0, ..RuntimeConfig::default() };
    let error = Runtime::new(none, Arc::new(NoSource)).err().unwrap();
    assert!(matches!(error, StartError::Slots { slots: 0, .. }), "{error}");
    let maximum = Limits { memory_bytes: u64::MAX, ..Limits::host_maximum() };
    let vast = RuntimeConfig { maximum, ..RuntimeConfig::default() };
    let error = Runtime::new(vast, Arc::new(NoSource)).err().unwrap();
    assert!(error.to_string().contains("memory_bytes"), "{error}");
}

#[tokio::test]
async fn as_many_slots_as_are_promised_can_be_laid_out() {
    let host = runtime(RuntimeConfig { slots: 4096, ..RuntimeConfig::default() });
    assert_eq!(host.load().free_slots, 4096);
    let call = prepared(&host, bot("", "(i32.const 16)")).await;
    assert_eq!(host.call_bot(call).await.unwrap().outcome, Outcome::Completed);
}
