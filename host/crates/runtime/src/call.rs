//! One call: a fresh store and instance, the guest's export, and what became of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::bindings::{bot::BotPre, oracle::OraclePre, types};
use crate::engine::MAX_STACK_BYTES;
use crate::invocation::{CallError, Failure, Invocation, Job, Outcome, Step, Submission, Usage, Verdict};
use crate::lane::Lane;
use crate::limits::{Ended, Limits};
use crate::slots::Slots;
use crate::state::{MAX_HOST_CALL_BYTES, State, store};

/// What every call has.
pub(crate) struct Frame<'a> {
    pub(crate) engine: &'a Engine,
    /// Permits to compute for long.
    pub(crate) lane: &'a Slots,
    pub(crate) tenant: &'a Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) started: Instant,
}

/// What a guest answered, with both sides measured in bytes of text.
struct Answer<T> {
    result: Result<T, types::Failure>,
    output_bytes: u64,
}

/// How the guest's part of a call ended.
enum Ending<T> {
    Answered(Answer<T>),
    Error(wasmtime::Error),
    TimedOut,
    Cancelled,
}

/// Calls a bot's `handle`. The text that comes out is JSON.
pub(crate) async fn handle(
    pre: &BotPre<State>,
    state: State,
    frame: &Frame<'_>,
    task: types::Task,
    cancelled: impl Future<Output = ()>,
) -> Result<Invocation<String>, CallError> {
    let input_bytes = task.input.len() as u64;
    let heavy = state.meter.heavy();
    let mut store = store(frame.engine, state, &frame.limits).map_err(internal)?;
    let guest = async {
        let bot = pre.instantiate_async(&mut store).await?;
        let result = bot.call_handle(&mut store, &task).await?;
        let output_bytes = result.as_ref().map_or_else(failure_bytes, |json| json.len() as u64);
        Ok(Answer { result, output_bytes })
    };
    let (ending, cpu) = run(guest, frame, &heavy, cancelled).await;
    let usage = Usage { input_bytes, ..measure(&store, frame, cpu) };
    conclude(&store, &frame.limits, ending, usage, |json| {
        serde_json::from_str::<IgnoredAny>(&json)
            .map(|_| json)
            .map_err(|error| format!("returned text that is not JSON: {error}"))
    })
}

/// Calls an oracle's `evaluate`.
pub(crate) async fn evaluate(
    pre: &OraclePre<State>,
    state: State,
    frame: &Frame<'_>,
    job: types::Job,
    submission: types::Submission,
) -> Result<Invocation<Verdict>, CallError> {
    let input_bytes = job_bytes(&job) + submission.content.len() as u64;
    let heavy = state.meter.heavy();
    let mut store = store(frame.engine, state, &frame.limits).map_err(internal)?;
    let guest = async {
        let oracle = pre.instantiate_async(&mut store).await?;
        let result = oracle.call_evaluate(&mut store, &job, &submission).await?;
        let output_bytes = result.as_ref().map_or_else(failure_bytes, verdict_bytes);
        Ok(Answer { result, output_bytes })
    };
    let (ending, cpu) = run(guest, frame, &heavy, std::future::pending()).await;
    let usage = Usage { input_bytes, ..measure(&store, frame, cpu) };
    conclude(&store, &frame.limits, ending, usage, |verdict| match verdict.score {
        0..=100 => Ok(verdict.into()),
        score => Err(format!("returned the score {score}; scores are 0 to 100")),
    })
}

async fn run<T>(
    guest: impl Future<Output = wasmtime::Result<Answer<T>>>,
    frame: &Frame<'_>,
    heavy: &AtomicBool,
    cancelled: impl Future<Output = ()>,
) -> (Ending<T>, Duration) {
    let mut cpu = Duration::ZERO;
    let wall_time = Duration::from_millis(frame.limits.wall_time_ms);
    let guest = std::pin::pin!(guest);
    let guest = Lane::new(guest, frame.lane, frame.tenant, heavy, &mut cpu);
    let ending = tokio::select! {
        biased;
        ended = tokio::time::timeout(wall_time, guest) => match ended {
            Ok(Ok(answer)) => Ending::Answered(answer),
            Ok(Err(error)) => Ending::Error(error),
            Err(_) => Ending::TimedOut,
        },
        () = cancelled => Ending::Cancelled,
    };
    (ending, cpu)
}

fn measure(store: &Store<State>, frame: &Frame<'_>, cpu: Duration) -> Usage {
    let state = store.data();
    Usage {
        // Fuel is always on, so there always is a rest.
        fuel: frame.limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0)),
        peak_memory_bytes: state.meter.peak_memory_bytes(),
        wall_us: micros(frame.started.elapsed()),
        cpu_us: micros(cpu),
        host_calls: state.meter.host_calls(),
        egress_sent_bytes: state.http.traffic().sent_bytes(),
        egress_received_bytes: state.http.traffic().received_bytes(),
        llm_input_tokens: state.llm.input,
        llm_output_tokens: state.llm.output,
        ..Usage::default()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Names the ending. What the limits say comes first: a guest that has passed one has no other ending, however
