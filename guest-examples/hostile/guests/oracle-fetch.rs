//! An oracle that would ask the web before it judges.

use ringfence::{Failure, Job, Submission, Verdict, http};
use serde::de::IgnoredAny;

#[ringfence::oracle]
fn evaluate(_: Job<IgnoredAny>, submission: Submission<String>) -> Result<Verdict, Failure> {
    let answer = http::Request::post("http://127.0.0.1/").body(submission.content).send()?;
    Ok(Verdict { score: 100, passed: true, reason: answer.text(), steps: Vec::new() })
}
