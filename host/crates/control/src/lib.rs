//! The use cases: who may do what, in which transaction, and what follows from it.
//!
//! Every use case is a method of [`Control`]. It takes a [`Caller`] and typed input, and has a closed error enum.
//! The API, and later MCP, the console and a bot's market grant, all call the same ones, so a permission check
//! stands here and nowhere else.

mod access;
mod accounts;
mod audit;
mod bots;
mod caller;
mod compiled;
mod components;
mod error;
mod events;
mod guard;
mod idempotency;
mod jobs;
mod kv;
mod ledger;
mod limits;
mod live;
mod llm;
mod oracles;
mod policy;
mod recorder;
mod reputation;
mod retention;
mod secrets;
mod submissions;
mod usage;
mod work;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use access::Leased;
use ringfence_model::{BotId, Clock, FeeBps, HostId, Rng};
use ringfence_outbound::Outbound;
use ringfence_runtime::Runtime;
use ringfence_store::Store;
use tokio::sync::Notify;

pub use access::{
    AuthenticationError, KeyError, KeyLimits, KeyView, Login, MadeKey, NewKey, NewUser, PasswordChange,
    RotateKey, SessionError, TokensView, UserChanges, UserError, UserView, WhoAmI,
};
pub use accounts::{AccountError, AgentChanges, AgentView, NewAgent, OwnAgentView, RegisteredAgent};
pub use audit::{AuditEntryView, AuditError, AuditOutcome, BrokenLink, ChainReport, ListAudit, verify_audit};
pub use bots::{
    BotChanges, BotError, BotLogLineView, BotLogs, BotView, DirectoryAccess, DirectoryGrant, FollowEvent,
    FollowLogs, Grants, HttpGrant, InvocationView, InvokedBot, KvGrant, ListBots, ListLogs, LlmGrant,
    LogFilter, LogLineView, LogPolicy, MAX_FOLLOW, MarketGrant, MissingGrant, NewBot, NewSecret, SecretView,
    UsageView,
};
pub use caller::{Caller, Identity, Origin, Quotas};
pub use compiled::{PrecompileReport, components_in_use, precompile};
pub use components::{
    Check, CheckView, ComponentError, ComponentView, StoredComponents, Upload, check_component_header,
};
pub use error::{FieldError, Internal, Invalid, Page};
pub use events::EventName;
pub use idempotency::{Answer, Idempotency, IdempotencyError};
pub use jobs::{
    ClaimView, FundedView, JobChanges, JobError, JobInputView, JobView, ListJobs, NewFunding, NewJob,
    OraclePinView, ParticipantView, SortJobs, UnclaimView,
};
pub use ledger::{
    AccountView, BalanceView, DepositView, LedgerCheckView, LedgerError, ListTransfers, NewDeposit,
    NewFreeze, NewReport, NewWithdrawal, ReportedView, SolvencyView, StatementPage, TransferView,
    WithdrawalEnd, WithdrawalView,
};
pub use limits::{Counted, LimitGroup, LimitState, Limited, RateLimits};
pub use llm::{BadLlmSettings, LLM_TIMEOUT, LlmEndpoint, LlmSettings};
pub use oracles::{DisputeOutcome, DisputeRuling};
pub use policy::{
    Action, BadPolicy, Denied, NewPolicy, Permission, PolicyChanges, PolicyError, PolicyView, Reach,
    permission_table, policy_schema,
};
pub use reputation::{AgentReputationView, FinishedJobView, Ranking, ReputationView};
pub use ringfence_runtime::{Level, Stream};
pub use ringfence_store::components::ComponentKind;
pub use ringfence_store::ledger::{TransferKind, TransferPhase};
pub use secrets::{BadMasterKey, MasterKeys, SealError, is_sealed, reseal_all};
pub use submissions::{
    EvaluationView, NewSubmission, PrivateSubmissionView, StepView, SubmissionError, SubmissionView,
};
pub use usage::{Day, GroupUsageBy, ListUsage, UsageError, UsageReport, UsageSums};

/// What an operator decides about the market and its limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The fee of a job that names none (`PLATFORM_FEE_BPS`).
    pub platform_fee: FeeBps,
    /// How long one evaluation may take, whatever it waits for (`ORACLE_TIMEOUT_SECONDS`).
    pub oracle_timeout: Duration,
    /// How many evaluations this host runs at a time.
    pub oracle_concurrency: u32,
    /// How many of them may be of one org's jobs.
    pub oracle_concurrency_per_org: u32,
    /// How many requests a minute a principal or an address may make.
    pub rate_limits: RateLimits,
    /// For how many days the lines of calls are kept; 0 is for ever.
    pub log_retention_days: u32,
    /// For how many days calls are kept, but for those about submissions; 0 is for ever.
    pub invocation_retention_days: u32,
    /// Folder of the volumes of bots. Without one, no bot can be granted a directory.
    pub volumes_dir: Option<std::path::PathBuf>,
    /// The client for requests to the outside. A command that runs no guests has none.
    pub outbound: Option<Outbound>,
    /// Where language models are. Without it, guests are told that there are none.
    pub llm: Option<LlmEndpoint>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            platform_fee: FeeBps::DEFAULT,
            oracle_timeout: Duration::from_secs(120),
            oracle_concurrency: 4,
            oracle_concurrency_per_org: 2,
            rate_limits: RateLimits::default(),
            log_retention_days: 30,
            invocation_retention_days: 365,
            volumes_dir: None,
            outbound: None,
            llm: None,
        }
    }
}

/// All use cases over one database and one sandbox. Clones share both.
#[derive(Clone)]
pub struct Control {
    store: Store,
    runtime: Runtime,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    settings: Settings,
    access: Arc<access::Access>,
    policies: Arc<policy::Policies>,
    limits: Arc<limits::Limits>,
    /// Bots that were called a moment ago.
    deployed: Arc<Leased<BotId, Arc<bots::Deployed>>>,
    recorder: Arc<recorder::Recorder>,
    running: bots::Running,
    /// Calls that run and are followed.
    live: Arc<live::Live>,
    /// Rung when a submission is to be judged, so that this host's worker looks at once.
    evaluation_bell: Arc<Notify>,
    /// Rung when a job is to expire at some time.
    expiry_bell: Arc<Notify>,
    /// Rung when bots were told of a job.
    work_bell: Arc<Notify>,
    /// Tells this host's leases from those of others.
    host_id: HostId,
}
