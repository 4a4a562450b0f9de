//! What the first call of a compiled version costs over a warm one: the code is on disk (and in the system's page cache)
//! and not in this process. Of each component: where that time goes, then first and warm calls in turns.
//!
//! The components are bots of the text format with so much code: functions that all differ, a few hundred bytes each.
//! Needs `scripts/build-guests.sh` for `echo`; run with `cargo bench -p ringfence-runtime --bench first_call`.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_runtime::{BotCall, Digest, Limits, LogOptions, NoSource, Outcome, Runtime, RuntimeConfig};

const ROUNDS: usize = 101;

/// A bot with at least this many bytes, most of it code.
fn bot(bytes: usize) -> Bytes {
    let mut functions = String::new();
    // What one function takes as WebAssembly.
    for number in 0..bytes / 380 {
        let _ = write!(functions, "(func (export \"f{number}\") (param i32 i32) (result i32) (local i32) ");
        for step in 0..24 {
            let _ = write!(
                functions,
                "(local.set 2 (i32.add (i32.mul (local.get 0) (i32.const {})) (i32.load offset={step} (local.get 1))))",
                number * 31 + step
            );
        }
        functions.push_str("local.get 2)\n");
    }
    let text = format!(
        r#"(component
            (import "ringfence:guest/types@0.1.0" (instance $types
                (type $task (record (field "id" string) (field "input" string)))
                (export "task" (type (eq $task)))
                (type $failure (record (field "code" string) (field "message" string)))
                (export "failure" (type (eq $failure)))))
            (alias export $types "task" (type $task))
            (alias export $types "failure" (type $failure))
            (core module $main
                {functions}
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (memory $memory (export "memory") 1)
                (data (memory $memory) (i32.const 16) "\00\00\00\00\20\00\00\00\02\00\00\00")
                (data (memory $memory) (i32.const 32) "{{}}")
                (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 16)))
            (core instance $main (instantiate $main))
            (func (export "handle") (param "task" $task) (result (result string (error $failure)))
                (canon lift (core func $main "handle") (memory (core memory $main "memory"))
                    (realloc (core func $main "realloc")))))"#
    );
    wat::parse_str(text).expect("the text is right").into()
}

fn call(digest: Digest) -> BotCall {
    BotCall {
        digest,
        invocation_id: "inv_1".to_owned(),
        input: "{}".to_owned(),
        limits: Limits::default(),
        capabilities: Arc::default(),
        tenant: "org_1".into(),
        logs: LogOptions::default(),
    }
}

fn sandbox(folder: &Path) -> Runtime {
    // Holds one component, the last one: calling another puts it out.
    let config = RuntimeConfig {
        cache_dir: Some(folder.to_owned()),
        loaded_cache_bytes: 1,
        ..RuntimeConfig::default()
    };
    Runtime::new(config, Arc::new(NoSource)).expect("the sandbox starts")
}

async fn timed(runtime: &Runtime, digest: Digest) -> Duration {
    let begun = Instant::now();
    let invocation = runtime.call_bot(call(digest)).await.expect("the call begins");
    let took = begun.elapsed();
    assert!(matches!(invocation.outcome, Outcome::Completed | Outcome::Failed), "{invocation:?}");
    took
}

fn quartiles(mut times: Vec<Duration>) -> [f64; 3] {
    times.sort();
    [1, 2, 3].map(|part| times.get(times.len() * part / 4).map_or(0.0, |time| time.as_secs_f64() * 1e6))
}

async fn measure(name: &str, wasm: Bytes, other: Digest, runtime: &Runtime, folder: &Path) {
    let wasm_bytes = wasm.len();
    let digest = runtime.prepare(wasm, &"org_1".into()).await.expect("it may run").digest;
    let code_bytes = std::fs::read_dir(folder)
        .expect("the folder is read")
        .flatten()
        .find(|entry| entry.path().display().to_string().contains(&digest.to_hex()))
        .and_then(|entry| entry.metadata().ok())
        .map_or(0, |metadata| metadata.len());
    let (mut first, mut warm, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        timed(runtime, other).await;
        let cold = timed(runtime, digest).await;
        timed(runtime, digest).await;
        let hot = timed(runtime, digest).await;
        first.push(cold);
        warm.push(hot);
        over.push(cold.saturating_sub(hot));
    }
    let ([_, first, _], [_, warm, _], [low, middle, high]) =
        (quartiles(first), quartiles(warm), quartiles(over));
    println!(
        "{name:<12} {:>6} KiB, code {:>6} KiB: first call {first:>7.0} µs, warm {warm:>5.0} µs; over {middle:>7.0} µs \
         (quartiles {low:.0} to {high:.0})",
        wasm_bytes >> 10,
        code_bytes >> 10,
    );
}

fn main() {
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = sandbox(folder.path());
    tokio.block_on(async {
        let other = runtime.prepare(bot(0), &"org_1".into()).await.expect("it may run").digest;
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/guests/echo.wasm");
        let echo = std::fs::read(path).expect("no echo guest: run scripts/build-guests.sh");
        measure("echo", echo.into(), other, &runtime, folder.path()).await;
        for kib in [64, 256, 512, 1000] {
            measure("functions", bot(kib << 10), other, &runtime, folder.path()).await;
        }
        // For components that are given: what a Python or JavaScript tool chain makes, for example.
        for path in std::env::args().skip(1).filter(|argument| argument.ends_with(".wasm")) {
            let wasm = std::fs::read(&path).expect("the component is read");
            measure("given", wasm.into(), other, &runtime, folder.path()).await;
        }
    });
}
