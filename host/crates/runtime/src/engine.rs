//! The one place where wasmtime is configured. Everything that decides what a guest can do to its host, or
//! what compiled code looks like, is set here and nowhere else; what wasmtime's defaults happen to be today
//! does not matter where it is written out.

use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::{RuntimeConfig, StartError, epoch};

/// The most bytes of stack that a guest's own frames may fill. Passing it is the outcome `stack_overflow`.
pub const MAX_STACK_BYTES: usize = 512 << 10;

/// The stack that a call runs on: the guest's part and 1.5 MiB for host functions below it, which are polled
/// on the same stack.
const CALL_STACK_BYTES: usize = 2 << 20;

/// The most that one component may have of what the pool counts. The pool's totals are these times the
/// slots, and a component that needs more is refused when it is uploaded: a call that holds a slot is
/// therefore never short of anything. They are sized for what the standard tool chains produce; interpreters
/// for Python and JavaScript are linked out of a few dozen modules.
pub(crate) const MAX_CORE_INSTANCES: u32 = 64;
pub(crate) const MAX_MEMORIES: u32 = 4;
pub(crate) const MAX_TABLES: u32 = 16;
const MAX_CORE_INSTANCE_BYTES: usize = 2 << 20;
const MAX_COMPONENT_INSTANCE_BYTES: usize = 16 << 20;

/// The most slots that the address space is laid out for: 4,096 slots with 4 memories of 4 GiB each and their
/// guards take half of the 47 bits that a process has.
pub(crate) const MAX_SLOTS: u32 = 4096;

/// How many pieces of memory are given back to the system with one call.
const DECOMMIT_BATCH: usize = 16;

/// How often the epoch moves. Time on a thread is counted in these, and the last one may be short by almost all of it.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// What a guest may compute before it goes back to the scheduler for the first time: short calls never do.
pub(crate) const FIRST_SLICE_TICKS: u64 = 2;

/// What it may compute at a time from then on.
pub(crate) const SLICE_TICKS: u64 = 5;

/// Builds the engine and starts the thread that moves its epoch.
pub(crate) fn start(runtime: &RuntimeConfig) -> Result<Engine, StartError> {
    let engine = Engine::new(&config(runtime)).map_err(|error| StartError::Engine(format!("{error:#}")))?;
    epoch::start(&engine).map_err(StartError::Thread)?;
    Ok(engine)
}

/// The configuration itself. Public so that the benchmark can put the same engine under a bare host.
#[doc(hidden)]
#[must_use]
pub fn config(runtime: &RuntimeConfig) -> Config {
    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(runtime)));
    config
}

/// An engine that only compiles: its code fits those of [`start`], and it reserves no address space.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&code_config())
}

/// All but the pool, of which compiled code knows nothing. No setting of the host is in it, so that whoever compiles
/// needs to be told none.
fn code_config() -> Config {
    let mut config = Config::new();

    // What a component may be.
    config.wasm_component_model(true);
    config.wasm_multi_memory(true);
    config.wasm_memory64(false);
    config.wasm_shared_everything_threads(false);
    config.wasm_gc(false);
    config.gc_support(false);
    config.wasm_stack_switching(false);
    config.wasm_custom_page_sizes(false);
    config.shared_memory(false);
    config.concurrency_support(false);

    // The same answer on every machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);

    // How a call ends.
    config.consume_fuel(true);
    config.epoch_interruption(true);
    config.max_wasm_stack(MAX_STACK_BYTES);
    config.async_stack_size(CALL_STACK_BYTES);
    config.async_stack_zeroing(true);

    // Function names in a trap's backtrace, but nothing that parses a guest's debug information, and nothing
    // that the environment can switch on.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.debug_info(false);
    // A third of the code's size, for nothing but offsets in backtraces that nobody is shown.
    config.generate_address_map(false);
    config.native_unwind_info(false);

    config.memory_init_cow(true);
    config
}

fn pool(runtime: &RuntimeConfig) -> PoolingAllocationConfig {
    let slots = runtime.slots;
    let mut pool = PoolingAllocationConfig::new();

    // What another thread is just giving back to the system, a batch at a time, is free only when it is done with it:
    // the caller that has the slot by then must not find the pool empty.
    let threads = std::thread::available_parallelism().map_or(8, std::num::NonZero::get);
    let resetting = u32::try_from(threads.saturating_mul(DECOMMIT_BATCH)).unwrap_or(u32::MAX).min(1024);

    pool.total_component_instances(slots);
    pool.total_stacks(slots.saturating_add(resetting));
    pool.total_core_instances(slots.saturating_mul(MAX_CORE_INSTANCES));
    pool.total_memories(slots.saturating_mul(MAX_MEMORIES).saturating_add(resetting));
    pool.total_tables(slots.saturating_mul(MAX_TABLES).saturating_add(resetting));

    pool.max_core_instances_per_component(MAX_CORE_INSTANCES);
    pool.max_memories_per_component(MAX_MEMORIES);
    pool.max_memories_per_module(MAX_MEMORIES);
    pool.max_tables_per_component(MAX_TABLES);
    pool.max_tables_per_module(MAX_TABLES);
    pool.max_core_instance_size(MAX_CORE_INSTANCE_BYTES);
    pool.max_component_instance_size(MAX_COMPONENT_INSTANCE_BYTES);
    pool.max_memory_size(usize::try_from(runtime.maximum.memory_bytes).unwrap_or(usize::MAX));
    pool.table_elements(usize::try_from(runtime.maximum.table_elements).unwrap_or(usize::MAX));

    // Resetting a slot: what was touched of the first pages is wiped in place (the kernel tells which, from 6.7 on), the
    // rest is given back to the system, sixteen slots with one call. So a small guest causes neither page faults nor
    // system calls for its memory. A slot that was used once keeps up to this much.
    pool.pagemap_scan(Enabled::Auto);
    pool.linear_memory_keep_resident(2 << 20);
    pool.table_keep_resident(64 << 10);
    pool.async_stack_keep_resident(64 << 10);
    pool.decommit_batch_size(DECOMMIT_BATCH);
    // Slots that remember a component's image are reused for it first; this many may lie idle in all.
    pool.max_unused_warm_slots(slots);
    pool
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    use super::*;

    #[test]
    fn what_one_engine_compiles_another_may_run() {
        let hash = |engine: &Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let host = RuntimeConfig { slots: 3, ..RuntimeConfig::default() };
        assert_eq!(hash(&compiling().unwrap()), hash(&Engine::new(&config(&host)).unwrap()));
    }
}
