//! Sleeps for as many milliseconds as the input says, and returns how long it thinks that was.

use std::time::{Duration, Instant};

use ringfence::Failure;

#[ringfence::bot]
fn handle(sleep_ms: u64) -> Result<u128, Failure> {
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(sleep_ms));
    Ok(start.elapsed().as_millis())
}
