//! A host in memory, for `cargo test`.
//!
//! ```
//! # use ringfence::{Failure, testing::Host};
//! #[ringfence::bot]
//! fn handle(name: String) -> Result<String, Failure> {
//!     ringfence::log::info!("greeting"; name = name);
//!     Ok(format!("{}, {name}!", ringfence::config::require("greeting")?))
//! }
//! # fn main() {
//!
//! let host = Host::new().with_config("greeting", "Hello");
//! assert_eq!(handle("Ada".into()).unwrap(), "Hello, Ada!");                       // the function itself
//! assert_eq!(host.call(handle, r#""Ada""#).unwrap(), "Hello, Ada!");              // over the JSON boundary
//! assert_eq!(host.call(handle, "[1]").unwrap_err().code, "bad_input");
//! assert_eq!(host.logs()[0].message, "greeting");
//! # }
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::http::{self, Request, Response};
use crate::llm;
use crate::log::Level;
use crate::{BotInput, Failure, Job, Submission, Verdict};

/// One line that a guest logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// Its message.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
}

/// What answers a guest's requests.
type Http = Box<dyn FnMut(&Request) -> Result<Response, http::Error>>;

#[derive(Default)]
struct State {
    logs: Vec<LogLine>,
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    llm_answers: VecDeque<String>,
    llm_requests: Vec<llm::Request>,
    kv: BTreeMap<String, Vec<u8>>,
    kv_max_bytes: Option<usize>,
    http: Option<Http>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// The host of this thread's guests. Making one starts afresh: no configuration, nothing stored,
/// nothing logged. Tests run in threads of their own, and so don't see each other's.
#[derive(Debug)]
pub struct Host {
    /// Bound to its thread.
    thread: PhantomData<*const ()>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host with nothing in it.
    pub fn new() -> Self {
        STATE.take();
        Self { thread: PhantomData }
    }

    /// Sets a configuration value.
    pub fn with_config(self, key: &str, value: &str) -> Self {
        STATE.with_borrow_mut(|state| state.config.insert(key.to_owned(), value.to_owned()));
        self
    }

    /// Grants a secret and sets its value.
    pub fn with_secret(self, name: &str, value: &str) -> Self {
        STATE.with_borrow_mut(|state| state.secrets.insert(name.to_owned(), value.to_owned()));
        self
    }

    /// What a language model answers next; several are given in their order. When there is none left, it is unavailable.
    pub fn with_llm_answer(self, content: &str) -> Self {
        STATE.with_borrow_mut(|state| state.llm_answers.push_back(content.to_owned()));
        self
    }

    /// What language models were asked so far.
    pub fn llm_requests(&self) -> Vec<llm::Request> {
        STATE.with_borrow(|state| state.llm_requests.clone())
    }

    /// Puts a value into the key-value store.
    pub fn with_kv(self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        STATE.with_borrow_mut(|state| state.kv.insert(key.to_owned(), value.into()));
        self
    }

    /// Lets the key-value store hold `bytes`: keys, values and 64 for each entry. Without this, it takes all.
    pub fn with_kv_max_bytes(self, bytes: usize) -> Self {
        STATE.with_borrow_mut(|state| state.kv_max_bytes = Some(bytes));
        self
    }

    /// Answers requests over HTTP. Without this they are denied, as without the grant.
    pub fn with_http(self, answer: impl FnMut(&Request) -> Result<Response, http::Error> + 'static) -> Self {
        STATE.with_borrow_mut(|state| state.http = Some(Box::new(answer)));
        self
    }

    /// What was logged so far.
    pub fn logs(&self) -> Vec<LogLine> {
        STATE.with_borrow(|state| state.logs.clone())
    }

    /// What is stored under `key`.
    pub fn kv(&self, key: &str) -> Option<Vec<u8>> {
        STATE.with_borrow(|state| state.kv.get(key).cloned())
    }

    /// Calls a bot as the host does, with a JSON text for its input.
    pub fn call<I, O, E>(
        &self,
        handle: fn(I) -> Result<O, E>,
        input: &str,
    ) -> Result<serde_json::Value, Failure>
    where
        I: BotInput,
        O: Serialize,
        E: Into<Failure>,
    {
        let output = crate::bot::call(handle, "inv_test".to_owned(), input)?;
        crate::parse::json(&output).map_err(|error| Failure::new("bad_output", error))
    }

