//! Writes lines to standard output, sleeps after the first, and returns how many it has written. Input:
//! `{"lines": 3, "bytes": 0, "pause_ms": 60000}`; each line is its number and as many bytes more.

use std::time::Duration;

use ringfence::Failure;
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input {
    lines: u64,
    bytes: usize,
    pause_ms: u64,
}

#[ringfence::bot]
fn handle(input: Input) -> Result<u64, Failure> {
    for number in 0..input.lines {
        println!("{number}{}", "x".repeat(input.bytes));
        if number == 0 && input.pause_ms > 0 {
            std::thread::sleep(Duration::from_millis(input.pause_ms));
        }
    }
    Ok(input.lines)
}
