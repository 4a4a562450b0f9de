use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, parse};

/// A call with its invocation's id. A bot that doesn't need the id takes the input alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task<T> {
    /// The invocation's id, `inv_…`: the key of its logs and usage.
    pub id: String,
    /// What the caller sent.
    pub input: T,
}

/// What a bot's function may take: anything that serde deserializes, or a [`Task`] of it.
pub trait BotInput: Sized {
    /// Reads the input of the invocation `id`. The error is made for the caller.
    fn from_task(id: String, input: &str) -> Result<Self, Failure>;
}

impl<T: DeserializeOwned> BotInput for T {
    fn from_task(_: String, input: &str) -> Result<Self, Failure> {
        parse::json(input)
            .map_err(|error| Failure::bad_input(format!("the input is not as expected: {error}")))
    }
}

impl<T: DeserializeOwned> BotInput for Task<T> {
    fn from_task(id: String, input: &str) -> Result<Self, Failure> {
        T::from_task(String::new(), input).map(|input| Self { id, input })
    }
}

/// One call over the JSON boundary, on the host's side of it a text in and a text out.
pub(crate) fn call<I, O, E>(handle: fn(I) -> Result<O, E>, id: String, input: &str) -> Result<String, Failure>
where
    I: BotInput,
    O: Serialize,
    E: Into<Failure>,
{
    let output = handle(I::from_task(id, input)?).map_err(Into::into)?;
    serde_json::to_string(&output)
        .map_err(|error| Failure::new("bad_output", format!("the result can't be written as JSON: {error}")))
}

/// Compiles for what can be a bot, and does nothing.
pub fn check<I: BotInput, O: Serialize, E: Into<Failure>>(_: fn(I) -> Result<O, E>) {}
