//! The generated bindings, and the way between their types and ours.
//!
//! `pub_export_macro` makes the export of a world part of the author's crate: a component that is a
//! bot holds no trace of the oracle's world, and the other way round.

#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::all, reason = "mostly generated")]

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{BotInput, Failure};

pub mod bot {
    wit_bindgen::generate!({ path: "../../wit", world: "bot", pub_export_macro: true });
}

pub mod oracle {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "oracle",
        pub_export_macro: true,
        with: {
            "ringfence:guest/types@0.1.0": crate::bindings::bot::ringfence::guest::types,
            "ringfence:guest/log@0.1.0": crate::bindings::bot::ringfence::guest::log,
            "ringfence:guest/config@0.1.0": crate::bindings::bot::ringfence::guest::config,
        },
    });
}

pub(crate) use bot::ringfence::guest::{config, kv, llm, log, secrets};

pub fn export_bot<I, O, E>(handle: fn(I) -> Result<O, E>, task: bot::Task) -> Result<String, bot::Failure>
where
    I: BotInput,
    O: Serialize,
    E: Into<Failure>,
{
    crate::bot::call(handle, task.id, &task.input).map_err(failure)
}

pub fn export_oracle<I, C, E>(
    evaluate: fn(crate::Job<I>, crate::Submission<C>) -> Result<crate::Verdict, E>,
    job: oracle::Job,
    submission: oracle::Submission,
) -> Result<oracle::Verdict, oracle::Failure>
where
    I: DeserializeOwned,
    C: DeserializeOwned,
    E: Into<Failure>,
{
    let job = crate::Job {
        id: job.id,
        title: job.title,
        description: job.description,
        rubric: job.rubric,
        artifact_type: job.artifact_type,
        input: job.input,
    };
    let submission = crate::Submission {
        id: submission.id,
        attempt: submission.attempt,
        content: submission.content,
        submitted_at_us: submission.submitted_at,
    };
    crate::oracle::call(evaluate, job, submission).map(verdict).map_err(failure)
}

fn failure(failure: Failure) -> bot::Failure {
    bot::Failure { code: failure.code, message: failure.message }
}

fn verdict(verdict: crate::Verdict) -> oracle::Verdict {
    let step = |step: crate::Step| bot::ringfence::guest::types::Step {
        name: step.name,
        passed: step.passed,
        detail: step.detail,
    };
    oracle::Verdict {
        score: verdict.score,
        passed: verdict.passed,
        reason: verdict.reason,
        steps: verdict.steps.into_iter().map(step).collect(),
    }
}
