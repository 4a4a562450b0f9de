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
mod components;
mod error;
mod events;
mod idempotency;
mod jobs;
mod kv;
mod ledger;
mod limits;
mod oracles;
mod policy;
mod secrets;
mod submissions;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use ringfence_model::{Clock, FeeBps, HostId, Rng};
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
    BotChanges, BotError, BotView, Grants, InvocationView, InvokedBot, KvGrant, ListBots, LogLineView,
    MissingGrant, NewBot, NewSecret, SecretView, UsageView,
};
pub use caller::{Caller, Identity, Origin, Quotas};
pub use components::{Check, CheckView, ComponentError, ComponentView, StoredComponents, Upload};
pub use error::{FieldError, Internal, Invalid, Page};
pub use events::EventName;
pub use idempotency::{Answer, Idempotency, IdempotencyError};
pub use jobs::{ClaimView, JobError, JobInputView, JobView, ListJobs, NewJob, OraclePinView, SortJobs};
pub use ledger::{BalanceView, DepositView, LedgerError, NewDeposit};
pub use limits::{Counted, LimitGroup, LimitState, Limited, RateLimits};
pub use policy::{
    Action, BadPolicy, Denied, NewPolicy, Permission, PolicyChanges, PolicyError, PolicyView, Reach,
    permission_table, policy_schema,
};
pub use ringfence_store::components::ComponentKind;
pub use secrets::{BadMasterKey, MasterKeys, SealError, is_sealed, reseal_all};
pub use submissions::{
    EvaluationView, NewSubmission, PrivateSubmissionView, StepView, SubmissionError, SubmissionView,
};

/// What an operator decides about the market and its limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The fee of a job that names none (`PLATFORM_FEE_BPS`).
    pub platform_fee: FeeBps,
    /// How long one evaluation may take, whatever it waits for (`ORACLE_TIMEOUT_SECONDS`).
    pub oracle_timeout: Duration,
    /// How many evaluations this host runs at a time.
    pub oracle_concurrency: u32,
    /// How many requests a minute a principal or an address may make.
    pub rate_limits: RateLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            platform_fee: FeeBps::DEFAULT,
            oracle_timeout: Duration::from_secs(120),
            oracle_concurrency: 4,
            rate_limits: RateLimits::default(),
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
    /// Rung when a submission is to be judged, so that this host's worker looks at once.
    evaluation_bell: Arc<Notify>,
    /// Rung when a job is to expire at some time.
    expiry_bell: Arc<Notify>,
    /// Tells this host's leases from those of others.
    host_id: HostId,
}
