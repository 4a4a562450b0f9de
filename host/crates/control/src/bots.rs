//! Bots and oracles: named, versioned deployments of components; calls to them and what these left.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfence_model::{BotId, BotStatus, InvocationId, Sha256, SubmissionStatus, Timestamp};
use ringfence_runtime::{BotCall, CallError, Limits, LogLine, Usage};
use ringfence_store::bots::{self, Bot, BotFilter};
use ringfence_store::components::{self, Component, ComponentKind};
use ringfence_store::{StoreError, invocations, submissions};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::Checks;
use crate::kv::BotKv;
use crate::{Answer, Caller, Control, Idempotency, IdempotencyError, Internal, Invalid, Page};

/// What a bot may do beyond computing. Nothing, unless it is granted here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// A key-value store of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvGrant>,
}

/// A key-value store of the bot's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KvGrant {
    /// What all keys and values together may take, 1 byte to 64 MiB.
    pub quota_bytes: u64,
}

/// A deployment.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBot {
    /// Unique in the org: 1 to 63 lower-case letters, digits and hyphens.
    #[schema(example = "orders-report")]
    pub name: String,
    /// For people, up to 2,000 characters.
    #[serde(default)]
    pub description: String,
    /// The component that it runs; it must have been uploaded.
    #[schema(value_type = String)]
    pub component: Sha256,
    /// What the guest reads through `config`: up to 100 entries, 32 KiB in all. No secrets: they can be read back.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// What it may do.
    #[serde(default)]
    pub grants: Grants,
    /// What each call may use. What is absent has its default.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"fuel": 1_000_000_000u64, "wall_time_ms": 10_000, "memory_bytes": 134_217_728}))]
    pub limits: Limits,
}

/// Changes to a bot. What is absent stays; what is present replaces all of what was there.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BotChanges {
    /// The new name.
    pub name: Option<String>,
    /// The new description.
    pub description: Option<String>,
    /// The new component, of the same kind.
    #[schema(value_type = Option<String>)]
    pub component: Option<Sha256>,
    /// The new configuration.
    pub config: Option<BTreeMap<String, String>>,
    /// The new grants.
    pub grants: Option<Grants>,
    /// The new limits.
    #[schema(value_type = Option<Object>)]
    pub limits: Option<Limits>,
}

/// A bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BotView {
    /// The bot.
    #[schema(value_type = String)]
    pub bot_id: BotId,
    /// Its name, unique in the org.
    pub name: String,
    /// For people.
    pub description: String,
    /// `bot` or `oracle`.
    #[schema(value_type = String)]
    pub kind: ComponentKind,
    /// Raised by every change.
    pub version: u32,
    /// The component that it runs.
    #[schema(value_type = String)]
    pub component: Sha256,
    /// What the guest reads through `config`.
    pub config: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Grants,
    /// What each call may use.
    #[schema(value_type = Object)]
    pub limits: Limits,
    /// `running` or `terminated`.
    #[schema(value_type = String)]
    pub status: BotStatus,
    /// When it was deployed first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Which bots of the org to list.
#[derive(Debug, Clone, Default)]
pub struct ListBots {
    /// Only these.
    pub status: Option<BotStatus>,
    /// Only these.
    pub kind: Option<ComponentKind>,
    /// Only the one of this name.
    pub name: Option<String>,
    /// How many at most.
    pub limit: u32,
    /// How many to leave out before.
    pub offset: u32,
}

/// What one call used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Units of work.
    pub fuel: u64,
    /// The most memory that it had at any time.
    pub peak_memory_bytes: u64,
    /// From start to end, waiting included.
    pub wall_us: u64,
    /// Computing, waiting not included.
    pub cpu_us: u64,
    /// Calls of the host's functions.
    pub host_calls: u64,
    /// Logs.
    pub log_bytes: u64,
    /// What it was given.
    pub input_bytes: u64,
    /// What it returned.
    pub output_bytes: u64,
}

