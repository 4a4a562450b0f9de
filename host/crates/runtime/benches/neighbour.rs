//! What hostile guests of one tenant cost a well-behaved bot of another: its quiet latency, and its latency while guests
//! of each kind hold all slots that their tenant may have and more of them wait.
//!
//! Needs `scripts/build-guests.sh`; run with `cargo bench -p ringfence-runtime --bench neighbour`. Takes half a minute.
#![allow(missing_docs, clippy::expect_used, reason = "a benchmark")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_runtime::{BotCall, Limits, LogOptions, NoSource, Outcome, Runtime, RuntimeConfig};

/// How long the neighbour is measured beside each kind.
const MEASURED: Duration = Duration::from_secs(3);

/// Hostile calls under way at a time: what their tenant may have of the slots, and as many that wait.
const ATTACKERS: u32 = 16;

fn built(name: &str) -> Bytes {
    let path = format!("{}/../../../target/guests/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("no guests: run scripts/build-guests.sh").into()
}

/// Fills `mib` MiB of memory with one instruction, again and again.
fn filler(mib: u32) -> Bytes {
    let (pages, bytes) = (mib * 16, mib << 20);
    wat::parse_str(format!(
        r#"(component
            (import "ringfence:guest/types@0.1.0" (instance $types
                (type $task (record (field "id" string) (field "input" string)))
                (export "task" (type (eq $task)))
                (type $failure (record (field "code" string) (field "message" string)))
                (export "failure" (type (eq $failure)))))
            (alias export $types "task" (type $task))
            (alias export $types "failure" (type $failure))
            (core module $main
                (memory (export "memory") 1)
                (memory $big 0)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (func (export "handle") (param i32 i32 i32 i32) (result i32)
                    (drop (memory.grow $big (i32.const {pages})))
                    (loop $again
                        (memory.fill $big (i32.const 0) (i32.const 1) (i32.const {bytes})) (br $again))
                    (i32.const 16)))
            (core instance $main (instantiate $main))
            (func (export "handle") (param "task" $task) (result (result string (error $failure)))
                (canon lift (core func $main "handle") (memory (core memory $main "memory"))
                    (realloc (core func $main "realloc")))))"#
    ))
    .expect("the text is right")
    .into()
}

async fn call_of(runtime: &Runtime, wasm: Bytes, input: &str, tenant: &str, limits: Limits) -> BotCall {
    let info = runtime.prepare(wasm, &tenant.into()).await.expect("the guest may run");
    BotCall {
        digest: info.digest,
        invocation_id: "inv_1".to_owned(),
        input: input.to_owned(),
        limits,
        capabilities: Arc::default(),
        tenant: tenant.into(),
        logs: LogOptions::default(),
    }
}

/// The neighbour's calls, one after another, each begun by a task as a request would: p50 and p99.
async fn measure(runtime: &Runtime, call: &BotCall) -> (Duration, Duration, usize) {
    let mut took = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < MEASURED {
        let (runtime, call) = (runtime.clone(), call.clone());
        let start = Instant::now();
        let served = tokio::spawn(async move { runtime.call_bot(call).await }).await;
        took.push(start.elapsed());
        let served = served.expect("the task ends").expect("no neighbour is refused");
        assert_eq!(served.outcome, Outcome::Completed);
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99), took.len())
}

async fn beside(runtime: &Runtime, neighbour: &BotCall, hostile: &[BotCall]) -> (Duration, Duration, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let attackers: Vec<_> = (0..ATTACKERS)
        .zip(hostile.iter().cycle())
        .map(|(_, call)| {
            let (runtime, call, stop) = (runtime.clone(), call.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    drop(runtime.call_bot(call.clone()).await);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let measured = measure(runtime, neighbour).await;
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.abort();
        drop(attacker.await);
    }
    measured
}

fn main() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let config = RuntimeConfig { slots: 16, ..RuntimeConfig::default() };
    let runtime = Runtime::new(config, Arc::new(NoSource)).expect("the sandbox starts");
    tokio.block_on(async {
        let greedy = Limits {
            fuel: 100_000_000_000,
            memory_bytes: 1 << 30,
            host_calls: 1_000_000,
            log_bytes: 4 << 20,
            ..Limits::default()
        };
        let echo =
            call_of(&runtime, built("echo"), r#"{"text":"hello"}"#, "neighbour", Limits::default()).await;
        let kinds = [
            ("spin", built("hostile/spin"), "{}"),
            ("fill 16 MiB", filler(16), "{}"),
            ("fill 900 MiB", filler(900), "{}"),
            ("allocate", built("hostile/memory"), r#"{"mode":"abort"}"#),
            ("flood logs", built("hostile/log-flood"), r#""all""#),
            ("small host calls", built("hostile/chatty"), r#"{"calls":5000000,"what":"config"}"#),
            ("park", built("hostile/park"), "3600000"),
        ];
        let mut hostile = Vec::new();
        for (name, wasm, input) in kinds {
            hostile.push((name, call_of(&runtime, wasm, input, "hostile", greedy.clone()).await));
        }
        let (quiet_p50, quiet_p99, calls) = measure(&runtime, &echo).await;
        println!("{:<18} p50 {quiet_p50:>10.1?}  p99 {quiet_p99:>10.1?}  ({calls} calls)", "quiet");
        let all: Vec<_> = hostile.iter().map(|(_, call)| call.clone()).collect();
        let kinds = hostile.iter().map(|(name, call)| (*name, std::slice::from_ref(call)));
        for (name, calls) in kinds.chain([("all of them", &all[..])]) {
            let (p50, p99, calls) = beside(&runtime, &echo, calls).await;
            let ratio = |now: Duration, quiet: Duration| now.as_secs_f64() / quiet.as_secs_f64();
            println!(
                "{name:<18} p50 {p50:>10.1?}  p99 {p99:>10.1?}  ({calls} calls)  {:.1} and {:.1} times the quiet ones",
                ratio(p50, quiet_p50),
                ratio(p99, quiet_p99),
            );
        }
    });
}
