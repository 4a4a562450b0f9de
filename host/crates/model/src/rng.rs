use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::SecureRandom as _;

/// Where randomness comes from: keys, ids, seeds.
pub trait Rng: Send + Sync {
    /// Fills `bytes` with randomness.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's cryptographic randomness.
pub struct SystemRng(ring::rand::SystemRandom);

impl SystemRng {
    /// The machine's source of randomness.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that opens the machine's randomness"
    )]
    pub fn new() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng for SystemRng {
    #[expect(clippy::panic, reason = "a host without randomness must not go on: its keys would be guessable")]
    fn fill(&self, bytes: &mut [u8]) {
        if self.0.fill(bytes).is_err() {
            panic!("the operating system gives no randomness");
        }
    }
}

/// Repeatable bytes for tests: the same seed gives the same sequence. Not random to anyone who looks.
#[derive(Debug)]
pub struct SeededRng(AtomicU64);

impl SeededRng {
    /// A sequence that depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Rng for SeededRng {
    /// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut z =
                self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            for (byte, random) in chunk.iter_mut().zip(z.to_le_bytes()) {
                *byte = random;
            }
        }
    }
}
