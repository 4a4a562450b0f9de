//! Instance slots: bounded, waited for in turn, given back whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringfence_runtime::{BotCall, CallError, Limits, NoSource, Outcome, Runtime, RuntimeConfig, StartError};

use crate::guests::{bot, bot_importing, built, prepared, runtime};

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

/// Every slot at once, each with a component that has the most of all that is counted; and again at once, while the
/// first are being reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_slot_has_room_for_the_largest_component() {
    let host = runtime(RuntimeConfig { slots: 8, queue_timeout_ms: 60_000, ..RuntimeConfig::default() });
    // Two memories and eight tables of the bot's own, and the rest in 63 instances beside it.
    let apart = "(core module $large (memory 1) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref))
        (core instance (instantiate $large)) (core instance (instantiate $large)) (core module $small)"
        .to_owned()
        + &"(core instance (instantiate $small))".repeat(61);
    let fields = format!("(memory 1) {}", "(table 1 funcref)".repeat(8));
    let largest = bot_importing(&apart, "", &fields, "(loop $spin (br $spin)) (i32.const 16)");
    let limits = Limits { fuel: u64::MAX, wall_time_ms: 150, ..Limits::default() };
    let call = BotCall { limits, ..prepared(&host, largest).await };
    let calls: Vec<_> =
        (0..40).map(|number: u32| start(&host, of(&call, &format!("org_{}", number % 4)))).collect();
    until(|| host.load().free_slots == 0).await;
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(Outcome::TimedOut));
    }
    assert_eq!(host.load().free_slots, 8);
}

#[tokio::test]
async fn one_tenant_never_holds_every_slot() {
    let config =
        RuntimeConfig { slots: 4, queue_per_tenant: 3, queue_timeout_ms: 60_000, ..RuntimeConfig::default() };
    let host = runtime(config);
    let park = of(&sleeper(&host, 3_600_000).await, "greedy");
    let parked: Vec<_> = (0..5).map(|_| start(&host, park.clone())).collect();
    until(|| host.load().waiting == 3).await;
    assert_eq!(host.load().free_slots, 2, "half of them are for others");
    assert!(matches!(host.call_bot(park.clone()).await, Err(CallError::Busy { .. })), "its queue is full");
    let other = of(&sleeper(&host, 0).await, "modest");
    for _ in 0..20 {
        assert_eq!(host.call_bot(other.clone()).await.unwrap().outcome, Outcome::Completed);
    }
    assert_eq!((host.load().free_slots, host.load().waiting), (2, 3), "it holds what it held");
    parked.into_iter().for_each(|call| call.abort());
    until(|| host.load().free_slots == 4 && host.load().waiting == 0).await;
}

#[tokio::test]
async fn a_cancelled_call_ends_with_what_it_used() {
    let host = runtime(RuntimeConfig { queue_timeout_ms: 60_000, ..small() });
    let spin = BotCall {
        limits: Limits { fuel: u64::MAX, wall_time_ms: 60_000, ..Limits::default() },
        ..prepared(&host, built("hostile/spin")).await
    };
    let leaves = || tokio::time::sleep(Duration::from_millis(100));
    let (running, waiting) = tokio::join!(
        host.call_bot_until(spin.clone(), leaves()),
        host.call_bot_until(spin.clone(), leaves())
    );
    let running = running.unwrap();
    assert_eq!(running.outcome, Outcome::Cancelled, "{running:?}");
    assert!(running.usage.fuel > 0 && running.usage.wall_us >= 50_000, "{:?}", running.usage);
    assert!(running.usage.peak_memory_bytes > 0 && running.output.is_none() && running.detail.is_some());
    assert_eq!(waiting, Err(CallError::Cancelled), "it had not begun");
    assert_eq!((host.load().free_slots, host.load().waiting), (1, 0));
    let at_once = host.call_bot_until(spin, std::future::ready(())).await;
    assert_eq!(at_once, Err(CallError::Cancelled));
    // Whoever leaves when it is over has the answer all the same.
    let done = host.call_bot_until(sleeper(&host, 0).await, leaves()).await.unwrap();
    assert_eq!(done.outcome, Outcome::Completed);
}

/// While hostile guests of one tenant hold all that it may have, and more of them wait, another's calls all go through
/// and the workers of the async runtime keep turning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_is_served() {
    let host = runtime(RuntimeConfig { slots: 8, ..RuntimeConfig::default() });
    let echo = of(&prepared(&host, built("echo")).await, "neighbour");
    let fill = bot(
        "(memory $big 0)",
        "(drop (memory.grow $big (i32.const 0x600)))
        (loop $again (memory.fill $big (i32.const 0) (i32.const 1) (i32.const 0x6000000)) (br $again)) (i32.const 16)",
    );
    let limits = Limits { fuel: 100_000_000_000, wall_time_ms: 1000, ..Limits::default() };
    let limits = Limits { host_calls: 1_000_000, log_bytes: 4 << 20, memory_bytes: 256 << 20, ..limits };
    let hostile = [
        (built("hostile/spin"), "{}"),
        (fill, "{}"),
        (built("hostile/memory"), r#"{"mode":"abort"}"#),
        (built("hostile/log-flood"), r#""all""#),
        (built("hostile/chatty"), r#"{"calls":5000000,"what":"config"}"#),
        (built("hostile/park"), "3600000"),
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let mut attackers = Vec::new();
    for (wasm, input) in hostile {
        let call = BotCall { limits: limits.clone(), input: input.to_owned(), ..prepared(&host, wasm).await };
        for _ in 0..2 {
            let (host, call, stop) = (host.clone(), of(&call, "hostile"), Arc::clone(&stop));
            attackers.push(tokio::spawn(async move {
                let mut ended = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    ended.extend(host.call_bot(call.clone()).await.map(|invocation| invocation.outcome));
                }
                ended
            }));
        }
    }
    until(|| host.load().free_slots == 4 && host.load().waiting > 0).await;
    let beats = Arc::new(AtomicU32::new(0));
    let heart = tokio::spawn({
        let beats = Arc::clone(&beats);
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                beats.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for _ in 0..5 {
        let before = beats.load(Ordering::Relaxed);
        for _ in 0..20 {
            let (host, echo) = (host.clone(), echo.clone());
            let served = tokio::spawn(async move { host.call_bot(echo).await }).await.unwrap();
            assert_eq!(served.unwrap().outcome, Outcome::Completed);
        }
        until(|| beats.load(Ordering::Relaxed) > before).await;
    }
    heart.abort();
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        let ended = attacker.await.unwrap();
        let named = [
            Outcome::TimedOut,
            Outcome::OutOfMemory,
            Outcome::LogLimit,
            Outcome::HostCallLimit,
            Outcome::OutOfFuel,
        ];
        assert!(ended.iter().all(|outcome| named.contains(outcome)), "{ended:?}");
    }
}

#[test]
fn configuration_is_checked() {
    let none = RuntimeConfig { slots: 0, ..RuntimeConfig::default() };
    let error = Runtime::new(none, Arc::new(NoSource)).err().unwrap();
    assert!(matches!(error, StartError::Slots { slots: 0, .. }), "{error}");
    for (slots, share) in [(4, 4), (4, 0), (1, 2)] {
        let config = RuntimeConfig { slots, slots_per_tenant: Some(share), ..RuntimeConfig::default() };
        let error = Runtime::new(config, Arc::new(NoSource)).err().unwrap();
        assert!(matches!(error, StartError::Share { .. }), "{error}");
    }
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
