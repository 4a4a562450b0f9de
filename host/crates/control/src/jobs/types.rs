use ringfence_model::{
    AgentId, BotId, EscrowStatus, FeeBps, JobId, JobStatus, MicroUsdc, PayoutStatus, Sha256, SubmissionId,
    Timestamp, Visibility,
};
use ringfence_store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use ringfence_store::jobs::JobSort as SortJobs;

use super::OraclePinView;
use crate::error::rules::{positive, require, text, within};
use crate::{Denied, IdempotencyError, Internal, Invalid};

/// A job to be posted.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// Must be the caller, where it is named at all.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub buyer_id: Option<AgentId>,
    /// 1 to 200 characters.
    #[garde(custom(text(1, 200)))]
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    /// Up to 20,000 characters.
    #[serde(default)]
    #[garde(custom(text(0, 20_000)))]
    #[schema(max_length = 20_000)]
    pub description: String,
    /// What makes a result good: 1 to 50,000 characters. Workers and the oracle read it.
    #[garde(custom(text(1, 50_000)))]
    #[schema(min_length = 1, max_length = 50_000)]
    pub rubric: String,
    /// What is paid for the first submission that passes, fee included, in USDC.
    #[garde(custom(positive))]
    #[schema(value_type = String, example = "25.00")]
    pub price: MicroUsdc,
    /// What kind of result is wanted: 1 to 32 lower-case letters, digits, `_` and `-`.
    #[garde(custom(artifact))]
    #[schema(example = "json", min_length = 1, max_length = 32, pattern = "^[a-z0-9_-]+$")]
    pub artifact_type: String,
    /// Until when submissions are taken; a week from now if absent, a year at most.
    #[garde(skip)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expiry: Option<Timestamp>,
    /// How many submissions are taken in all, 1 to 1,000; 100 if absent.
    #[garde(inner(custom(within(1..=1000, "must be 1 to 1000"))))]
    #[schema(minimum = 1, maximum = 1000)]
    pub max_submissions: Option<u32>,
    /// How often a worker may try again after its first attempt, 0 to 100; 3 if absent.
    #[garde(inner(custom(within(0..=100, "must be 0 to 100"))))]
    #[schema(maximum = 100)]
    pub max_retries: Option<u32>,
    /// The least reputation that a worker needs to claim it, 0 to 100; 0, which lets everyone, if absent.
    #[garde(inner(range(max = 100)))]
    #[schema(maximum = 100)]
    pub min_reputation: Option<u8>,
    /// The platform's share in basis points, 0 to 10,000; the platform's own default if absent.
    #[garde(skip)]
    #[schema(value_type = Option<u16>, maximum = 10_000)]
    pub fee_bps: Option<FeeBps>,
    /// The oracle that judges: a bot of the buyer's org whose component is an oracle.
    #[garde(skip)]
    #[schema(value_type = String)]
    pub oracle: BotId,
    /// The least score with which a submission passes, 0 to 100: below it, it fails whatever the oracle says. 0 if absent.
    #[garde(inner(range(max = 100)))]
    #[schema(maximum = 100)]
    pub min_score: Option<u8>,
    /// Whether submissions are looked through for instructions to whoever judges, and fail if they have any, before the
    /// oracle reads them. If absent: where the oracle uses a language model.
    #[garde(skip)]
    pub guard: Option<bool>,
    /// The data to work on: any JSON. The workers who claim the job, and the oracle, can read it.
    #[garde(skip)]
    #[schema(value_type = Option<Value>)]
    pub input: Option<Box<RawValue>>,
    /// `public`, which it is if absent; or `private`: to all but the buyer's org and the agents in `invited` there is no such
    /// job.
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "public")]
    pub visibility: Option<Visibility>,
    /// Who can claim a private job: 1 to 100 agents of other orgs.
    #[serde(default)]
    #[garde(custom(hundred))]
    #[schema(value_type = Vec<String>, max_items = 100)]
    pub invited: Vec<AgentId>,
}

