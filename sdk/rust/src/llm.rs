//! Language models, through the host.
//!
//! A component that uses them can only be deployed with the grant `llm`, which names the models and how many tokens one
//! call may take. The host keeps how many tokens were used, and neither what was asked nor what was answered. Oracles have
//! none.
//!
//! ```
//! # use ringfence::testing::Host;
//! use ringfence::llm::Request;
//!
//! # let host = Host::new().with_llm_answer("A greeting.");
//! let answer = Request::new("small").system("Say in three words what this is.").user("Hello!").complete()?;
//! assert_eq!(answer.content, "A greeting.");
//! # Ok::<(), ringfence::llm::Error>(())
//! ```

use std::fmt;

use crate::{Failure, host};

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever instructs the model.
    System,
    /// Whoever asks it.
    User,
    /// The model, before.
    Assistant,
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// One of the models that were granted.
    pub model: String,
    /// What was said so far.
    pub messages: Vec<(Role, String)>,
    /// The most tokens to answer with; what is left of the grant if there is none.
    pub max_tokens: Option<u32>,
    /// 0 (always the likeliest) to 2; the endpoint's own if there is none.
    pub temperature: Option<f32>,
    /// Whether the answer has to be a JSON text.
    pub json: bool,
}

impl Request {
    /// A request of this model, nothing said yet.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), messages: Vec::new(), max_tokens: None, temperature: None, json: false }
    }

    fn said(mut self, role: Role, content: impl Into<String>) -> Self {
        self.messages.push((role, content.into()));
        self
    }

    /// Adds an instruction.
    pub fn system(self, content: impl Into<String>) -> Self {
        self.said(Role::System, content)
    }

    /// Adds what is asked.
    pub fn user(self, content: impl Into<String>) -> Self {
        self.said(Role::User, content)
    }

    /// Adds what the model said before.
    pub fn assistant(self, content: impl Into<String>) -> Self {
        self.said(Role::Assistant, content)
    }

    /// Bounds the answer.
    pub fn max_tokens(self, max_tokens: u32) -> Self {
        Self { max_tokens: Some(max_tokens), ..self }
    }

    /// Sets how freely the model chooses.
    pub fn temperature(self, temperature: f32) -> Self {
        Self { temperature: Some(temperature), ..self }
    }

    /// Asks for a JSON text.
    pub fn json(self) -> Self {
        Self { json: true, ..self }
    }

    /// Has the model answer.
    pub fn complete(&self) -> Result<Response, Error> {
        host::llm_complete(self)
    }
}

/// Why an answer ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// It came to the most tokens that it could use.
    Length,
    /// Something else, such as a filter of the endpoint's.
    Other,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The text.
    pub content: String,
    /// Why it ends there.
    pub finish_reason: FinishReason,
    /// The model that answered, in the endpoint's words.
    pub model: String,
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Whether the host has estimated both, because the endpoint did not say.
    pub estimated: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The bot was not granted this model.
    NotGranted(String),
    /// The request is not one that can be made.
    Invalid(String),
    /// The tokens of this call are used up.
    Limit(String),
    /// The endpoint did not answer, or not as it should.
    Unavailable {
        /// What happened.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
}

impl Error {
    /// The code of the [`Failure`] that this becomes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotGranted(_) => "llm_not_granted",
            Self::Invalid(_) => "llm_invalid",
            Self::Limit(_) => "llm_limit",
            Self::Unavailable { .. } => "llm_unavailable",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { retryable: true, .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGranted(message)
            | Self::Invalid(message)
            | Self::Limit(message)
            | Self::Unavailable { message, .. } => formatter.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
