use std::collections::{BTreeMap, BTreeSet};

use ringfence_model::{AgentId, BotId, BotStatus, Sha256, Timestamp};
use ringfence_outbound::{AllowedHosts, HostPattern};
use ringfence_runtime::{Level, Limits};
use ringfence_store::StoreError;
use ringfence_store::components::ComponentKind;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::directories::{self, DirectoryGrant};
use super::secrets::{MAX_SECRETS, NAMES, is_name};
use crate::error::rules::{PLAIN, is_plain, require, text, within};
use crate::{Denied, IdempotencyError, Internal, Invalid};

/// What a bot may do beyond computing. Nothing, unless it is granted here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    /// A key-value store of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub kv: Option<KvGrant>,
    /// Requests over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub http: Option<HttpGrant>,
    /// The names of those of its secrets that the guest may read, up to 50.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[garde(custom(secret_names))]
    #[schema(max_items = 50)]
    pub secrets: BTreeSet<String>,
    /// Language models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub llm: Option<LlmGrant>,
    /// Directories, up to 8, none inside another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[garde(dive, custom(directories::apart))]
    #[schema(max_items = 8)]
    pub directories: Vec<DirectoryGrant>,
    /// Work on the market, by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub market: Option<MarketGrant>,
}

/// Work on the market as an agent: the bot is told of jobs when they are funded, claims, works, and hands in what it
/// returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct MarketGrant {
    /// As whom it works, and who is paid: an agent of the bot's org. An agent grants this for itself alone; others need to
    /// be permitted to make keys for the agent.
    #[garde(skip)]
    #[schema(value_type = String)]
    pub agent_id: AgentId,
    /// The kinds of results of the jobs that it works on, 1 to 10. An agent has one bot for each.
    #[garde(custom(kinds_of_results))]
    #[schema(example = json!(["json"]), min_items = 1, max_items = 10)]
    pub artifact_types: BTreeSet<String>,
    /// How often it is called for jobs in a day (UTC), 1 to 10,000.
    #[garde(custom(within(1..=10_000, "must be 1 to 10000 attempts")))]
    #[schema(minimum = 1, maximum = 10_000)]
    pub max_attempts_per_day: u32,
    /// What these calls may take together in a day (UTC), up to 10¹⁵ units of fuel, and at least `limits.fuel`: that much is
    /// set aside before a call, and what is left of it given back after.
    #[garde(custom(within(1..=1_000_000_000_000_000, "must be 1 to 1000000000000000 units of fuel")))]
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_u64)]
    pub max_fuel_per_day: u64,
}

fn kinds_of_results(types: &BTreeSet<String>, (): &()) -> garde::Result {
    require((1..=10).contains(&types.len()), "must have 1 to 10 types")?;
    types.iter().try_for_each(|kind| crate::jobs::artifact(kind, &()))
}

/// Language models, as far as this host offers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct LlmGrant {
    /// The models that the guest may ask, 1 to 20.
    #[garde(custom(model_names))]
    #[schema(min_items = 1, max_items = 20)]
    pub models: BTreeSet<String>,
    /// What all its requests in one call may take, input and output together, 1 to 1,000,000 tokens.
    #[garde(custom(within(1..=1_000_000, "must be 1 to 1000000 tokens")))]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub max_tokens_per_call: u64,
}

fn model_names(names: &BTreeSet<String>, (): &()) -> garde::Result {
    require((1..=20).contains(&names.len()), "must have 1 to 20 names")?;
    let plain =
        |name: &String| (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    require(names.iter().all(plain), "each must have 1 to 128 visible ASCII characters")
}

fn secret_names(names: &BTreeSet<String>, (): &()) -> garde::Result {
    require(names.len() <= MAX_SECRETS, "must have at most 50 names")?;
    require(names.iter().all(|name| is_name(name)), format!("each {NAMES}"))
}

/// A grant that a component needs and a bot does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MissingGrant {
    /// The capability, as it stands in a component's `capabilities` and in a bot's `grants`.
    #[schema(example = "kv")]
    pub capability: String,
    /// What could be put into `grants` to give it.
    #[schema(value_type = Object, example = json!({ "kv": { "quota_bytes": 1_048_576 } }))]
    pub example: serde_json::Value,
}