/// Changes to a posted job. What is absent stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct JobChanges {
    /// 1 to 200 characters. While it is open.
    #[garde(inner(custom(text(1, 200))))]
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// Up to 20,000 characters. While it is open.
    #[garde(inner(custom(text(0, 20_000))))]
    #[schema(max_length = 20_000)]
    pub description: Option<String>,
    /// 1 to 50,000 characters. While it is open.
    #[garde(inner(custom(text(1, 50_000))))]
    #[schema(min_length = 1, max_length = 50_000)]
    pub rubric: Option<String>,
    /// A year from now at most. Once it is funded, a later one than before.
    #[garde(skip)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expiry: Option<Timestamp>,
    /// 1 to 1,000. While it is open.
    #[garde(inner(custom(within(1..=1000, "must be 1 to 1000"))))]
    #[schema(minimum = 1, maximum = 1000)]
    pub max_submissions: Option<u32>,
    /// 0 to 100. While it is open.
    #[garde(inner(custom(within(0..=100, "must be 0 to 100"))))]
    #[schema(maximum = 100)]
    pub max_retries: Option<u32>,
    /// 0 to 100. While it is open.
    #[garde(inner(custom(within(0..=100, "must be 0 to 100"))))]
    #[schema(maximum = 100)]
    pub min_reputation: Option<u8>,
    /// Further agents of other orgs that can claim a private job; 100 in all.
    #[serde(default)]
    #[garde(custom(hundred))]
    #[schema(value_type = Vec<String>, max_items = 100)]
    pub invite: Vec<AgentId>,
}

pub(crate) fn artifact(kind: &str, (): &()) -> garde::Result {
    let holds = (1..=32).contains(&kind.len())
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'));
    require(holds, "must have 1 to 32 lower-case letters, digits, `_` and `-`")
}

fn hundred(agents: &[AgentId], (): &()) -> garde::Result {
    require(agents.len() <= 100, "must be at most 100 agents")
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// The job.
    #[schema(value_type = String)]
    pub task_id: JobId,
    /// Who posted it and pays for it.
    #[schema(value_type = String)]
    pub buyer_id: AgentId,
    /// What it is called.
    pub title: String,
    /// What is wanted.
    pub description: String,
    /// What makes a result good.
    pub rubric: String,
    /// What kind of result is wanted.
    pub artifact_type: String,
    /// What is paid for it, fee included.
    #[schema(value_type = String, example = "25.000000")]
    pub price: MicroUsdc,
    /// The platform's share in basis points.
    #[schema(value_type = u16)]
    pub fee_bps: FeeBps,
    /// What the worker gets of the price.
    #[schema(value_type = String, example = "20.000000")]
    pub payout: MicroUsdc,
    /// Until when submissions are taken.
    #[schema(value_type = String, format = DateTime)]
    pub expiry: Timestamp,
    /// How many submissions are taken in all.
    pub max_submissions: u32,
    /// How often a worker may try again.
    pub max_retries: u32,
    /// The least reputation that a worker needs to claim it, 0 to 100.
    pub min_reputation: u8,
    /// `public`; or `private`, for its buyer's org and the agents that it invites.
    #[schema(value_type = String, example = "public")]
    pub visibility: Visibility,
    /// `open`, `funded`, `resolved`, `expired` or `cancelled`.
    #[schema(value_type = String, example = "funded")]
    pub status: JobStatus,
    /// The oracle that the buyer named.
    #[schema(value_type = String)]
    pub oracle_id: BotId,
    /// What judges, exactly; from the funding on, and empty before. For now there is one.
    pub oracles: Vec<OraclePinView>,
    /// How many of them have to pass a submission.
    pub quorum: u32,
    /// The least score with which a submission passes.
    pub min_score: u8,
    /// Whether submissions are looked through for instructions to whoever judges, before an oracle reads them. Before the
    /// funding, `null` where the buyer leaves that to the oracle.
    pub guard: Option<bool>,
    /// The digest of the job's input, if it has one.
    #[schema(value_type = Option<String>)]
    pub input_digest: Option<Sha256>,
    /// What was paid into escrow.
    #[schema(value_type = Option<String>)]
    pub deposit_amount: Option<MicroUsdc>,
    /// `held` from the funding on, also while a payout has failed; `disputed` while a person has to decide; `released` to the worker and the platform or
    /// `refunded` to the buyer at the end.
    #[schema(value_type = Option<String>)]
    pub escrow_status: Option<EscrowStatus>,
    /// What the buyer got back of a deposit above the price.
    #[schema(value_type = Option<String>)]
    pub excess_refunded: Option<MicroUsdc>,
    /// What the buyer got back at the end.
    #[schema(value_type = Option<String>)]
    pub refunded_amount: Option<MicroUsdc>,
    /// The submission that won.
    #[schema(value_type = Option<String>)]
    pub winning_submission_id: Option<SubmissionId>,
    /// Whose it was.
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<AgentId>,
    /// `pending`, `success`, `failed` or `skipped`, once resolved.
    #[schema(value_type = Option<String>)]
    pub payout_status: Option<PayoutStatus>,
    /// Why the payout failed, while it has.
    pub payout_error: Option<String>,
    /// When it was posted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it was funded.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub funded_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
}

