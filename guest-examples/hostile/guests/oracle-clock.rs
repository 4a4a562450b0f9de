//! An oracle whose verdict tells what it saw of clocks and chance. Its reason is
//! `wall=<µs> first=<instant> second=<instant> random=<u64> seed=<u64>`; run twice, it has to say the same.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence::{Failure, Job, Step, Submission, Verdict};
use serde_json::Value;

#[ringfence::oracle]
fn evaluate(_: Job<Value>, submission: Submission<Value>) -> Result<Verdict, Failure> {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros();
    // An `Instant` shows its nanoseconds only as a difference, or in its debug form.
    let first = format!("{:?}", Instant::now());
    let second = format!("{:?}", Instant::now());
    let random = random();
    // The standard library takes its hashers' keys from another source, `insecure-seed`.
    let seed = RandomState::new().hash_one(0_u64);
    let step = |name: &str, detail: String| Step { name: name.to_owned(), passed: true, detail };
    Ok(Verdict {
        score: 100,
        passed: true,
        reason: format!("wall={wall} first={first} second={second} random={random} seed={seed}"),
        steps: vec![
            step("wall_us", wall.to_string()),
            step("submitted_at_us", submission.submitted_at_us.to_string()),
            step("monotonic_first", first),
            step("monotonic_second", second),
            step("random", random.to_string()),
            step("seed", seed.to_string()),
        ],
    })
}

/// What the host says is random.
fn random() -> u64 {
    unsafe extern "C" {
        fn getentropy(buffer: *mut u8, length: usize) -> i32;
    }
    let mut bytes = [0; 8];
    // SAFETY: the buffer is as long as the length says.
    unsafe { getentropy(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_le_bytes(bytes)
}
