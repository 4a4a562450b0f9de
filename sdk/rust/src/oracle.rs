use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Checks, Failure, parse};

/// A job as its buyer posted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job<T> {
    /// `job_…`
    pub id: String,
    /// The buyer's title.
    pub title: String,
    /// The buyer's description.
    pub description: String,
    /// What the buyer says makes a result good.
    pub rubric: String,
    /// The buyer's word for the kind of result, for example `json`.
    pub artifact_type: String,
    /// The data that the work is to be done on. A job without any reads as JSON `null`: take
    /// `Job<()>` or `Job<Option<T>>`.
    pub input: T,
}

/// One attempt by one worker at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission<T> {
    /// `sub_…`
    pub id: String,
    /// 1 for the worker's first attempt at this job.
    pub attempt: u32,
    /// What the worker delivered.
    pub content: T,
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub submitted_at_us: u64,
}

/// What an oracle says of a submission. [`Checks`] makes one from named checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// 0 (worthless) to 100 (all that was asked). The host takes a higher value for an oracle fault.
    pub score: u8,
    /// Whether the submission fulfils the job, and so whether the worker is paid.
    pub passed: bool,
    /// The verdict in one or two sentences, for the worker and the buyer.
    pub reason: String,
    /// How the oracle came to it, in order.
    pub steps: Vec<Step>,
}

/// One thing that an oracle looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: String,
    /// Whether it was as it should be.
    pub passed: bool,
    /// What was expected and what was found, in a sentence.
    pub detail: String,
}

/// One evaluation over the JSON boundary. A job that the oracle can't read is the oracle's failure;
/// a submission that it can't read is bad work, and so a verdict.
pub(crate) fn call<I, C, E>(
    evaluate: fn(Job<I>, Submission<C>) -> Result<Verdict, E>,
    job: Job<Option<String>>,
    submission: Submission<String>,
) -> Result<Verdict, Failure>
where
    I: DeserializeOwned,
    C: DeserializeOwned,
    E: Into<Failure>,
{
    let input = parse::json(job.input.as_deref().unwrap_or("null")).map_err(|error| {
        Failure::new(
            "bad_job_input",
            format!("this oracle can't judge the job, its input is not as expected: {error}"),
        )
    })?;
    let content = match parse::json(&submission.content) {
        Ok(content) => content,
        Err(error) => {
            let mut checks = Checks::new();
            checks.check("the submission has the form that was asked for", Err::<String, _>(error));
            return Ok(checks.verdict());
        }
    };
    let job = Job {
        id: job.id,
        title: job.title,
        description: job.description,
        rubric: job.rubric,
        artifact_type: job.artifact_type,
        input,
    };
    let submission = Submission {
        id: submission.id,
        attempt: submission.attempt,
        content,
        submitted_at_us: submission.submitted_at_us,
    };
    evaluate(job, submission).map_err(Into::into)
}

/// Compiles for what can be an oracle, and does nothing.
pub fn check<I, C, E>(_: fn(Job<I>, Submission<C>) -> Result<Verdict, E>)
where
    I: DeserializeOwned,
    C: DeserializeOwned,
    E: Into<Failure>,
{
}