    /// Has an oracle judge as the host does, with JSON texts for the job's input and the submission.
    pub fn judge<I, C, E>(
        &self,
        evaluate: fn(Job<I>, Submission<C>) -> Result<Verdict, E>,
        job_input: Option<&str>,
        content: &str,
    ) -> Result<Verdict, Failure>
    where
        I: DeserializeOwned,
        C: DeserializeOwned,
        E: Into<Failure>,
    {
        crate::oracle::call(evaluate, job(job_input.map(str::to_owned)), submission(content.to_owned()))
    }
}

/// A job with this input, for calling an oracle's function directly.
pub fn job<T>(input: T) -> Job<T> {
    Job {
        id: "job_test".to_owned(),
        title: "A job".to_owned(),
        description: String::new(),
        rubric: String::new(),
        artifact_type: "json".to_owned(),
        input,
    }
}

/// A first submission with this content, at 2026-01-01T00:00:00Z.
pub fn submission<T>(content: T) -> Submission<T> {
    Submission { id: "sub_test".to_owned(), attempt: 1, content, submitted_at_us: 1_767_225_600_000_000 }
}

/// What stands in for the component's imports.
pub(crate) mod imports {
    use super::{LogLine, STATE};
    use crate::http::{self, Request, Response};
    use crate::kv::Error;
    use crate::llm::{self, FinishReason};
    use crate::log::Level;

    pub(crate) fn log_write(level: Level, message: &str, fields: &[(String, String)]) {
        let line = LogLine { level, message: message.to_owned(), fields: fields.to_vec() };
        STATE.with_borrow_mut(|state| state.logs.push(line));
    }

    pub(crate) fn config_get(key: &str) -> Option<String> {
        STATE.with_borrow(|state| state.config.get(key).cloned())
    }

    pub(crate) fn config_entries() -> Vec<(String, String)> {
        STATE.with_borrow(|state| state.config.clone().into_iter().collect())
    }

    pub(crate) fn secret(name: &str) -> Result<String, crate::secrets::Error> {
        let value = STATE.with_borrow(|state| state.secrets.get(name).cloned());
        let detail = || format!("the secret `{name}` was not granted to this bot");
        value.ok_or_else(|| crate::secrets::Error::NotGranted(detail()))
    }

    pub(crate) fn llm_complete(request: &llm::Request) -> Result<llm::Response, llm::Error> {
        STATE.with_borrow_mut(|state| {
            state.llm_requests.push(request.clone());
            let unavailable =
                llm::Error::Unavailable { message: "there is no answer left".to_owned(), retryable: true };
            let content = state.llm_answers.pop_front().ok_or(unavailable)?;
            let tokens = |text: &str| text.len().div_ceil(3) as u64;
            Ok(llm::Response {
                input_tokens: request.messages.iter().map(|(_, content)| 4 + tokens(content)).sum(),
                output_tokens: tokens(&content),
                estimated: true,
                finish_reason: FinishReason::Stop,
                model: request.model.clone(),
                content,
            })
        })
    }

    pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        checked(key)?;
        Ok(STATE.with_borrow(|state| state.kv.get(key).cloned()))
    }

    pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), Error> {
        checked(key)?;
        STATE.with_borrow_mut(|state| {
            let cost = |key: &str, value: &[u8]| key.len() + value.len() + 64;
            let freed = state.kv.get(key).map_or(0, |there| cost(key, there));
            let used = state.kv.iter().map(|(key, value)| cost(key, value)).sum::<usize>();
            let (needed, bytes) = (cost(key, value), used - freed + cost(key, value));
            if let Some(limit) = state.kv_max_bytes.filter(|limit| needed > freed && bytes > *limit) {
                return Err(Error::QuotaExceeded(format!("{bytes} of {limit} bytes")));
            }
            state.kv.insert(key.to_owned(), value.to_vec());
            Ok(())
        })
    }

    pub(crate) fn kv_delete(key: &str) -> Result<(), Error> {
        checked(key)?;
        STATE.with_borrow_mut(|state| state.kv.remove(key));
        Ok(())
    }

    pub(crate) fn kv_compare_and_swap(
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, Error> {
        if kv_get(key)?.as_deref() != expected {
            return Ok(false);
        }
        match value {
            Some(value) => kv_set(key, value)?,
            None => kv_delete(key)?,
        }
        Ok(true)
    }

    pub(crate) fn kv_list_keys(prefix: &str, after: Option<&str>) -> Result<Vec<String>, Error> {
        let wanted =
            |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
        Ok(STATE.with_borrow(|state| state.kv.keys().filter(wanted).take(1000).cloned().collect()))
    }

    pub(crate) fn http_send(request: &Request) -> Result<Response, http::Error> {
        // Taken out, so that the answer may look at the host itself.
        let Some(mut answer) = STATE.with_borrow_mut(|state| state.http.take()) else {
            return Err(http::Error::Denied("the test's host has no `with_http`".to_owned()));
        };
        let response = answer(request);
        STATE.with_borrow_mut(|state| {
            state.http.get_or_insert(answer);
        });
        response
    }

    fn checked(key: &str) -> Result<(), Error> {
        if (1..=256).contains(&key.len()) {
            Ok(())
        } else {
            Err(Error::InvalidKey(format!("a key has 1 to 256 bytes, this one {}", key.len())))
        }
    }
}
