//! What goes into a call and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::digest::Digest;
use crate::limits::Limits;
use crate::logs::{LogLine, LogOptions};

/// One call to a bot.
#[derive(Clone)]
pub struct BotCall {
    /// The component, which must be a bot.
    pub digest: Digest,
    /// The invocation's id, which the guest is told.
    pub invocation_id: String,
    /// The input, a JSON text. The caller has parsed it: the guest may rely on that.
    pub input: String,
    /// What the call may use; lowered to the host's maximum where it is above.
    pub limits: Limits,
    /// What the bot was granted.
    pub capabilities: Arc<Capabilities>,
    /// On whose behalf: slots are shared out fairly between tenants.
    pub tenant: Arc<str>,
    /// What becomes of its lines.
    pub logs: LogOptions,
}

/// One call to an oracle. The same call on the same engine version has the same result and uses the same fuel
/// on any machine, unless it ends for one of the reasons that [`Outcome::depends_on_machine`] names.
#[derive(Clone, Debug)]
pub struct OracleCall {
    /// The component, which must be an oracle.
    pub digest: Digest,
    /// The job as it was posted.
    pub job: Job,
    /// The submission to judge. Its time is also what the oracle's wall clock shows.
    pub submission: Submission,
    /// What the call may use; lowered to the host's maximum where it is above.
    pub limits: Limits,
    /// The configuration values of this oracle.
    pub config: BTreeMap<String, String>,
    /// The seed of all its randomness.
    pub seed: [u8; 32],
    /// On whose behalf: slots are shared out fairly between tenants.
    pub tenant: Arc<str>,
}

/// A job as its buyer posted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// `job_…`
    pub id: String,
    /// Its title.
    pub title: String,
    /// What is to be done.
    pub description: String,
    /// What makes a result good.
    pub rubric: String,
    /// The kind of result that is wanted, for example `json`.
    pub artifact_type: String,
    /// The data to work on, a JSON text.
    pub input: Option<String>,
}

/// One attempt at a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// `sub_…`
    pub id: String,
    /// 1 for the worker's first attempt at this job.
    pub attempt: u32,
    /// What was delivered, a JSON text.
    pub content: String,
    /// When, in microseconds since 1970-01-01T00:00:00Z.
    pub submitted_at_us: u64,
}

/// What an oracle says of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// 0 to 100.
    pub score: u8,
    /// Whether the submission fulfils the job.
    pub passed: bool,
    /// The verdict in words, for worker and buyer.
    pub reason: String,
    /// How the oracle came to it, in order.
    pub steps: Vec<Step>,
}

/// One thing that an oracle looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was looked at.
    pub name: String,
    /// Whether it was as expected.
    pub passed: bool,
    /// What was expected and what was found.
    pub detail: String,
}

/// A call that began: how it ended and what it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation<T> {
    /// How it ended.
    pub outcome: Outcome,
    /// What the guest returned; present exactly when the outcome is `completed`.
    pub output: Option<T>,
    /// What the guest said instead; present exactly when the outcome is `failed`.
    pub failure: Option<Failure>,
    /// For every other outcome, what happened in a sentence, with the limit and its value if one was passed.
    /// May hold text of the guest's, such as function names: show it as text, never as markup.
    pub detail: Option<String>,
    /// What was used.
    pub usage: Usage,
    /// What the guest said on the way.
    pub logs: Vec<LogLine>,
}

/// Why a guest could not do its task, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Short and stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest returned a result.
    Completed,
    /// The guest returned a failure.
    Failed,
    /// It used up its fuel.
    OutOfFuel,
    /// It asked for more memory than its limit.
    OutOfMemory,
    /// It asked for more table elements than its limit.
    OutOfTable,
    /// Its calls went deeper than the stack.
    StackOverflow,
    /// It took longer than its wall time.
    TimedOut,
    /// It did what WebAssembly forbids, or gave up with `unreachable` (a panic).
    Trapped,
    /// It ended itself through `wasi:cli/exit` instead of returning.
    Exited,
    /// It returned more bytes than its limit.
    OutputTooLarge,
    /// It logged more bytes than its limit.
    LogLimit,
    /// It made more host calls than its limit, or handed too much to one of them.
    HostCallLimit,
    /// It returned something that is not what its contract says: not JSON, a score above 100.
    InvalidOutput,
    /// Whoever called it did not want the answer any more.
    Cancelled,
}

