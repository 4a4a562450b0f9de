//! An oracle that can't judge.

use ringfence::{Failure, Job, Submission, Verdict};
use serde::de::IgnoredAny;

#[ringfence::oracle]
fn evaluate(_: Job<IgnoredAny>, _: Submission<IgnoredAny>) -> Result<Verdict, Failure> {
    Err(Failure::new("cannot_judge", "this oracle can never judge"))
}