/// its last moments looked.
fn conclude<T, U>(
    store: &Store<State>,
    limits: &Limits,
    ending: Ending<T>,
    mut usage: Usage,
    accept: impl FnOnce(T) -> Result<U, String>,
) -> Result<Invocation<U>, CallError> {
    let (mut output, mut failure) = (None, None);
    let (outcome, detail) = match (store.data().ended(), ending) {
        (Some(ended), _) => (outcome_of(ended), Some(format!("The guest {ended}."))),
        (None, Ending::TimedOut) => {
            let limit = limits.wall_time_ms;
            (Outcome::TimedOut, Some(format!("The guest was not done after its limit of {limit} ms.")))
        }
        (None, Ending::Cancelled) => {
            (Outcome::Cancelled, Some("The call was cancelled before the guest was done.".to_owned()))
        }
        (None, Ending::Error(error)) => {
            if error.is::<PoolConcurrencyLimitError>() {
                return Err(internal(error));
            }
            let (outcome, detail) = explain(&error, limits);
            (outcome, Some(detail))
        }
        (None, Ending::Answered(answer)) if answer.output_bytes > limits.output_bytes => {
            (Outcome::OutputTooLarge, Some(output_too_large(limits)))
        }
        (None, Ending::Answered(answer)) => {
            usage.output_bytes = answer.output_bytes;
            match answer.result.map(accept) {
                Ok(Ok(accepted)) => {
                    output = Some(accepted);
                    (Outcome::Completed, None)
                }
                Ok(Err(reason)) => (Outcome::InvalidOutput, Some(format!("The guest {reason}."))),
                Err(types::Failure { code, message }) => {
                    failure = Some(Failure { code: without_nul(code), message: without_nul(message) });
                    (Outcome::Failed, None)
                }
            }
        }
    };
    let (logs, log_bytes) = store.data().logs.finish();
    usage.log_bytes = log_bytes;
    let detail = detail.map(without_nul);
    Ok(Invocation { outcome, output, failure, detail, usage, logs })
}

fn outcome_of(ended: Ended) -> Outcome {
    match ended {
        Ended::Memory { .. } => Outcome::OutOfMemory,
        Ended::Table { .. } => Outcome::OutOfTable,
        Ended::Log { .. } => Outcome::LogLimit,
        Ended::HostCalls { .. } => Outcome::HostCallLimit,
    }
}

fn output_too_large(limits: &Limits) -> String {
    format!("The guest returned more than its limit of {} bytes.", limits.output_bytes)
}

/// What ended a guest that passed none of the limits that the meter holds.
fn explain(error: &wasmtime::Error, limits: &Limits) -> (Outcome, String) {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let code = exit.0;
        return (
            Outcome::Exited,
            format!("The guest ended itself with exit code {code} instead of returning."),
        );
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            let limit = limits.fuel;
            (Outcome::OutOfFuel, format!("The guest used up its limit of {limit} units of fuel."))
        }
        Some(Trap::StackOverflow) => (
            Outcome::StackOverflow,
            format!("The guest's calls went deeper than its stack of {MAX_STACK_BYTES} bytes."),
        ),
        Some(trap) => (Outcome::Trapped, format!("The guest trapped: {trap}{}.", place(backtrace))),
        // wasmtime keeps the type of this error to itself.
        None if error.root_cause().to_string().contains("fuel allocated for hostcalls") => {
            // With guest frames below, it was a call of the host; without, the result.
            if backtrace.is_some() {
                let detail =
                    format!("The guest handed more than {MAX_HOST_CALL_BYTES} bytes to one host call.");
                (Outcome::HostCallLimit, detail)
            } else {
                (Outcome::OutputTooLarge, output_too_large(limits))
            }
        }
        None if backtrace.is_none() => {
            (Outcome::InvalidOutput, format!("The guest's result could not be read: {}.", shorten(error)))
        }
        None => (Outcome::Trapped, format!("The guest trapped: {}{}.", shorten(error), place(backtrace))),
    }
}

/// The text of an error may hold text of the guest's, of any length.
fn shorten(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().chars().take(300).collect()
}

/// The innermost functions with names, if the component has kept its names.
fn place(backtrace: Option<&WasmBacktrace>) -> String {
    let names: Vec<String> = backtrace
        .map(WasmBacktrace::frames)
        .unwrap_or_default()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(3)
        .map(|name| format!("`{}`", name.chars().take(100).collect::<String>()))
        .collect();
    if names.is_empty() { String::new() } else { format!(", in {}", names.join(" called by ")) }
}

fn internal(error: wasmtime::Error) -> CallError {
    CallError::Internal(format!("{error:#}"))
}

/// A guest's text without U+0000, which PostgreSQL cannot store: a verdict that could not be written would hold the
/// escrow for ever.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

fn failure_bytes(failure: &types::Failure) -> u64 {
    (failure.code.len() + failure.message.len()) as u64
}

/// What a step costs besides its texts, so that empty ones are not free.
const STEP_COST: usize = 64;

fn verdict_bytes(verdict: &types::Verdict) -> u64 {
    let steps =
        verdict.steps.iter().map(|step| STEP_COST + step.name.len() + step.detail.len()).sum::<usize>();
    (verdict.reason.len() + steps) as u64
}

fn job_bytes(job: &types::Job) -> u64 {
    let texts = [&job.title, &job.description, &job.rubric, &job.artifact_type];
    let texts = texts.into_iter().chain(&job.input).map(String::len).sum::<usize>();
    texts as u64
}

impl From<Job> for types::Job {
    fn from(job: Job) -> Self {
        let Job { id, title, description, rubric, artifact_type, input } = job;
        Self { id, title, description, rubric, artifact_type, input }
    }
}

impl From<Submission> for types::Submission {
    fn from(submission: Submission) -> Self {
        let Submission { id, attempt, content, submitted_at_us } = submission;
        Self { id, attempt, content, submitted_at: submitted_at_us }
    }
}

impl From<types::Verdict> for Verdict {
    fn from(verdict: types::Verdict) -> Self {
        let types::Verdict { score, passed, reason, steps } = verdict;
        let steps = steps
            .into_iter()
            .map(|types::Step { name, passed, detail }| Step { name, passed, detail })
            .collect();
        Self { score, passed, reason: without_nul(reason), steps }
    }
}
