//! An oracle whose score is no score: 200.

use ringfence::{Failure, Job, Submission, Verdict};
use serde_json::Value;

#[ringfence::oracle]
fn evaluate(_: Job<Value>, _: Submission<Value>) -> Result<Verdict, Failure> {
    Ok(Verdict { score: 200, passed: true, reason: "twice as good as can be".to_owned(), steps: Vec::new() })
}
