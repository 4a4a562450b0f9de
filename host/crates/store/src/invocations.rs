//! Calls into the sandbox, what they used and what they logged.

use std::sync::Arc;

use ringfence_model::{BotId, InvocationId, OrgId, Sha256, SubmissionId, Timestamp};
use serde_json::Value;

use crate::session::{Row, args};
use crate::statements::statements;
use crate::{Page, Session, StoreError, count};

/// What a call used. Units as in the columns of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Units of work.
    pub fuel: u64,
    /// The most memory at any time.
    pub peak_memory_bytes: u64,
    /// From start to end.
    pub wall_us: u64,
    /// Computing.
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

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// The org of the bot.
    pub org_id: OrgId,
    /// The bot.
    pub bot_id: BotId,
    /// Its version then.
    pub bot_version: u32,
    /// What ran.
    pub component_digest: Sha256,
    /// What it judged, if it was an oracle's.
    pub submission_id: Option<SubmissionId>,
    /// How it ended.
    pub outcome: String,
    /// How it ended, in a sentence.
    pub detail: Option<String>,
    /// The digest of what it was given.
    pub input_digest: Sha256,
    /// The digest of what it returned.
    pub output_digest: Option<Sha256>,
    /// The limits that it ran under, a JSON object.
    pub limits: Arc<str>,
    /// The engine that ran it.
    pub engine: Arc<str>,
    /// What it used.
    pub usage: Usage,
    /// When it began.
    pub started_at: Timestamp,
}

macro_rules! columns {
    () => {
        "id, org_id, bot_id, bot_version, component_digest, submission_id, outcome, detail, input_digest, output_digest,
        limits, engine, started_at, peak_memory_bytes, fuel, wall_us, cpu_us, host_calls, log_bytes, input_bytes,
        output_bytes, egress_sent_bytes, egress_received_bytes, llm_input_tokens, llm_output_tokens"
    };
}
/// The columns of a call.
pub(crate) const COLUMNS: &str = columns!();

statements! {
    GET = concat!("SELECT ", columns!(), " FROM invocations WHERE id = $1");
    LOGS = "SELECT lines FROM invocation_logs WHERE invocation_id = $1";
    LIST = concat!("SELECT ", columns!(), " FROM invocations WHERE bot_id = $1
        ORDER BY started_at DESC, id DESC LIMIT $2 OFFSET $3");
    COUNT = "SELECT COUNT(*) AS n FROM (SELECT 1 FROM invocations WHERE bot_id = $1 LIMIT 1000) AS counted";
}

/// A call.
///
/// # Errors
/// Those of the database.
pub async fn get(s: &mut Session, id: &InvocationId) -> Result<Option<Invocation>, StoreError> {
    s.optional(GET, args![id], read).await
}

/// The lines of a call: a JSON array, or `None` if it wrote nothing.
///
/// # Errors
/// Those of the database.
pub async fn logs(s: &mut Session, id: &InvocationId) -> Result<Option<Value>, StoreError> {
    s.optional(LOGS, args![id], |row| row.json("lines")).await
}

/// A bot's calls, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    s: &mut Session,
    bot: &BotId,
    limit: u32,
    offset: u32,
) -> Result<Page<Invocation>, StoreError> {
    let total = count(s, COUNT, args![bot]).await?;
    Ok(Page { items: s.all(LIST, args![bot, limit, offset], read).await?, total })
}

fn read(row: &Row) -> Result<Invocation, StoreError> {
    Ok(Invocation {
        id: row.parse("id")?,
        org_id: row.parse("org_id")?,
        bot_id: row.parse("bot_id")?,
        bot_version: row.small("bot_version")?,
        component_digest: row.parse("component_digest")?,
        submission_id: row.opt_parse("submission_id")?,
        outcome: row.text("outcome")?,
        detail: row.opt_text("detail")?,
        input_digest: row.parse("input_digest")?,
        output_digest: row.opt_parse("output_digest")?,
        limits: row.text("limits")?.into(),
        engine: row.text("engine")?.into(),
        usage: Usage {
            fuel: row.count("fuel")?,
            peak_memory_bytes: row.count("peak_memory_bytes")?,
            wall_us: row.count("wall_us")?,
            cpu_us: row.count("cpu_us")?,
            host_calls: row.count("host_calls")?,
            log_bytes: row.count("log_bytes")?,
            input_bytes: row.count("input_bytes")?,
            output_bytes: row.count("output_bytes")?,
            egress_sent_bytes: row.count("egress_sent_bytes")?,
            egress_received_bytes: row.count("egress_received_bytes")?,
            llm_input_tokens: row.count("llm_input_tokens")?,
            llm_output_tokens: row.count("llm_output_tokens")?,
        },
        started_at: row.time("started_at")?,
    })
}
