//! `ringfence:guest/llm`: language models, through the host.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::llm::{
    self, Error, FinishReason, Host, Message, Request, Response, Role, Unavailability,
};
use crate::state::State;

/// The most messages of one request.
pub(crate) const MAX_MESSAGES: usize = 256;

/// What is taken for a token where the endpoint reports none, in bytes: fewer than most texts have, so that the estimate
/// is rather too high.
const BYTES_PER_TOKEN: usize = 3;
/// What each message is taken to cost besides its text, in tokens.
const MESSAGE_TOKENS: u64 = 4;

/// What a bot was granted of language models.
#[derive(Clone)]
pub struct Llm {
    /// Where requests go, opened for this bot.
    pub endpoint: Arc<dyn LanguageModel>,
    /// The models that it may name.
    pub models: BTreeSet<String>,
    /// What all requests of one call of the bot may take, input and output together.
    pub max_tokens_per_call: u64,
}

/// What answers the requests of one bot. Neither the request nor the answer may be kept or logged.
#[async_trait]
pub trait LanguageModel: Send + Sync {
    /// Has a model answer. The request has been checked against the grant.
    async fn complete(&self, request: Completion) -> Result<Completed, LlmError>;
}

/// A request, as it goes to the endpoint.
#[derive(Clone, PartialEq)]
pub struct Completion {
    /// The model.
    pub model: String,
    /// What was said so far: who (`system`, `user`, `assistant`) and what.
    pub messages: Vec<(&'static str, String)>,
    /// The most tokens to answer with.
    pub max_tokens: u32,
    /// 0 to 2; the endpoint's own if there is none.
    pub temperature: Option<f32>,
    /// Whether the answer has to be JSON.
    pub json: bool,
}

/// An answer.
#[derive(Clone, PartialEq)]
pub struct Completed {
    /// The text.
    pub content: String,
    /// The endpoint's word for why it ended there: `stop`, `length`, `content_filter`, …
    pub finish_reason: String,
    /// The model that answered.
    pub model: String,
    /// Tokens of the request and of the answer, if the endpoint said both.
    pub tokens: Option<(u64, u64)>,
}

/// Why there is no answer. The guest reads the text: keep out of it what is internal, and what the guest said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The endpoint does not take the request.
    #[error("{0}")]
    Invalid(String),
    /// It did not answer, or not as it should.
    #[error("{message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
}

/// What language models took in one call of a bot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    llm::add_to_linker::<_, HasSelf<State>>(linker, State::called)
}

impl Host for State {
    async fn complete(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        Ok(self.ask(request).await)
    }
}

impl State {
    async fn ask(&mut self, request: Request) -> Result<Response, Error> {
        let Some(llm) = self.capabilities.llm.clone() else {
            return Err(Error::NotGranted("no language model was granted to this bot".to_owned()));
        };
        let input = check(&request, &llm)?;
        let used = self.llm.input.saturating_add(self.llm.output).saturating_add(input);
        let left = llm.max_tokens_per_call.saturating_sub(used);
        if left == 0 {
            return Err(Error::Limit(format!(
                "one call may take {} tokens; {} are used, and this request would take about {input}",
                llm.max_tokens_per_call,
                used - input
            )));
        }
        let max_tokens = u32::try_from(left).unwrap_or(u32::MAX).min(request.max_tokens.unwrap_or(u32::MAX));
        let before = self.llm;
        // If the call ends while it waits, the request was made all the same.
        self.llm.input = before.input.saturating_add(input);
        let answer = llm.endpoint.complete(completion(request, max_tokens)).await;
        self.llm = before;
        let answer = answer?;
        let (estimated, (input, output)) = match answer.tokens {
            // No text is made of no tokens.
            Some(tokens @ (1.., output)) if output > 0 || answer.content.is_empty() => (false, tokens),
            _ => (true, (input, estimate(&answer.content))),
        };
        // Whatever an endpoint says, the sums stay numbers.
        let (input, output) = (input.min(u32::MAX.into()), output.min(u32::MAX.into()));
        self.llm.input = self.llm.input.saturating_add(input);
        self.llm.output = self.llm.output.saturating_add(output);
        Ok(Response {
            content: answer.content,
            finish_reason: match answer.finish_reason.as_str() {
                "stop" => FinishReason::Stop,
                "length" => FinishReason::Length,
                _ => FinishReason::Other,
            },
            model: answer.model,
            input_tokens: input,
            output_tokens: output,
            estimated,
        })
    }
}

/// What the request will take of input at about, in tokens, if it may be made.
fn check(request: &Request, llm: &Llm) -> Result<u64, Error> {
    if !llm.models.contains(&request.model) {
        let shown: String = request.model.chars().take(128).collect();
        return Err(Error::NotGranted(format!("the model `{shown}` was not granted to this bot")));
    }
    let invalid = |message: String| Err(Error::Invalid(message));
    if !(1..=MAX_MESSAGES).contains(&request.messages.len()) {
        return invalid(format!(
            "a request has 1 to {MAX_MESSAGES} messages; this one has {}",
            request.messages.len()
        ));
    }
    if request.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return invalid("a temperature is 0 to 2".to_owned());
    }
    if request.max_tokens == Some(0) {
        return invalid("an answer has at least one token".to_owned());
    }
    let tokens = |message: &Message| MESSAGE_TOKENS + estimate(&message.content);
    Ok(request.messages.iter().map(tokens).sum())
}

fn estimate(text: &str) -> u64 {
    text.len().div_ceil(BYTES_PER_TOKEN) as u64
}

fn completion(request: Request, max_tokens: u32) -> Completion {
    let Request { model, messages, max_tokens: _, temperature, json } = request;
    let said = |Message { role, content }| match role {
        Role::System => ("system", content),
        Role::User => ("user", content),
        Role::Assistant => ("assistant", content),
    };
    Completion { model, messages: messages.into_iter().map(said).collect(), max_tokens, temperature, json }
}

impl From<LlmError> for Error {
    fn from(error: LlmError) -> Self {
        match error {
            LlmError::Invalid(message) => Self::Invalid(message),
            LlmError::Unavailable { message, retryable } => {
                Self::Unavailable(Unavailability { message, retryable })
            }
        }
    }
}
