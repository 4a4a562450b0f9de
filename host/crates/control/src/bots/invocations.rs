//! Calls to bots, what they used and what they logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringfence_model::{BotId, InvocationId, Sha256, SubmissionStatus, Timestamp};
use ringfence_runtime::{BotCall, CallError, LogLine, Usage};
use ringfence_store::records::Record;
use ringfence_store::{Session, invocations, submissions};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Deployed;
use super::logs::{LogFilter, kept_lines};
use crate::error::Checks;
use crate::policy::{Action, Resource};
use crate::{BotError, Caller, Control, Internal, Page};

/// When to try again while the database does not keep up with recording calls.
const RECORDER_RETRY: Duration = Duration::from_secs(1);

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
    /// Bytes sent in outbound requests.
    pub egress_sent_bytes: u64,
    /// Bytes received in the answers to them.
    pub egress_received_bytes: u64,
    /// Tokens that language models were given.
    pub llm_input_tokens: u64,
    /// Tokens that language models answered with.
    pub llm_output_tokens: u64,
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

impl Control {
    /// Calls a bot once. Whatever the guest does, the answer says how it ended and what it used. It waits until the call
    /// is written down only if that is to be `durable`: else a crash of the host in the moments after it may lose the
    /// record of the call, not what the call has done. When `cancelled` is ready the guest is ended; that is recorded too.
    ///
    /// # Errors
    /// [`BotError::Cancelled`] if the guest had not begun by then; [`BotError::Busy`] if no instance becomes free in time, or the database does not keep up with recording calls.
    pub async fn invoke_bot(
        &self,
        caller: &Caller,
        id: &BotId,
        input: &RawValue,
        durable: bool,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<InvokedBot, BotError> {
        let bot = self.deployed(id).await?.filter(|bot| bot.row.org_id == *caller.org());
        let bot = bot.ok_or(BotError::NotFound)?;
        self.permit(caller, Action::BotsInvoke, Resource::Bot(&bot.row)).await?;
        self.call(&bot, input, durable, cancelled).await
    }

    /// Calls a bot for its own org.
    pub(crate) async fn call(
        &self,
        bot: &Deployed,
        input: &RawValue,
        durable: bool,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<InvokedBot, BotError> {
        bot.check()?;
        let most = bot.limits.instances.min(self.runtime.maximum().instances);
        let _instance = self.running.begin(&bot.row.id, most).ok_or(BotError::TooManyInstances(most))?;
        let place =
            self.recorder.place().await.map_err(|_| BotError::Busy { retry_after: RECORDER_RETRY })?;
        let capabilities = self.with_secrets(bot).await?;
        let invocation_id = InvocationId::new(&*self.clock, &*self.rng);
        let started_at = self.clock.now();
        let followed = self.live.begin(&bot.row.id, &invocation_id, started_at);
        let call = BotCall {
            digest: bot.row.component_digest,
            invocation_id: invocation_id.to_string(),
            input: input.get().to_owned(),
            limits: bot.limits.clone(),
            capabilities,
            tenant: Arc::clone(&bot.tenant),
            logs: followed.options(bot.min_level),
        };
        let called = self.runtime.call_bot_until(call, cancelled).await.map_err(|error| match error {
            CallError::Busy { retry_after_ms } => {
                BotError::Busy { retry_after: Duration::from_millis(retry_after_ms) }
            }
            CallError::Cancelled => BotError::Cancelled,
            other => BotError::Internal(Internal::Sandbox(other.to_string())),
        })?;

        let output = called.output.map(RawValue::from_string).transpose().map_err(Internal::from)?;
        let failure = called.failure;
        let call = invocations::Invocation {
            id: invocation_id,
            org_id: bot.row.org_id.clone(),
            bot_id: bot.row.id.clone(),
            bot_version: bot.row.version,
            component_digest: bot.row.component_digest,
            submission_id: None,
            outcome: called.outcome.as_str().to_owned(),
            detail: failure.as_ref().map(|failure| failure.message.clone()).or(called.detail),
            input_digest: Sha256::of(input.get().as_bytes()),
            output_digest: output.as_ref().map(|output| Sha256::of(output.get().as_bytes())),
            limits: Arc::clone(&bot.limits_json),
            engine: Arc::clone(&bot.engine),
            usage: usage_row(&called.usage),
            started_at,
        };
        let invocation = InvocationView::from(call.clone());
        self.recorder.record(place, Record { call, lines: lines_text(called.logs)? }, durable).await;
        followed.end(Some(called.outcome.as_str()));
        Ok(InvokedBot { invocation, output, failure_code: failure.map(|failure| failure.code) })
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
        self.own_bot(caller, id, Action::InvocationsRead).await?;
        self.recorder.caught_up().await;
        let mut reader = self.store.reader().await?;
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
        self.own_bot(caller, bot, Action::InvocationsRead).await?;
        self.recorder.caught_up().await;
        let mut reader = self.store.reader().await?;
        let call = invocation_of(&mut reader, bot, id).await?;
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
        filter: &LogFilter,
    ) -> Result<Vec<LogLineView>, BotError> {
        self.own_bot(caller, bot, Action::InvocationsRead).await?;
        let mut checks = Checks::default();
        filter.check(&mut checks);
        checks.done()?;
        self.recorder.caught_up().await;
        let mut reader = self.store.reader().await?;
        let invocation = invocation_of(&mut reader, bot, id).await?;
        if sealed(&mut reader, &invocation).await? {
            return Err(BotError::Sealed);
        }
        let mut lines = kept_lines(&mut reader, id).await?;
        lines.retain(|line| filter.admits(line));
        Ok(lines)
    }
}

async fn invocation_of(
    session: &mut Session,
    bot: &BotId,
    id: &InvocationId,
) -> Result<invocations::Invocation, BotError> {
    let invocation = invocations::get(session, id).await?.filter(|invocation| invocation.bot_id == *bot);
    invocation.ok_or(BotError::NoSuchInvocation)
}

/// Whether a call is about a submission that has not passed.
async fn sealed(session: &mut Session, call: &invocations::Invocation) -> Result<bool, BotError> {
    let Some(submission) = &call.submission_id else { return Ok(false) };
    Ok(submissions::status(session, submission).await? != Some(SubmissionStatus::Passed))
}

async fn open_or_sealed(
    session: &mut Session,
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
        egress_sent_bytes: usage.egress_sent_bytes,
        egress_received_bytes: usage.egress_received_bytes,
        llm_input_tokens: usage.llm_input_tokens,
        llm_output_tokens: usage.llm_output_tokens,
    }
}

/// The lines as they are kept, a JSON array, if there are any.
pub(crate) fn lines_text(lines: Vec<LogLine>) -> Result<Option<String>, Internal> {
    if lines.is_empty() {
        return Ok(None);
    }
    let lines: Vec<LogLineView> = lines.into_iter().map(LogLineView::from).collect();
    Ok(Some(serde_json::to_string(&lines)?))
}

impl From<LogLine> for LogLineView {
    fn from(line: LogLine) -> Self {
        Self {
            at_us: line.at_us,
            stream: line.stream.as_str().to_owned(),
            level: line.level.as_str().to_owned(),
            message: line.message,
            fields: line.fields.into_iter().collect(),
        }
    }
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
            egress_sent_bytes: usage.egress_sent_bytes,
            egress_received_bytes: usage.egress_received_bytes,
            llm_input_tokens: usage.llm_input_tokens,
            llm_output_tokens: usage.llm_output_tokens,
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
            engine: row.engine.to_string(),
            usage: Some(row.usage.into()),
            started_at: row.started_at,
        }
    }
}
