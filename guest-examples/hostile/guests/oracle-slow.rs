//! An oracle that takes its time: it counts to the job's input, and then accepts whatever was handed in.

use std::hint::black_box;

use ringfence::{Checks, Failure, Job, Submission, Verdict};
use serde_json::Value;

#[ringfence::oracle]
fn evaluate(job: Job<u64>, _: Submission<Value>) -> Result<Verdict, Failure> {
    let mut turns = 0_u64;
    while turns != job.input {
        turns = black_box(turns.wrapping_add(1));
    }
    let mut checks = Checks::new();
    checks.check("counted to the end", Ok::<_, String>(format!("{turns} turns")));
    Ok(checks.verdict())
}
