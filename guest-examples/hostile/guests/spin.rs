//! Never returns, and calls nobody. Input: anything.

use ringfence::Failure;
use std::hint::black_box;

#[ringfence::bot]
fn handle(_: serde_json::Value) -> Result<u64, Failure> {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
        if turns == u64::MAX {
            return Ok(turns);
        }
    }
}