impl Grants {
    /// What a component that can use these capabilities could not be deployed without.
    pub(crate) fn missing_for(&self, capabilities: &[String]) -> Vec<MissingGrant> {
        let missing = capabilities.iter().filter_map(|capability| {
            let (granted, example) = match capability.as_str() {
                // They reach nothing but the bot's own. What belongs to WASI, such as `http`, is imported by standard
                // toolchains whether it is used or not: it is refused at the call.
                "log" | "config" | "http" => return None,
                "kv" => (self.kv.is_some(), json!({ "kv": { "quota_bytes": 1 << 20 } })),
                "llm" => {
                    let example = json!({ "llm": { "models": ["name"], "max_tokens_per_call": 10_000 } });
                    (self.llm.is_some(), example)
                }
                "secrets" => (!self.secrets.is_empty(), json!({ "secrets": ["name"] })),
                _ => (false, json!({})),
            };
            (!granted).then(|| MissingGrant { capability: capability.clone(), example })
        });
        missing.collect()
    }
}

/// A key-value store of the bot's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct KvGrant {
    /// What all entries together may take, 1 byte to 64 MiB: their keys, their values, and 64 bytes for each entry.
    #[garde(custom(within(1..=64 << 20, "must be 1 to 67108864 bytes (64 MiB)")))]
    #[schema(minimum = 1, maximum = 67_108_864)]
    pub quota_bytes: u64,
}

/// Requests over HTTP to these hosts. What the operator's network policy refuses is not opened by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct HttpGrant {
    /// 1 to 100 patterns: `api.example.com`, `*.example.com` (names below it), `https://example.com:8443` or `*`. Without a
    /// scheme both are meant, without a port the scheme's own; `:*` is every port.
    #[garde(custom(host_patterns))]
    #[schema(example = json!(["api.example.com"]), min_items = 1, max_items = 100)]
    pub hosts: Vec<String>,
}

impl HttpGrant {
    /// The hosts as the client knows them. They have been validated; what would not be a pattern grants nothing.
    pub(super) fn allowed(&self) -> AllowedHosts {
        AllowedHosts::new(self.hosts.iter().filter_map(|pattern| pattern.parse().ok()).collect())
    }
}

fn host_patterns(patterns: &[String], (): &()) -> garde::Result {
    require((1..=100).contains(&patterns.len()), "must be 1 to 100 patterns")?;
    require(patterns.iter().all(|pattern| pattern.len() <= 300), "patterns have at most 300 bytes")?;
    let wrong = patterns.iter().find_map(|pattern| pattern.parse::<HostPattern>().err());
    wrong.map_or(Ok(()), |error| require(false, error))
}

/// What becomes of the lines that calls write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct LogPolicy {
    /// For how many days they are kept, 1 to 3,650, if that is less than the host keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(range(min = 1, max = 3650)))]
    #[schema(minimum = 1, maximum = 3650)]
    pub keep_days: Option<u32>,
    /// Lines below this level count against the limit and are not kept: `trace`, `debug`, `info`, `warn` or `error`. For
    /// bots alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    #[schema(value_type = Option<String>, example = "info")]
    pub min_level: Option<Level>,
}