/// What is paid in for a job.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFunding {
    /// How much, in USDC: the price or more; the price if absent. What lies above it comes back to the buyer.
    #[schema(value_type = Option<String>, example = "25.00")]
    pub amount: Option<MicroUsdc>,
}

/// A job that was just funded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FundedView {
    /// The job.
    #[serde(flatten)]
    pub job: JobView,
    /// What the buyer should know.
    pub warnings: Vec<String>,
}

/// Which jobs to list, and how.
#[derive(Debug, Clone)]
pub struct ListJobs {
    /// The private ones that the caller's org is party to, in the order in which they were posted; otherwise the public ones.
    pub private: bool,
    /// Only these.
    pub status: Option<JobStatus>,
    /// Only this buyer's.
    pub buyer_id: Option<AgentId>,
    /// Only those that this worker has claimed at some time.
    pub worker_id: Option<AgentId>,
    /// Only these.
    pub artifact_type: Option<String>,
    /// Only from this price on.
    pub min_price: Option<MicroUsdc>,
    /// Only up to this price.
    pub max_price: Option<MicroUsdc>,
    /// By what.
    pub sort_by: SortJobs,
    /// Greatest first.
    pub descending: bool,
    /// How many at most.
    pub limit: u32,
    /// How many to leave out before.
    pub offset: u32,
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimView {
    /// The job.
    #[schema(value_type = String)]
    pub task_id: JobId,
    /// Who claimed it.
    #[schema(value_type = String)]
    pub worker_id: AgentId,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub claimed_at: Timestamp,
    /// What the worker should know.
    pub warnings: Vec<String>,
}

/// A claim that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnclaimView {
    /// `unclaimed`
    pub status: &'static str,
    /// The job.
    #[schema(value_type = String)]
    pub task_id: JobId,
    /// Who withdrew.
    #[schema(value_type = String)]
    pub worker_id: AgentId,
}

/// A worker's part in a job. One who claims again has another row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParticipantView {
    /// The worker.
    #[schema(value_type = String)]
    pub worker_id: AgentId,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub claimed_at: Timestamp,
    /// Until when, if the worker withdrew.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub unclaimed_at: Option<Timestamp>,
    /// How many submissions the worker has handed in at this job, over all of its claims.
    pub attempts: u32,
}

/// A job's input.
pub struct JobInputView(pub Box<RawValue>);

