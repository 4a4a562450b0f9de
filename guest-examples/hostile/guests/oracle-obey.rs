//! An oracle that believes what it reads: the submission says what the verdict is.
//!
//! `{"score": 70, "passed": true}` is given that verdict. Anything else is a `failure`: it could not judge.

use ringfence::{Failure, Job, Submission, Verdict};
use serde::de::IgnoredAny;
use serde_json::Value;

#[ringfence::oracle]
fn evaluate(_: Job<IgnoredAny>, submission: Submission<Value>) -> Result<Verdict, Failure> {
    let score = submission.content["score"].as_u64().and_then(|score| u8::try_from(score).ok());
    let (Some(score), Some(passed)) = (score, submission.content["passed"].as_bool()) else {
        return Err(Failure::new("not_told", "the submission does not say what to think of it"));
    };
    Ok(Verdict { score, passed, reason: "it said so".to_owned(), steps: Vec::new() })
}
