//! An oracle that never comes to a verdict.

use std::hint::black_box;

use ringfence::{Checks, Failure, Job, Submission, Verdict};
use serde_json::Value;

#[ringfence::oracle]
fn evaluate(_: Job<Value>, _: Submission<Value>) -> Result<Verdict, Failure> {
    let mut turns = 0_u64;
    while turns != u64::MAX {
        turns = black_box(turns.wrapping_add(1));
    }
    Ok(Checks::new().verdict())
}
