//! Language models behind an endpoint that speaks OpenAI's chat completions.
//!
//! What is asked and what is answered is passed on and dropped: none of it is logged or kept, and no text of the
//! endpoint's own errors is repeated, for it may hold either.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Uri, header};
use ringfence_model::OrgId;
use ringfence_outbound::{AllowedHosts, Limits, Outbound, OutboundError, Requester, json_request, parse_url};
use ringfence_runtime::{Completed, Completion, LanguageModel, LlmError};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long an answer may take, from the connection to its last byte.
pub const LLM_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 4 << 20;
/// The most characters that are taken over of a name that the endpoint gives.
const MAX_NAME_CHARS: usize = 128;

/// Where language models are, as the operator says.
#[derive(Debug, Clone)]
pub struct LlmSettings {
    /// The endpoint, up to `/chat/completions`.
    pub base_url: String,
    /// What it wants as a bearer token.
    pub api_key: Option<SecretString>,
    /// The models that bots may be granted.
    pub models: BTreeSet<String>,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLlmSettings {
    /// The URL is none that could be asked.
    #[error("the base URL of the language models cannot be used: {0}")]
    Url(String),
    /// The key cannot stand in a header.
    #[error("the API key of the language models holds characters that no header can")]
    Key,
    /// There is none to ask.
    #[error("no model is allowed; name those that bots may be granted")]
    NoModels,
}

/// The operator's endpoint. Clones share it.
#[derive(Clone)]
pub struct LlmEndpoint(Arc<Endpoint>);

struct Endpoint {
    outbound: Outbound,
    url: Uri,
    authorization: Option<HeaderValue>,
    models: BTreeSet<String>,
    /// The operator's own URL needs no grant; the policy for addresses holds for it as for any other.
    hosts: Arc<AllowedHosts>,
}

impl std::fmt::Debug for LlmEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LlmEndpoint").field("models", &self.0.models).finish_non_exhaustive()
    }
}

impl LlmEndpoint {
    /// The endpoint of these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BadLlmSettings`].
    pub fn new(outbound: Outbound, settings: &LlmSettings) -> Result<Self, BadLlmSettings> {
        let url = format!("{}/chat/completions", settings.base_url.trim_end_matches('/'));
        let url = parse_url(&url).map_err(|error| BadLlmSettings::Url(error.to_string()))?;
        if settings.models.is_empty() {
            return Err(BadLlmSettings::NoModels);
        }
        let authorization = settings.api_key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))?;
            value.set_sensitive(true);
            Ok::<_, header::InvalidHeaderValue>(value)
        });
        let authorization = authorization.transpose().map_err(|_| BadLlmSettings::Key)?;
        let (models, hosts) = (settings.models.clone(), Arc::new(AllowedHosts::every()));
        Ok(Self(Arc::new(Endpoint { outbound, url, authorization, models, hosts })))
    }
}

/// The language models of one bot; none, if the operator has none.
pub(crate) struct BotLlm {
    pub(crate) endpoint: Option<LlmEndpoint>,
    pub(crate) org: OrgId,
}

#[async_trait::async_trait]
impl LanguageModel for BotLlm {
    async fn complete(&self, request: Completion) -> Result<Completed, LlmError> {
        let Some(LlmEndpoint(endpoint)) = self.endpoint.as_ref() else {
            return Err(unavailable("this host has no language models", false));
        };
        if !endpoint.models.contains(&request.model) {
            return Err(unavailable("this host does not offer the model (any more)", false));
        }
        endpoint.complete(&self.org, &request).await
    }
}

