//! What one invocation may use, and the meter that holds it to that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiterAsync;

use crate::engine;

/// What one invocation may use. Passing a limit ends that invocation with an outcome of its own.
///
/// The depth of the guest's stack is limited as well, to the same [`MAX_STACK_BYTES`] for everyone: it is
/// compiled into the engine.
///
/// [`MAX_STACK_BYTES`]: crate::MAX_STACK_BYTES
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Units of work, about one for each WebAssembly instruction.
    pub fuel: u64,
    /// Bytes of linear memory, summed over all memories of the instance.
    pub memory_bytes: u64,
    /// Elements of tables, summed over all tables of the instance.
    pub table_elements: u64,
    /// Milliseconds from the moment that the instance is started, also while a host call is waiting.
    pub wall_time_ms: u64,
    /// Bytes of standard output, standard error and structured logs together; a line costs 32 on top, a field 64.
    pub log_bytes: u64,
    /// Bytes of what the guest returns (UTF-8).
    pub output_bytes: u64,
    /// Calls of imported functions; giving back a host resource counts as one.
    pub host_calls: u64,
    /// Instances of one bot that may run at a time on a host. Of all limits the only one that is not of a call: whoever
    /// knows bots counts them.
    pub instances: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 1_000_000_000,
            memory_bytes: 128 << 20,
            table_elements: 20_000,
            wall_time_ms: 10_000,
            log_bytes: 256 << 10,
            output_bytes: 1 << 20,
            host_calls: 10_000,
            instances: 64,
        }
    }
}

/// A limit that is outside what this host gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No instance could start with this little.
    #[error("{field} is {value}; the least is {minimum}")]
    TooSmall {
        /// Name of the field of [`Limits`].
        field: &'static str,
        /// What it was set to.
        value: u64,
        /// The least that it can be.
        minimum: u64,
    },
    /// More than the host's maximum.
    #[error("{field} is {value}; this host's maximum is {maximum}")]
    TooLarge {
        /// Name of the field of [`Limits`].
        field: &'static str,
        /// What it was set to.
        value: u64,
        /// The host's maximum.
        maximum: u64,
    },
}

impl LimitError {
    /// Name of the field of [`Limits`] that is wrong.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::TooSmall { field, .. } | Self::TooLarge { field, .. } => field,
        }
    }
}

impl Limits {
    /// The host maximum that [`RuntimeConfig`](crate::RuntimeConfig) has by default.
    #[must_use]
    pub const fn host_maximum() -> Self {
        Self {
            fuel: 100_000_000_000,
            memory_bytes: 1 << 30,
            table_elements: 100_000,
            wall_time_ms: 300_000,
            log_bytes: 4 << 20,
            output_bytes: 16 << 20,
            host_calls: 1_000_000,
            instances: 1000,
        }
    }

    /// Each limit, lowered to `maximum` where it is above.
    #[must_use]
    pub fn clamp_to(&self, maximum: &Self) -> Self {
        Self {
            fuel: self.fuel.min(maximum.fuel),
            memory_bytes: self.memory_bytes.min(maximum.memory_bytes),
            table_elements: self.table_elements.min(maximum.table_elements),
            wall_time_ms: self.wall_time_ms.min(maximum.wall_time_ms),
            log_bytes: self.log_bytes.min(maximum.log_bytes),
            output_bytes: self.output_bytes.min(maximum.output_bytes),
            host_calls: self.host_calls.min(maximum.host_calls),
            instances: self.instances.min(maximum.instances),
        }
    }

    /// Whether every limit is enough to start an instance and within `maximum`.
    ///
    /// # Errors
    /// The first limit that is not, by the name of its field.
    pub fn validate(&self, maximum: &Self) -> Result<(), LimitError> {
        let fields = [
            ("fuel", self.fuel, 1, maximum.fuel),
            ("memory_bytes", self.memory_bytes, 64 << 10, maximum.memory_bytes),
            ("table_elements", self.table_elements, 0, maximum.table_elements),
            ("wall_time_ms", self.wall_time_ms, 1, maximum.wall_time_ms),
            ("log_bytes", self.log_bytes, 0, maximum.log_bytes),
            ("output_bytes", self.output_bytes, 1, maximum.output_bytes),
            ("host_calls", self.host_calls, 0, maximum.host_calls),
            ("instances", self.instances, 1, maximum.instances),
        ];
        for (field, value, minimum, maximum) in fields {
            if value < minimum {
                return Err(LimitError::TooSmall { field, value, minimum });
            }
            if value > maximum {
                return Err(LimitError::TooLarge { field, value, maximum });
            }
        }
        Ok(())
    }
}

/// The limit that ended an invocation. Travels as the error that unwinds the guest, and stays behind in the
/// meter, so that no layer in between can lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("asked for {asked} bytes of memory in all; the limit is {limit}")]
    Memory { asked: u64, limit: u64 },
    #[error("asked for {asked} table elements in all; the limit is {limit}")]
    Table { asked: u64, limit: u64 },
    #[error("logged more than its limit of {limit} bytes")]
    Log { limit: u64 },
    #[error("made more host calls than its limit of {limit}")]
    HostCalls { limit: u64 },
}

