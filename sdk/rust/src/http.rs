//! Requests over HTTP to the hosts that the bot was granted.
//!
//! ```
//! # use ringfence::{Failure, http, testing::Host};
//! # #[derive(serde::Deserialize)] struct Rate { eur: f64 }
//! fn rate() -> Result<f64, Failure> {
//!     let response = http::Request::get("https://rates.example/usd").header("accept", "application/json").send()?;
//!     Ok(response.success()?.json::<Rate>()?.eur)
//! }
//! # let _host = Host::new().with_http(|_| Ok(http::Response::new(200, r#"{"eur": 0.9}"#)));
//! # assert_eq!(rate().unwrap(), 0.9);
//! ```
//!
//! Without the grant `http`, and to hosts that it does not have, requests are [denied](Error::Denied); the invocation's log
//! says why. Redirects are answers like any other: follow them by a request of your own. Oracles have no network.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, host, parse};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The URL, absolute, with `http` or `https`.
    pub url: String,
    /// Names and values. `Host` and the length of the body are set by the host.
    pub headers: Vec<(String, String)>,
    /// The body; empty if there is none.
    pub body: Vec<u8>,
}

impl Request {
    /// A request of this method, without headers and body.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self { method: method.to_owned(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A request for what is there.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A request that brings something.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` as JSON, and says so in `content-type`.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::InvalidRequest(error.to_string()))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sends the request, and waits for all of the response.
    pub fn send(&self) -> Result<Response, Error> {
        host::http_send(self)
    }
}

/// A response, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names in lower case, and values; bytes that are not UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A response without headers, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// This response, if its status is 200 to 299.
    pub fn success(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(Error::Status(self.status)) }
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let text = str::from_utf8(&self.body).map_err(|error| Error::NotJson(error.to_string()))?;
        parse::json(text).map_err(Error::NotJson)
    }
}

/// Why there is no response, or not the one that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The request cannot be sent as it is.
    InvalidRequest(String),
    /// The bot may not send it: the grant does not have the host, or the host's network policy refuses its address.
    Denied(String),
    /// Something took too long.
    TimedOut(String),
    /// The other side could not be reached, or its response is not valid or too large.
    Failed(String),
    /// The status is not 200 to 299.
    Status(u16),
    /// The body is not the JSON that the caller asked for.
    NotJson(String),
}

impl Error {
    /// The code of the [`Failure`] that this becomes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "http_invalid_request",
            Self::Denied(_) => "http_denied",
            Self::TimedOut(_) => "http_timed_out",
            Self::Failed(_) => "http_failed",
            Self::Status(_) => "http_status",
            Self::NotJson(_) => "http_not_json",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidRequest(detail) => write!(formatter, "the request can't be sent: {detail}"),
            Self::Denied(detail) => write!(formatter, "the request was denied: {detail}"),
            Self::TimedOut(detail) => write!(formatter, "the request took too long: {detail}"),
            Self::Failed(detail) => write!(formatter, "the request failed: {detail}"),
            Self::Status(status) => write!(formatter, "the response has the status {status}"),
            Self::NotJson(detail) => write!(formatter, "the response can't be read: {detail}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