/// A deployment.
#[derive(Debug, Clone, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewBot {
    /// Unique in the org: 1 to 63 lower-case letters, digits and hyphens.
    #[garde(custom(bot_name))]
    #[schema(
        example = "orders-report",
        min_length = 1,
        max_length = 63,
        pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    )]
    pub name: String,
    /// For people, up to 2,000 characters.
    #[serde(default)]
    #[garde(custom(bot_description))]
    #[schema(max_length = 2000)]
    pub description: String,
    /// The component that it runs; it must have been uploaded.
    #[garde(skip)]
    #[schema(value_type = String)]
    pub component: Sha256,
    /// What the guest reads through `config`: up to 100 entries, 32 KiB in all. No secrets: they can be read back.
    #[serde(default)]
    #[garde(custom(bot_config))]
    pub config: BTreeMap<String, String>,
    /// What it may do.
    #[serde(default)]
    #[garde(dive)]
    pub grants: Grants,
    /// What each call may use. What is absent has its default.
    #[serde(default)]
    #[garde(skip)]
    #[schema(value_type = Object, example = json!({"fuel": 1_000_000_000u64, "wall_time_ms": 10_000, "memory_bytes": 134_217_728}))]
    pub limits: Limits,
    /// What becomes of the lines that its calls write.
    #[serde(default)]
    #[garde(dive)]
    pub logs: LogPolicy,
}

/// Changes to a bot. What is absent stays; what is present replaces all of what was there.
#[derive(Debug, Clone, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct BotChanges {
    /// The new name.
    #[garde(inner(custom(bot_name)))]
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub name: Option<String>,
    /// The new description.
    #[garde(inner(custom(bot_description)))]
    #[schema(max_length = 2000)]
    pub description: Option<String>,
    /// The new component, of the same kind.
    #[garde(skip)]
    #[schema(value_type = Option<String>)]
    pub component: Option<Sha256>,
    /// The new configuration.
    #[garde(inner(custom(bot_config)))]
    pub config: Option<BTreeMap<String, String>>,
    /// The new grants.
    #[garde(dive)]
    pub grants: Option<Grants>,
    /// The new limits.
    #[garde(skip)]
    #[schema(value_type = Option<Object>)]
    pub limits: Option<Limits>,
    /// What becomes of the lines from now on; of those that are there, how long they stay.
    #[garde(dive)]
    pub logs: Option<LogPolicy>,
}

pub(super) fn bot_name(name: &str, (): &()) -> garde::Result {
    let holds = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    require(holds, "must have 1 to 63 lower-case letters, digits and hyphens, no hyphen first or last")
}

fn bot_description(description: &str, context: &()) -> garde::Result {
    text(0, 2000)(description, context)
}

fn bot_config(config: &BTreeMap<String, String>, (): &()) -> garde::Result {
    let bytes: usize = config.iter().map(|(key, value)| key.len() + value.len()).sum();
    require(config.len() <= 100 && bytes <= 32 << 10, "must have at most 100 entries and 32 KiB in all")?;
    require(!config.contains_key(""), "keys must not be empty")?;
    require(config.iter().all(|(key, value)| is_plain(key) && is_plain(value)), PLAIN)
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
    /// What becomes of the lines that its calls write.
    #[serde(default)]
    pub logs: LogPolicy,
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
    #[error("the component needs grants that it was not given")]
    GrantMissing(Vec<MissingGrant>),
    /// The bot has no secret of this name.
    #[error("there is no secret of this name")]
    NoSuchSecret,
    /// The bot has as many secrets as it can have.
    #[error("the bot has as many secrets as it can have")]
    TooManySecrets,
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
    /// The caller does not want the answer any more.
    #[error("the call was cancelled before it began")]
    Cancelled,
    /// An oracle's runs are not followed.
    #[error("an oracle cannot be followed")]
    NotFollowable,
    /// There is no place for one more follower.
    #[error("there are too many followers")]
    TooManyFollowers {
        /// On this host, and not of the caller's org.
        on_host: bool,
    },
    /// As many of its instances run as its limits allow.
    #[error("the bot has {0} instances running, which is its limit")]
    TooManyInstances(u64),
    /// All instances are busy.
    #[error("all instances are busy")]
    Busy {
        /// When to try again.
        retry_after: std::time::Duration,
    },
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

impl From<StoreError> for BotError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::NameTaken,
            _ => Self::Internal(error.into()),
        }
    }
}