/// One call, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvocationView {
    /// The call.
    #[schema(value_type = String)]
    pub invocation_id: InvocationId,
    /// The bot that was called.
    #[schema(value_type = String)]
    pub bot_id: BotId,
    /// Its version then.
    pub bot_version: u32,
    /// The component that ran.
    #[schema(value_type = String)]
    pub component: Sha256,
    /// `completed`, `failed` (the guest said that it could not), or the limit or fault that ended it; absent while it is
    /// sealed.
    #[schema(example = "completed")]
    pub outcome: Option<String>,
    /// Whether this is an oracle's call about a submission that has not passed. What it said, and what it used, could
    /// carry the work to a buyer who has not paid for it, so both stay closed until it passes.
    pub sealed: bool,
    /// What happened, in a sentence, where it did not complete.
    pub detail: Option<String>,
    /// The digest of what it was given; absent while it is sealed.
    #[schema(value_type = Option<String>)]
    pub input_digest: Option<Sha256>,
    /// The digest of what it returned.
    #[schema(value_type = Option<String>)]
    pub output_digest: Option<Sha256>,
    /// The engine that ran it.
    pub engine: String,
    /// What it used; absent while it is sealed.
    pub usage: Option<UsageView>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
}

/// A call that has just been made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InvokedBot {
    /// The call.
    #[serde(flatten)]
    pub invocation: InvocationView,
    /// What the guest returned, if it completed. Any JSON.
    #[schema(value_type = Value)]
    pub output: Option<Box<RawValue>>,
    /// The code that the guest gave for its failure, if it failed.
    pub failure_code: Option<String>,
}

/// A line that a guest wrote.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogLineView {
    /// Microseconds since the call began.
    pub at_us: u64,
    /// `stdout`, `stderr` or `log`.
    pub stream: String,
    /// `trace`, `debug`, `info`, `warn` or `error`; of standard output `info`, of standard error `warn`.
    pub level: String,
    /// The line.
    pub message: String,
    /// Of structured lines: keys and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// Why a use case of bots was refused.
#[derive(Debug, thiserror::Error)]
pub enum BotError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The caller's org has no such bot.
    #[error("there is no bot with this id")]
    NotFound,
    /// The bot has no such invocation.
    #[error("there is no invocation with this id")]
    NoSuchInvocation,
    /// The org has not uploaded this component.
    #[error("there is no component with this digest: upload it first")]
    NoSuchComponent,
    /// The org has a bot of this name.
    #[error("there is a bot of this name already")]
    NameTaken,
    /// The component imports something that it was not granted.
    #[error("the component needs grants that it was not given: {}", .0.join(", "))]
    GrantMissing(Vec<String>),
    /// Another change came between.
    #[error("the bot was changed by someone else meanwhile")]
    Changed,
    /// A job that has not ended is judged by it.
    #[error("a job that has not ended is judged by this oracle")]
    InUse,
    /// Oracles are not called, they judge.
    #[error("an oracle cannot be called: it judges the submissions of jobs that name it")]
    NotCallable,
    /// The bot was terminated.
    #[error("the bot is terminated")]
    Terminated,
    /// What an oracle logged while judging, before a submission has passed.
    #[error("what an oracle logged can be read once the submission has passed")]
    Sealed,
    /// All instances are busy.
    #[error("all instances are busy")]
    Busy {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// The client's idempotency key stands in the way.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for BotError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::NameTaken,
            _ => Self::Internal(error.into()),
        }
    }
}