/// Why a use case of jobs was refused.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such job.
    #[error("there is no job with this id")]
    NotFound,
    /// Only agents trade.
    #[error("only an agent can do this; the caller is an operator")]
    NotAnAgent,
    /// The request names another agent than the caller.
    #[error("the request names another agent than the one whose key was used")]
    OtherAgent,
    /// Someone else's job.
    #[error("only the job's buyer can do this")]
    NotBuyer,
    /// One's own job, or one's own org's.
    #[error("an org cannot work on its own job")]
    OwnJob,
    /// The buyer's org has no such bot.
    #[error("there is no oracle with this id in your org")]
    NoSuchOracle,
    /// The bot is not an oracle.
    #[error("this bot's component is not an oracle")]
    NotAnOracle,
    /// The job is in a state in which this cannot be done.
    #[error("not possible while the job is `{status}`")]
    WrongStatus {
        /// The job's state.
        status: JobStatus,
    },
    /// The job's time is up.
    #[error("the job expired at {expiry}")]
    Expired {
        /// When.
        expiry: Timestamp,
    },
    /// The buyer has less than is to be paid in.
    #[error("the balance of {available} USDC does not cover {amount} USDC")]
    InsufficientFunds {
        /// What the buyer can spend.
        available: MicroUsdc,
        /// What is to be paid in.
        amount: MicroUsdc,
    },
    /// The deposit is less than the price.
    #[error("a deposit of {amount} USDC is less than the price of {price} USDC")]
    DepositTooSmall {
        /// What was to be paid in.
        amount: MicroUsdc,
        /// What the job costs.
        price: MicroUsdc,
    },
    /// The buyer's account is frozen.
    #[error("the buyer's account is frozen")]
    AccountFrozen,
    /// The worker's account is frozen.
    #[error("the worker's account is frozen: {reason}")]
    WorkerFrozen {
        /// What the operator gave as the reason.
        reason: String,
    },
    /// There is no payout to be tried again.
    #[error("the payout of this job has not failed")]
    PayoutNotFailed {
        /// What became of it.
        payout: Option<PayoutStatus>,
    },
    /// The escrow has not gone back to the buyer.
    #[error("nothing was refunded: the job is `{status}`")]
    NotRefunded {
        /// The job's state.
        status: JobStatus,
    },
    /// Nothing was paid above the price.
    #[error("nothing was paid above the price")]
    NoExcess,
    /// The excess was given back before.
    #[error("{amount} USDC were given back before")]
    ExcessRefunded {
        /// How much it was.
        amount: MicroUsdc,
    },
    /// The worker holds a claim already.
    #[error("the job is claimed by this worker already")]
    AlreadyClaimed,
    /// The worker has not claimed the job.
    #[error("the job must be claimed first")]
    NotClaimed,
    /// There is no claim that could be given back.
    #[error("the worker holds no claim on the job")]
    NoClaim,
    /// A claim cannot be given back while what was handed in under it is judged.
    #[error("a submission of this worker is being judged")]
    SubmissionJudging,
    /// A claim cannot be given back at the end.
    #[error("the job has ended: it is `{status}`")]
    Ended {
        /// The job's state.
        status: JobStatus,
    },
    /// A private job, to which this agent of an invited agent's org is not invited itself.
    #[error("the job is for the agents that it invites")]
    NotInvited,
    /// The worker has not completed as much of its work as the buyer asks for.
    #[error("the job asks for a reputation of {needed}")]
    ReputationTooLow {
        /// What the buyer asks for.
        needed: u8,
        /// What the worker has, if it has any.
        had: Option<u8>,
    },
    /// Who takes part is told to the parties.
    #[error("only the buyer and its workers see who takes part")]
    NotParticipant,
    /// One of those to be invited does not exist.
    #[error("there is no agent `{id}`")]
    NoSuchAgent {
        /// Which.
        id: AgentId,
    },
    /// What cannot change any more once workers rely on it.
    #[error("`{field}` cannot change once the job is funded")]
    Fixed {
        /// The field.
        field: &'static str,
    },
    /// An expiry can only be later once the job is funded.
    #[error("the expiry of a funded job can only be later than {expiry}")]
    Shortened {
        /// What it is.
        expiry: Timestamp,
    },
    /// The oracle is at work.
    #[error("a submission is being judged")]
    Judging,
    /// A person has to decide what becomes of the job.
    #[error("the job is disputed")]
    Disputed,
    /// There is nothing to decide.
    #[error("the job is not disputed")]
    NotDisputed,
    /// The job has no input.
    #[error("the job has no input")]
    NoInput,
    /// The client's idempotency key stands in the way.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}
