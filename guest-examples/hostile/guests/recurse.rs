//! Calls itself. Input: how deep, or `null` for without end.

use ringfence::Failure;
use std::hint::black_box;

#[ringfence::bot]
fn handle(depth: Option<u64>) -> Result<u64, Failure> {
    Ok(descend(depth.unwrap_or(u64::MAX)))
}

/// Each turn keeps a number and uses it after its callee returned, so that no compiler can make a loop of it. It is
/// small, so that the engine's stack ends before the guest's own, in its memory, does.
#[inline(never)]
#[allow(unconditional_recursion)]
fn descend(depth: u64) -> u64 {
    let kept = black_box(depth);
    if depth == 0 {
        return 0;
    }
    let below = black_box(descend as fn(u64) -> u64)(depth - 1);
    kept.wrapping_sub(depth) + below + 1
}
