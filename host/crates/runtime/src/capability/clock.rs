//! Time and randomness of the deterministic profile, in which oracles run.
//!
//! The wall clock stands still at the submission's time. The monotonic clock moves one step with each reading,
//! and waiting for a later time does not wait: when nothing else is ready the clock jumps to the earliest
//! time that is being waited for. Randomness comes from ChaCha20 under a seed that the caller gives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::{self, Host};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, Rng, WasiCtxBuilder};

use crate::state::State;

/// Puts the virtual clock in the place of WASI's own, in the linker of those who run deterministically.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, HasSelf<State>>(linker, State::called)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What one reading of the monotonic clock adds to it, in nanoseconds.
pub const CLOCK_STEP_NS: u64 = 1_000_000;

/// Makes time and randomness depend on nothing but the arguments. Returns the monotonic clock.
pub(crate) fn make_deterministic(builder: &mut WasiCtxBuilder, now_us: u64, seed: [u8; 32]) -> VirtualClock {
    let clock = VirtualClock::default();
    builder.wall_clock(FixedClock(Duration::from_micros(now_us)));
    builder.monotonic_clock(clock.clone());
    builder.secure_random(stream(seed, 0));
    builder.insecure_random(stream(seed, 1));
    let mut insecure_seed = [0; 16];
    stream(seed, 2).fill_bytes(&mut insecure_seed);
    builder.insecure_random_seed(u128::from_le_bytes(insecure_seed));
    clock
}

/// Each of WASI's three sources reads a stream of its own, so that reading one does not move another.
fn stream(seed: [u8; 32], number: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed(seed);
    rng.set_stream(number);
    rng
}

struct FixedClock(Duration);

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

/// The monotonic clock of one instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct VirtualClock(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    now_ns: u64,
    /// The times that are being waited for, and how often each.
    waited_for: BTreeMap<u64, usize>,
}

impl VirtualClock {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> u64 {
        let mut times = self.lock();
        times.now_ns = times.now_ns.saturating_add(CLOCK_STEP_NS);
        times.now_ns
    }

    /// Whether `when` has come; it comes now if nothing is waited for that is earlier.
    fn arrive(&self, when: u64) -> bool {
        let mut times = self.lock();
        if times.waited_for.first_key_value().is_none_or(|(first, _)| when <= *first) {
            times.now_ns = times.now_ns.max(when);
        }
        when <= times.now_ns
    }
}

impl HostMonotonicClock for VirtualClock {
    fn resolution(&self) -> u64 {
        CLOCK_STEP_NS
    }

    fn now(&self) -> u64 {
        self.read()
    }
}

/// A wait for a time of the virtual clock.
struct Deadline {
    clock: VirtualClock,
    when: u64,
}

/// Counts as waiting for as long as it lives.
struct Waiting<'a>(&'a Deadline);

impl<'a> Waiting<'a> {
    fn new(deadline: &'a Deadline) -> Self {
        *deadline.clock.lock().waited_for.entry(deadline.when).or_default() += 1;
        Self(deadline)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut times = self.0.clock.lock();
        if let Some(count) = times.waited_for.get_mut(&self.0.when) {
            *count -= 1;
            if *count == 0 {
                times.waited_for.remove(&self.0.when);
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Deadline {
    /// The first round only registers, so that whatever else the guest polls for is asked before the clock
    /// jumps, and so that of several deadlines the earliest is known.
    async fn ready(&mut self) {
        if self.when <= self.clock.lock().now_ns {
            return;
        }
        let _waiting = Waiting::new(self);
        loop {
            tokio::task::yield_now().await;
            if self.clock.arrive(self.when) {
                return;
            }
        }
    }
}

impl State {
    fn wait_until(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let deadline = Deadline { clock: self.clock.clone(), when };
        let deadline = self.table.push(deadline)?;
        subscribe(&mut self.table, deadline)
    }
}

impl Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.read())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(CLOCK_STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.wait_until(when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let when = self.clock.read().saturating_add(duration);
        self.wait_until(when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(clock: &VirtualClock, when: u64) -> Deadline {
        Deadline { clock: clock.clone(), when }
    }

    #[tokio::test]
    async fn waiting_jumps_to_the_earliest_deadline() {
        let clock = VirtualClock::default();
        assert_eq!(clock.read(), CLOCK_STEP_NS);
        let (mut late, mut early) = (deadline(&clock, u64::MAX), deadline(&clock, 60_000_000_000));
        tokio::select! {
            biased;
            () = late.ready() => panic!("the later one came first"),
            () = early.ready() => {}
        }
        assert_eq!(clock.read(), 60_000_000_000 + CLOCK_STEP_NS);
        assert!(clock.lock().waited_for.is_empty());
        late.ready().await;
        assert_eq!(clock.read(), u64::MAX);
    }

    #[test]
    fn randomness_repeats_and_streams_differ() {
        let seed = [7; 32];
        assert_eq!(stream(seed, 0).next_u64(), stream(seed, 0).next_u64());
        assert_ne!(stream(seed, 0).next_u64(), stream(seed, 1).next_u64());
        assert_ne!(stream(seed, 0).next_u64(), stream([8; 32], 0).next_u64());
    }
}
