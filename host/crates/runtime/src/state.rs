//! What one instance's store holds, and the linkers that connect a guest to it.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;
use tracing::Instrument as _;
use wasmtime::component::Linker;
use wasmtime::{CallHook, Engine, Store, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::capability::clock::{VirtualClock, make_deterministic};
use crate::capability::directories::{self, Directories};
use crate::capability::http::Http;
use crate::capability::{Capabilities, clock, config, http, kv, llm, log, secrets};
use crate::engine::{FIRST_SLICE_TICKS, SLICE_TICKS};
use crate::limits::{Ended, Limits, Meter};
use crate::logs::{LogOptions, Logs, Output, Stream};
use crate::slots::Slot;

/// The most bytes that a guest may hand to the host in one call: a log line, a value of the key-value store.
pub const MAX_HOST_CALL_BYTES: usize = 4 << 20;

/// What the strings and lists of a result may cost besides their text.
const OUTPUT_OVERHEAD_BYTES: usize = 64 << 10;

/// The most bytes of randomness in one call.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// The most streams, pollables and other host resources that a guest may hold.
const MAX_HOST_RESOURCES: usize = 1024;

/// The most handles of all kinds that a guest may hold, its own resources included.
const MAX_HANDLES: usize = 16_384;

/// Where time and randomness come from.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// The machine's clocks and the system's randomness.
    Live,
    /// Nothing but these two values.
    Deterministic { now_us: u64, seed: [u8; 32] },
}

/// The host's side of one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) meter: Meter,
    pub(crate) logs: Logs,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) clock: VirtualClock,
    pub(crate) http: Http,
    pub(crate) llm: llm::Tokens,
    pub(crate) directories: Directories,
    /// Also kept by the call, until the instance is gone from the pool.
    slot: Arc<Slot>,
}

impl State {
    pub(crate) fn new(
        limits: &Limits,
        profile: Profile,
        capabilities: Arc<Capabilities>,
        slot: Arc<Slot>,
        started: Instant,
        lines: LogOptions,
    ) -> Self {
        let logs = Logs::new(started, limits.log_bytes, lines);
        // The builder starts with nothing: no arguments, no environment, no directories, no addresses.
        let mut builder = WasiCtxBuilder::new();
        builder
            .stdin(MemoryInputPipe::new(bytes::Bytes::new()))
            .stdout(Output::new(&logs, Stream::Stdout))
            .stderr(Output::new(&logs, Stream::Stderr))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .allow_blocking_current_thread(false)
            .max_random_size(MAX_RANDOM_BYTES);
        let clock = match profile {
            Profile::Live => VirtualClock::default(),
            Profile::Deterministic { now_us, seed } => make_deterministic(&mut builder, now_us, seed),
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HOST_RESOURCES);
        let http = Http::new(&capabilities, &logs);
        Self {
            wasi: builder.build(),
            table,
            meter: Meter::new(limits),
            logs,
            capabilities,
            clock,
            http,
            directories: Directories::none(),
            llm: llm::Tokens::default(),
            slot,
        }
    }

    /// The limit that was passed first, if any was.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.meter.ended().or_else(|| self.logs.ended())
    }

    /// Begins what changes something outside of the instance: in a task of its own, so that it comes to its end even if
    /// the guest is ended while it waits. The slot is kept until then: what guests have left behind is bounded, too.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let slot = Arc::clone(&self.slot);
        let change = async move {
            let changed = change.await;
            drop(slot);
            changed
        };
        tokio::spawn(change.in_current_span())
    }

    /// The state as a host function of ours sees it: being asked for is being called.
    pub(crate) fn called(&mut self) -> &mut Self {
        self.meter.count_host_call();
        self
    }
}

/// Every host function of WASI asks for its context exactly once, so this is where they are counted.
impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.meter.count_host_call();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A store in which every limit is armed, apart from wall time, which the caller holds.
pub(crate) fn store(engine: &Engine, state: State, limits: &Limits) -> wasmtime::Result<Store<State>> {
    let mut store = Store::new(engine, state);
    store.limiter_async(|state| &mut state.meter);
    store.set_fuel(limits.fuel)?;
    store.set_epoch_deadline(FIRST_SLICE_TICKS);
    store.epoch_deadline_callback(|_| {
        Ok(UpdateDeadline::YieldCustom(SLICE_TICKS, Box::pin(tokio::task::yield_now())))
    });
    store.set_max_component_handles(MAX_HANDLES);
    store.set_hostcall_fuel(MAX_HOST_CALL_BYTES);

    // What the guest returns is copied after it has returned, under the output limit (a string may take two
    // bytes in the guest for one in UTF-8); what it passes to a host function is copied under a limit of its
    // own. A host function that has passed a limit ends the guest as it returns, whatever it returned.
    let output_bytes = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
    let output_bytes = output_bytes.saturating_mul(2).saturating_add(OUTPUT_OVERHEAD_BYTES);
    store.call_hook(move |mut store, hook| {
        match hook {
            CallHook::CallingHost => store.set_hostcall_fuel(MAX_HOST_CALL_BYTES),
            CallHook::ReturningFromWasm => store.set_hostcall_fuel(output_bytes),
            CallHook::ReturningFromHost => {
                if let Some(ended) = store.data().ended() {
                    return Err(ended.into());
                }
            }
            CallHook::CallingWasm => {}
        }
        Ok(())
    });
    Ok(store)
}

/// Everything that a bot may import.
pub(crate) fn bot_linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    log::link(&mut linker)?;
    config::link(&mut linker)?;
    kv::link(&mut linker)?;
    http::link(&mut linker)?;
    directories::link(&mut linker)?;
    secrets::link(&mut linker)?;
    llm::link(&mut linker)?;
    Ok(linker)
}

/// Everything that an oracle may import: no key-value store, no HTTP, and a monotonic clock that does not wait.
pub(crate) fn oracle_linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    log::link(&mut linker)?;
    config::link(&mut linker)?;
    clock::link(&mut linker)?;
    http::link_without_network(&mut linker)?;
    Ok(linker)
}