impl Control {
    /// Deploys a component under a name.
    ///
    /// # Errors
    /// [`BotError::GrantMissing`] names what the component imports without a grant.
    pub async fn create_bot(
        &self,
        caller: &Caller,
        new: NewBot,
        once: Option<&Idempotency>,
    ) -> Result<Answer<BotView>, BotError> {
        let mut tx = self.store.begin().await?;
        if let Some(answer) = self.begin_once::<BotError>(&mut tx, caller, once).await? {
            return Ok(Answer::Replay(answer));
        }
        let component = components::get(&mut tx, caller.org(), &new.component).await?;
        let component = component.ok_or(BotError::NoSuchComponent)?;
        let now = self.clock.now();
        let view = BotView {
            bot_id: BotId::new(&*self.clock, &*self.rng),
            name: new.name,
            description: new.description,
            kind: component.kind,
            version: 1,
            component: new.component,
            config: new.config,
            grants: new.grants,
            limits: new.limits,
            status: BotStatus::Running,
            created_at: now,
            updated_at: now,
        };
        self.check_bot(&view, &component)?;
        bots::insert(&mut tx, &to_row(caller, &view)?).await?;
        self.finish_once(&mut tx, caller, once, &view).await?;
        tx.commit().await?;
        Ok(Answer::New(view))
    }

    /// A bot of the caller's org.
    ///
    /// # Errors
    /// [`BotError::NotFound`], also for another org's.
    pub async fn bot(&self, caller: &Caller, id: &BotId) -> Result<BotView, BotError> {
        let mut reader = self.store.reader().await?;
        own_bot(&mut reader, caller, id).await
    }

    /// The bots of the caller's org, newest first.
    ///
    /// # Errors
    /// [`BotError::Internal`] only.
    pub async fn bots(&self, caller: &Caller, list: &ListBots) -> Result<Page<BotView>, BotError> {
        let filter = BotFilter { status: list.status, kind: list.kind, name: list.name.clone() };
        let mut reader = self.store.reader().await?;
        let page = bots::list(&mut reader, caller.org(), &filter, list.limit, list.offset).await?;
        let items = page.items.into_iter().map(from_row).collect::<Result<_, _>>()?;
        Ok(Page { items, total: page.total })
    }

    /// Changes a bot. Calls that have begun go on with what was; jobs that were funded keep the oracle that they had.
    ///
    /// # Errors
    /// As [`Self::create_bot`], and [`BotError::Changed`] if two changes met.
    pub async fn update_bot(
        &self,
        caller: &Caller,
        id: &BotId,
        changes: BotChanges,
    ) -> Result<BotView, BotError> {
        let mut tx = self.store.begin().await?;
        let mut view = own_bot(&mut tx, caller, id).await?;
        if view.status == BotStatus::Terminated {
            return Err(BotError::Terminated);
        }
        let (expected, kind) = (view.version, view.kind);
        if let Some(name) = changes.name {
            view.name = name;
        }
        if let Some(description) = changes.description {
            view.description = description;
        }
        if let Some(component) = changes.component {
            view.component = component;
        }
        if let Some(config) = changes.config {
            view.config = config;
        }
        if let Some(grants) = changes.grants {
            view.grants = grants;
        }
        if let Some(limits) = changes.limits {
            view.limits = limits;
        }
        let component = components::get(&mut tx, caller.org(), &view.component).await?;
        let component = component.ok_or(BotError::NoSuchComponent)?;
        if component.kind != kind {
            let message = format!("must be a component of the same kind: {}", kind.as_str());
            return Err(Invalid::field("component", message).into());
        }
        self.check_bot(&view, &component)?;
        view.version = expected.saturating_add(1);
        view.updated_at = self.clock.now();
        if !bots::update(&mut tx, &to_row(caller, &view)?, expected).await? {
            return Err(BotError::Changed);
        }
        tx.commit().await?;
        Ok(view)
    }

