//! What a call through the sandbox costs, against the same component on bare wasmtime with the same engine:
//! pooling, fuel, epochs, WASI linked, a pre-linked template, a fresh store and instance for each call. The
//! bare host limits nothing else and measures nothing.
//!
//! Needs `scripts/build-guests.sh`; run with `cargo bench -p ringfence-runtime`.
#![allow(missing_docs, clippy::expect_used, reason = "a benchmark, with generated code")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_runtime::{BotCall, Limits, NoSource, Outcome, Runtime, RuntimeConfig, engine_config};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

wasmtime::component::bindgen!({ path: "../../../wit", world: "bot", exports: { default: async } });

const INPUT: &str = r#"{"text":"hello","numbers":[1,2,3]}"#;

struct Bare {
    engine: Engine,
    pre: BotPre<Context>,
}

struct Context {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Context {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Bare {
    fn new(config: &RuntimeConfig, wasm: &[u8]) -> wasmtime::Result<Self> {
        let engine = Engine::new(&engine_config(config))?;
        let ticked = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let pre = BotPre::new(linker.instantiate_pre(&Component::from_binary(&engine, wasm)?)?)?;
        Ok(Self { engine, pre })
    }

    async fn call(&self) -> wasmtime::Result<String> {
        let context = Context { wasi: WasiCtxBuilder::new().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, context);
        store.set_fuel(1_000_000_000)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let bot = self.pre.instantiate_async(&mut store).await?;
        let task = Task { id: "inv_1".to_owned(), input: INPUT.to_owned() };
        let output = bot.call_handle(&mut store, &task).await?;
        Ok(output.expect("echo does not fail"))
    }
}

async fn sandboxed(runtime: &Runtime, call: &BotCall) -> String {
    let invocation = runtime.call_bot(call.clone()).await.expect("the call begins");
    assert_eq!(invocation.outcome, Outcome::Completed);
    invocation.output.expect("a completed call has output")
}

fn benchmark(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/guests/echo.wasm");
    let wasm = std::fs::read(path).expect("no echo guest: run scripts/build-guests.sh");
    let config = RuntimeConfig::default();
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");

    let bare = Bare::new(&config, &wasm).expect("bare wasmtime starts");
    let runtime = Runtime::new(config, Arc::new(NoSource)).expect("the sandbox starts");
    let info = tokio.block_on(runtime.prepare(wasm.into(), &"org_1".into())).expect("echo is a bot");
    let call = BotCall {
        digest: info.digest,
        invocation_id: "inv_1".to_owned(),
        input: INPUT.to_owned(),
        limits: Limits::default(),
        capabilities: Arc::default(),
        tenant: "org_1".into(),
        logs: ringfence_runtime::LogOptions::default(),
    };

    let mut group = criterion.benchmark_group("call");
    group.bench_function("bare wasmtime", |bencher| {
        bencher.to_async(&tokio).iter(|| async { black_box(bare.call().await.expect("echo answers")) });
    });
    group.bench_function("sandbox", |bencher| {
        bencher.to_async(&tokio).iter(|| async { black_box(sandboxed(&runtime, &call).await) });
    });
    group.finish();

    tokio.block_on(async { print_ratio(&bare, &runtime, &call).await });
}

/// The two in turns, in one run, so that whatever else the machine does falls on both.
async fn print_ratio(bare: &Bare, runtime: &Runtime, call: &BotCall) {
    const ROUNDS: usize = 41;
    const CALLS: u32 = 500;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(bare.call().await.expect("echo answers"));
        }
        let bare_time = start.elapsed();
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(sandboxed(runtime, call).await);
        }
        ratios.push((start.elapsed().as_secs_f64() / bare_time.as_secs_f64(), bare_time / CALLS));
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let at = |part: usize| ratios.get(ROUNDS * part / 4).map_or(0.0, |(ratio, _)| *ratio);
    println!("sandbox / bare wasmtime: {:.3} (quartiles {:.3} to {:.3})", at(2), at(1), at(3));
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