impl Outcome {
    /// The outcome in snake case, as it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::OutOfFuel => "out_of_fuel",
            Self::OutOfMemory => "out_of_memory",
            Self::OutOfTable => "out_of_table",
            Self::StackOverflow => "stack_overflow",
            Self::TimedOut => "timed_out",
            Self::Trapped => "trapped",
            Self::Exited => "exited",
            Self::OutputTooLarge => "output_too_large",
            Self::LogLimit => "log_limit",
            Self::HostCallLimit => "host_call_limit",
            Self::InvalidOutput => "invalid_output",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether another machine might have let the same call end otherwise: time, depth of stack and a caller's
    /// patience are not the same everywhere. Nothing may be concluded about a submission from such an ending.
    #[must_use]
    pub const fn depends_on_machine(self) -> bool {
        matches!(self, Self::TimedOut | Self::StackOverflow | Self::Cancelled)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an invocation used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Units of work.
    pub fuel: u64,
    /// The most bytes of linear memory that it held at one time.
    pub peak_memory_bytes: u64,
    /// Microseconds from having a slot to the end.
    pub wall_us: u64,
    /// Microseconds of processor time: the guest's and that of the host functions it called, as far as they
    /// ran on the guest's own thread.
    pub cpu_us: u64,
    /// Calls of imported functions.
    pub host_calls: u64,
    /// Bytes charged for logs.
    pub log_bytes: u64,
    /// Bytes of the input's texts.
    pub input_bytes: u64,
    /// Bytes of the returned result's or failure's texts.
    pub output_bytes: u64,
    /// Bytes sent in outbound requests, heads and bodies.
    pub egress_sent_bytes: u64,
    /// Bytes received in the answers to them, heads and bodies.
    pub egress_received_bytes: u64,
    /// Tokens that language models were given.
    pub llm_input_tokens: u64,
    /// Tokens that language models answered with.
    pub llm_output_tokens: u64,
}

/// The call could not begin: nothing ran and nothing was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Every slot is taken, or all that the tenant may have, and its queue is full or did not move in time.
    #[error("all instances are busy; try again in {retry_after_ms} ms")]
    Busy {
        /// A time after which trying again makes sense, in milliseconds.
        retry_after_ms: u64,
    },
    /// The call was cancelled before the guest had begun.
    #[error("the call was cancelled before it began")]
    Cancelled,
    /// The source has no such component.
    #[error("there is no component {0}")]
    UnknownComponent(Digest),
    /// The source could not say.
    #[error("the component {digest} could not be read: {reason}")]
    SourceFailed {
        /// The component.
        digest: Digest,
        /// What the source said. Internal: not for clients.
        reason: String,
    },
    /// The component exists but may not run here (any more).
    #[error("the component may not run here: {0}")]
    Invalid(#[from] crate::component::InvalidComponent),
    /// A bot was called as an oracle, or the other way round.
    #[error("the component is a {found}, not a {expected}")]
    WrongKind {
        /// What was asked for.
        expected: crate::component::Kind,
        /// What the component is.
        found: crate::component::Kind,
    },
    /// The component imports an interface that the call grants nothing for.
    #[error("the component imports `{capability}`, which was not granted")]
    MissingGrant {
        /// The capability.
        capability: &'static str,
    },
    /// The host could not start an instance.
    #[error("the host could not start an instance: {0}")]
    Internal(String),
}

impl CallError {
    /// Short and stable, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Cancelled => "cancelled",
            Self::UnknownComponent(_) => "unknown_component",
            Self::SourceFailed { .. } => "component_source_failed",
            Self::Invalid(_) => "invalid_component",
            Self::WrongKind { .. } => "wrong_kind",
            Self::MissingGrant { .. } => "missing_grant",
            Self::Internal(_) => "internal",
        }
    }
}