/// Memory that a guest may hold without being heavy. Filling or copying this much, with one instruction that nothing
/// interrupts, takes about as long as a slice.
const LIGHT_BYTES: u64 = 32 << 20;

/// Counts what the limits bound, apart from fuel, time and logs.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_limit: u64,
    table_limit: u64,
    host_call_limit: u64,
    memory_bytes: u64,
    table_elements: u64,
    host_calls: u64,
    ended: Option<Ended>,
    heavy: Arc<AtomicBool>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory_bytes,
            table_limit: limits.table_elements,
            host_call_limit: limits.host_calls,
            memory_bytes: 0,
            table_elements: 0,
            host_calls: 0,
            ended: None,
            heavy: Arc::default(),
        }
    }

    /// Becomes true when the guest holds so much memory that one instruction can keep its thread for long.
    pub(crate) fn heavy(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heavy)
    }

    pub(crate) fn count_host_call(&mut self) {
        self.host_calls += 1;
        if self.host_calls > self.host_call_limit {
            self.end(Ended::HostCalls { limit: self.host_call_limit });
        }
    }

    /// The limit that was passed first, if any was.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Calls that were let through.
    pub(crate) fn host_calls(&self) -> u64 {
        self.host_calls.min(self.host_call_limit)
    }

    /// The most that was held at one time. Linear memory never shrinks, so this is also what is held now.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub(crate) fn end(&mut self, reason: Ended) -> Ended {
        *self.ended.get_or_insert(reason)
    }
}

/// What 32 bits can address. wasmtime gives this as the maximum of a memory that declares none.
const ADDRESSABLE_BYTES: usize = 4 << 30;

/// Refusals are errors, not a failed `memory.grow`: the guest is told nothing and ends there. A component's
/// own declared maximum is another matter: passing that is the -1 that the specification asks for.
impl Meter {
    fn grow_memory(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum && maximum < ADDRESSABLE_BYTES) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current) as u64;
        let asked = self.memory_bytes.saturating_add(growth);
        if asked > self.memory_limit {
            return Err(self.end(Ended::Memory { asked, limit: self.memory_limit }).into());
        }
        self.memory_bytes = asked;
        Ok(true)
    }

    /// `maximum` is the lower of the component's own and the pool's. The pool gives at least the limit, so
    /// asking for more than the pool has is past the limit as well; the limit is therefore looked at first.
    fn grow_table(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if asked > self.table_limit {
            return Err(self.end(Ended::Table { asked, limit: self.table_limit }).into());
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = asked;
        Ok(true)
    }
}

#[wasmtime_wasi::async_trait]
impl ResourceLimiterAsync for Meter {
    /// A guest that becomes heavy goes back to the scheduler at once: it computes on when it is its turn.
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grows = self.grow_memory(current, desired, maximum)?;
        if self.memory_bytes > LIGHT_BYTES && !self.heavy.swap(true, Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        Ok(grows)
    }

    /// Only reached when the operating system has no more: `memory_growing` has answered for everything else. What it
    /// added is not taken back: a guest could then make the sum fall below what it holds.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let limit = self.memory_limit;
        Err(self.end(Ended::Memory { asked: self.memory_bytes.max(limit + 1), limit }).into())
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow_table(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        engine::MAX_CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        engine::MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        engine::MAX_MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_outside_the_host_maximum_is_named() {
        let maximum = Limits::host_maximum();
        assert_eq!(Limits::default().validate(&maximum), Ok(()));
        assert_eq!(maximum.validate(&maximum), Ok(()));
        let wrong = Limits { wall_time_ms: 0, ..Limits::default() };
        assert_eq!(wrong.validate(&maximum).map_err(|error| error.field()), Err("wall_time_ms"));
        let wrong = Limits { memory_bytes: u64::MAX, ..Limits::default() };
        assert_eq!(wrong.validate(&maximum).map_err(|error| error.field()), Err("memory_bytes"));
        assert_eq!(wrong.clamp_to(&maximum).memory_bytes, maximum.memory_bytes);
    }

    #[test]
    fn memories_are_summed() {
        let mut meter = Meter::new(&Limits { memory_bytes: 1000, ..Limits::default() });
        assert!(meter.grow_memory(0, 600, None).unwrap());
        assert!(!meter.grow_memory(0, 600, Some(500)).unwrap(), "the component's own maximum");
        assert_eq!(meter.ended(), None);
        assert!(meter.grow_memory(0, 600, None).is_err());
        assert_eq!(meter.ended(), Some(Ended::Memory { asked: 1200, limit: 1000 }));
        assert_eq!(meter.peak_memory_bytes(), 600);
    }

    #[test]
    fn a_failed_growth_gives_no_room_back() {
        let mut meter = Meter::new(&Limits { memory_bytes: 1000, ..Limits::default() });
        assert!(meter.grow_memory(0, 600, None).unwrap());
        assert!(meter.memory_grow_failed(wasmtime::format_err!("no more")).is_err());
        assert_eq!(meter.peak_memory_bytes(), 600);
        assert!(matches!(meter.ended(), Some(Ended::Memory { .. })));
    }
}