impl Endpoint {
    async fn complete(&self, org: &OrgId, asked: &Completion) -> Result<Completed, LlmError> {
        let mut request = json_request(Method::POST, self.url.clone(), &body(asked)).map_err(failed)?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let limits = Limits {
            response_body_bytes: MAX_ANSWER_BYTES,
            first_byte_timeout: LLM_TIMEOUT,
            idle_timeout: LLM_TIMEOUT,
            total_timeout: LLM_TIMEOUT,
            ..Limits::default()
        };
        let requester = Requester {
            org: org.clone(),
            hosts: Arc::clone(&self.hosts),
            limits: Some(limits),
            traffic: Arc::default(),
        };
        let response = self.outbound.send(&requester, request).await.map_err(failed)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(refused(status));
        }
        let bytes = response.into_body().bytes(MAX_ANSWER_BYTES).await.map_err(failed)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| not_as_it_should())?;
        completed(answer, &asked.model).ok_or_else(not_as_it_should)
    }
}

fn body(asked: &Completion) -> Value {
    let message = |(role, content): &(&str, String)| json!({ "role": role, "content": content });
    let messages: Vec<_> = asked.messages.iter().map(message).collect();
    let mut body = json!({
        "model": asked.model,
        "messages": messages,
        "max_tokens": asked.max_tokens,
        "stream": false,
    });
    let optional = [
        ("temperature", asked.temperature.map(|temperature| json!(temperature))),
        ("response_format", asked.json.then(|| json!({ "type": "json_object" }))),
    ];
    if let Some(fields) = body.as_object_mut() {
        fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    body
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    model: Option<String>,
    choices: Vec<Choice>,
    /// Anything: what is no usage is none.
    #[serde(default)]
    usage: Value,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

fn completed(answer: Answer, asked_model: &str) -> Option<Completed> {
    let choice = answer.choices.into_iter().next()?;
    let count = |name| answer.usage.get(name).and_then(Value::as_u64);
    let model = answer.model.unwrap_or_else(|| asked_model.to_owned());
    Some(Completed {
        content: choice.message.content?,
        finish_reason: choice.finish_reason.unwrap_or_default(),
        model: model.chars().take(MAX_NAME_CHARS).collect(),
        tokens: count("prompt_tokens").zip(count("completion_tokens")),
    })
}

fn unavailable(message: &str, retryable: bool) -> LlmError {
    LlmError::Unavailable { message: message.to_owned(), retryable }
}

fn not_as_it_should() -> LlmError {
    tracing::warn!("the endpoint of the language models did not answer as it should");
    unavailable("the language model's endpoint did not answer as it should", false)
}

/// The operator reads in the log what is the matter; the guest, whether to try again.
fn refused(status: StatusCode) -> LlmError {
    match status.as_u16() {
        400 | 413 | 422 => LlmError::Invalid(format!(
            "the language model's endpoint did not take the request (status {status})"
        )),
        code @ (408 | 429 | 500..) => {
            tracing::warn!(code, "the endpoint of the language models is busy or fails");
            unavailable("the language model's endpoint is busy or fails; try again later", true)
        }
        code => {
            tracing::warn!(code, "the endpoint of the language models refuses this host");
            unavailable("the language model's endpoint refuses this host", false)
        }
    }
}

fn failed(error: OutboundError) -> LlmError {
    tracing::warn!(error = &error as &dyn std::error::Error, "the language models cannot be asked");
    match error {
        OutboundError::TooMany { .. } => {
            unavailable("too many requests are under way; try again in a moment", true)
        }
        OutboundError::TimedOut { .. } => unavailable("the language model did not answer in time", true),
        OutboundError::ResolveFailed { .. }
        | OutboundError::ConnectFailed { .. }
        | OutboundError::ConnectionLost { .. } => {
            unavailable("the language model's endpoint cannot be reached; try again later", true)
        }
        OutboundError::RequestBodyTooLarge { .. } => {
            LlmError::Invalid("the request is longer than this host sends".to_owned())
        }
        OutboundError::ResponseTooLarge { .. } => {
            unavailable("the language model's answer is longer than this host reads", false)
        }
        _ => unavailable("the language model's endpoint cannot be asked from this host", false),
    }
}