    /// Takes a bot out of service for good. Its invocations stay readable, its name becomes free.
    ///
    /// # Errors
    /// [`BotError::InUse`] while an open or funded job names it as its oracle.
    pub async fn delete_bot(&self, caller: &Caller, id: &BotId) -> Result<(), BotError> {
        let mut tx = self.store.begin().await?;
        own_bot(&mut tx, caller, id).await?;
        if bots::used_by_unfinished_job(&mut tx, id).await? {
            return Err(BotError::InUse);
        }
        bots::terminate(&mut tx, id, self.clock.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Calls a bot once. Whatever the guest does, the answer says how it ended and what it used.
    ///
    /// # Errors
    /// [`BotError::Busy`] if no instance becomes free in time.
    pub async fn invoke_bot(
        &self,
        caller: &Caller,
        id: &BotId,
        input: &RawValue,
    ) -> Result<InvokedBot, BotError> {
        let bot = self.bot(caller, id).await?;
        if bot.status == BotStatus::Terminated {
            return Err(BotError::Terminated);
        }
        if bot.kind == ComponentKind::Oracle {
            return Err(BotError::NotCallable);
        }
        let invocation_id = InvocationId::new(&*self.clock, &*self.rng);
        let started_at = self.clock.now();
        let kv = bot.grants.kv.as_ref().map(|grant| {
            Arc::new(BotKv {
                store: self.store.clone(),
                clock: self.clock.clone(),
                org: caller.org().clone(),
                bot: bot.bot_id.clone(),
                quota_bytes: grant.quota_bytes,
            }) as Arc<dyn ringfence_runtime::KvStore>
        });
        let call = BotCall {
            digest: bot.component,
            invocation_id: invocation_id.to_string(),
            input: input.get().to_owned(),
            limits: bot.limits.clone(),
            config: Arc::new(bot.config.clone()),
            kv,
        };
        let called = self.runtime.call_bot(call).await.map_err(|error| match error {
            CallError::Busy { retry_after_ms } => {
                BotError::Busy { retry_after: std::time::Duration::from_millis(retry_after_ms) }
            }
            other => BotError::Internal(Internal::Sandbox(other.to_string())),
        })?;

        let output = called.output.map(RawValue::from_string).transpose().map_err(Internal::from)?;
        let failure = called.failure;
        let row = invocations::Invocation {
            id: invocation_id,
            org_id: caller.org().clone(),
            bot_id: bot.bot_id,
            bot_version: bot.version,
            component_digest: bot.component,
            submission_id: None,
            outcome: called.outcome.as_str().to_owned(),
            detail: failure.as_ref().map(|failure| failure.message.clone()).or(called.detail),
            input_digest: Sha256::of(input.get().as_bytes()),
            output_digest: output.as_ref().map(|output| Sha256::of(output.get().as_bytes())),
            limits: serde_json::to_value(&bot.limits).map_err(Internal::from)?,
            engine: ringfence_runtime::Runtime::engine_version().to_owned(),
            usage: usage_row(&called.usage),
            started_at,
        };
        let mut tx = self.store.begin().await?;
        invocations::insert(&mut tx, &row, &lines_row(&called.logs)?).await?;
        tx.commit().await?;
        let failure_code = failure.map(|failure| failure.code);
        Ok(InvokedBot { invocation: row.into(), output, failure_code })
    }

    /// The calls of a bot, newest first.
    ///
    /// # Errors
    /// [`BotError::NotFound`].
    pub async fn invocations(
        &self,
        caller: &Caller,
        id: &BotId,
        limit: u32,
        offset: u32,
    ) -> Result<Page<InvocationView>, BotError> {
        let mut reader = self.store.reader().await?;
        own_bot(&mut reader, caller, id).await?;
        let page = invocations::list(&mut reader, id, limit, offset).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for call in page.items {
            items.push(open_or_sealed(&mut reader, call).await?);
        }
        Ok(Page { items, total: page.total })
    }

    /// One call of a bot.
    ///
    /// # Errors
    /// [`BotError::NotFound`], [`BotError::NoSuchInvocation`].
    pub async fn invocation(
        &self,
        caller: &Caller,
        bot: &BotId,
        id: &InvocationId,
    ) -> Result<InvocationView, BotError> {
        let mut reader = self.store.reader().await?;
        let call = own_invocation(&mut reader, caller, bot, id).await?;
        open_or_sealed(&mut reader, call).await
    }

    /// What a call wrote to its logs. An oracle's logs are sealed until the submission has passed: they could carry
    /// the work to a buyer who has not paid for it.
    ///
    /// # Errors
    /// [`BotError::Sealed`], and as [`Self::invocation`].
    pub async fn invocation_logs(
        &self,
        caller: &Caller,
        bot: &BotId,
        id: &InvocationId,
    ) -> Result<Vec<LogLineView>, BotError> {
        let mut reader = self.store.reader().await?;
        let invocation = own_invocation(&mut reader, caller, bot, id).await?;
        if sealed(&mut reader, &invocation).await? {
            return Err(BotError::Sealed);
        }
        let lines = invocations::logs(&mut reader, id).await?;
        Ok(lines.map(serde_json::from_value).transpose().map_err(Internal::from)?.unwrap_or_default())
    }

    /// What must hold of a bot, new or changed.
    fn check_bot(&self, bot: &BotView, component: &Component) -> Result<(), BotError> {
        let mut checks = Checks::default();
        let name_holds = (1..=63).contains(&bot.name.len())
            && bot
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !bot.name.starts_with('-')
            && !bot.name.ends_with('-');
        checks.require(
            name_holds,
            "name",
            "must have 1 to 63 lower-case letters, digits and hyphens, no hyphen first or last",
        );
        checks.text("description", &bot.description, 0, 2000);
        let config_bytes: usize = bot.config.iter().map(|(key, value)| key.len() + value.len()).sum();
        checks.require(
            bot.config.len() <= 100 && config_bytes <= 32 << 10,
            "config",
            "must have at most 100 entries and 32 KiB in all",
        );
        checks.require(bot.config.keys().all(|key| !key.is_empty()), "config", "keys must not be empty");
        if let Some(kv) = &bot.grants.kv {
            checks.require(
                (1..=64 << 20).contains(&kv.quota_bytes),
                "grants.kv.quota_bytes",
                "must be 1 to 67108864 bytes (64 MiB)",
            );
            checks.require(
                bot.kind == ComponentKind::Bot,
                "grants.kv",
                "an oracle judges without a key-value store: it must give the same verdict every time",
            );
        }
        if let Err(error) = bot.limits.validate(self.runtime.maximum()) {
            checks.require(false, &format!("limits.{}", error.field()), error.to_string());
        }
        checks.done()?;
        let missing: Vec<String> =
            component.capabilities.iter().filter(|needed| !granted(&bot.grants, needed)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(BotError::GrantMissing(missing)) }
    }
}

/// Whether a component may be deployed that can use this. `log` and `config` reach nothing but the bot's own. What
/// belongs to WASI, such as `http`, is imported by standard toolchains whether it is used or not: it is refused at the
/// call.
fn granted(grants: &Grants, capability: &str) -> bool {
    match capability {
        "log" | "config" | "http" => true,
        "kv" => grants.kv.is_some(),
        _ => false,
    }
}

async fn own_bot(
    session: &mut ringfence_store::Session,
    caller: &Caller,
    id: &BotId,
) -> Result<BotView, BotError> {
    let bot = bots::get(session, id).await?.filter(|bot| bot.org_id == *caller.org());
    from_row(bot.ok_or(BotError::NotFound)?)
}

async fn own_invocation(
    session: &mut ringfence_store::Session,
    caller: &Caller,
    bot: &BotId,
    id: &InvocationId,
) -> Result<invocations::Invocation, BotError> {
    own_bot(session, caller, bot).await?;
    let invocation = invocations::get(session, id).await?.filter(|invocation| invocation.bot_id == *bot);
    invocation.ok_or(BotError::NoSuchInvocation)
}

/// Whether a call is about a submission that has not passed.
async fn sealed(
    session: &mut ringfence_store::Session,
    call: &invocations::Invocation,
) -> Result<bool, BotError> {
    let Some(submission) = &call.submission_id else { return Ok(false) };
    Ok(submissions::status(session, submission).await? != Some(SubmissionStatus::Passed))
}

async fn open_or_sealed(
    session: &mut ringfence_store::Session,
    call: invocations::Invocation,
) -> Result<InvocationView, BotError> {
    let sealed = sealed(session, &call).await?;
    let open = InvocationView::from(call);
    if !sealed {
        return Ok(open);
    }
    Ok(InvocationView {
        sealed,
        outcome: None,
        detail: None,
        input_digest: None,
        output_digest: None,
        usage: None,
        ..open
    })
}

fn to_row(caller: &Caller, view: &BotView) -> Result<Bot, Internal> {
    Ok(Bot {
        id: view.bot_id.clone(),
        org_id: caller.org().clone(),
        name: view.name.clone(),
        description: view.description.clone(),
        kind: view.kind,
        version: view.version,
        component_digest: view.component,
        config: view.config.clone(),
        grants: serde_json::to_value(&view.grants)?,
        limits: serde_json::to_value(&view.limits)?,
        status: view.status,
        created_at: view.created_at,
        updated_at: view.updated_at,
    })
}

fn from_row(bot: Bot) -> Result<BotView, BotError> {
    Ok(BotView {
        bot_id: bot.id,
        name: bot.name,
        description: bot.description,
        kind: bot.kind,
        version: bot.version,
        component: bot.component_digest,
        config: bot.config,
        grants: serde_json::from_value(bot.grants).map_err(Internal::from)?,
        limits: serde_json::from_value(bot.limits).map_err(Internal::from)?,
        status: bot.status,
        created_at: bot.created_at,
        updated_at: bot.updated_at,
    })
}

pub(crate) fn usage_row(usage: &Usage) -> invocations::Usage {
    invocations::Usage {
        fuel: usage.fuel,
        peak_memory_bytes: usage.peak_memory_bytes,
        wall_us: usage.wall_us,
        cpu_us: usage.cpu_us,
        host_calls: usage.host_calls,
        log_bytes: usage.log_bytes,
        input_bytes: usage.input_bytes,
        output_bytes: usage.output_bytes,
    }
}

pub(crate) fn lines_row(lines: &[LogLine]) -> Result<serde_json::Value, Internal> {
    let lines: Vec<LogLineView> = lines
        .iter()
        .map(|line| LogLineView {
            at_us: line.at_us,
            stream: line.stream.as_str().to_owned(),
            level: line.level.as_str().to_owned(),
            message: line.message.clone(),
            fields: line.fields.iter().cloned().collect(),
        })
        .collect();
    Ok(serde_json::to_value(lines)?)
}

impl From<invocations::Usage> for UsageView {
    fn from(usage: invocations::Usage) -> Self {
        Self {
            fuel: usage.fuel,
            peak_memory_bytes: usage.peak_memory_bytes,
            wall_us: usage.wall_us,
            cpu_us: usage.cpu_us,
            host_calls: usage.host_calls,
            log_bytes: usage.log_bytes,
            input_bytes: usage.input_bytes,
            output_bytes: usage.output_bytes,
        }
    }
}

impl From<invocations::Invocation> for InvocationView {
    fn from(row: invocations::Invocation) -> Self {
        Self {
            invocation_id: row.id,
            bot_id: row.bot_id,
            bot_version: row.bot_version,
            component: row.component_digest,
            outcome: Some(row.outcome),
            sealed: false,
            detail: row.detail,
            input_digest: Some(row.input_digest),
            output_digest: row.output_digest,
            engine: row.engine,
            usage: Some(row.usage.into()),
            started_at: row.started_at,
        }
    }
}
