//! An oracle that passes everything.

use ringfence::{Failure, Job, Submission, Verdict};
use serde::de::IgnoredAny;

#[ringfence::oracle]
fn evaluate(_: Job<IgnoredAny>, _: Submission<IgnoredAny>) -> Result<Verdict, Failure> {
    Ok(Verdict { score: 100, passed: true, reason: "anything goes".to_owned(), steps: Vec::new() })
}
