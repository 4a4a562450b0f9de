//! A key-value store that belongs to this bot alone and lives on between calls.
//!
//! A component that uses it can only be deployed with the grant `kv`. Oracles have none.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, host, parse};

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Keys are 1 to 256 bytes.
    InvalidKey(String),
    /// The write would take the store past its granted bytes, of which each entry takes those of its key and its
    /// value and 64 more. Nothing was written.
    QuotaExceeded(String),
    /// The store did not answer. Trying again may help.
    Unavailable(String),
    /// The value is not the JSON that the caller asked for.
    NotJson(String),
}

impl Error {
    /// The code of the [`Failure`] that this becomes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidKey(_) => "kv_invalid_key",
            Self::QuotaExceeded(_) => "kv_quota_exceeded",
            Self::Unavailable(_) => "kv_unavailable",
            Self::NotJson(_) => "kv_not_json",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidKey(detail) => write!(formatter, "invalid key: {detail}"),
            Self::QuotaExceeded(detail) => write!(formatter, "the key-value store is full: {detail}"),
            Self::Unavailable(detail) => write!(formatter, "the key-value store did not answer: {detail}"),
            Self::NotJson(detail) => write!(formatter, "the stored value can't be read: {detail}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The value of `key`.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    host::kv_get(key)
}

/// Writes `value` under `key`.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    host::kv_set(key, value.as_ref())
}

/// Deletes `key`. Deleting what is not there is no error.
pub fn delete(key: &str) -> Result<(), Error> {
    host::kv_delete(key)
}

/// Writes `value` under `key` if `expected` is what is there, in one step that no other call comes between. `expected`
/// `None`: nothing is there; `value` `None`: delete it. `false`: something else is there, and nothing was changed.
pub fn compare_and_swap(key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, Error> {
    host::kv_compare_and_swap(key, expected, value)
}

/// Up to 1,000 keys that begin with `prefix` and come after `after`, in byte order.
pub fn list_keys(prefix: &str, after: Option<&str>) -> Result<Vec<String>, Error> {
    host::kv_list_keys(prefix, after)
}

/// The value of `key`, stored by [`set_json`].
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?.map(|bytes| from_json(key, &bytes)).transpose()
}

/// Writes `value` under `key` as JSON.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Error> {
    set(key, to_json(key, value)?)
}

/// Changes the value of `key`, stored as JSON: `change` makes the new one of what is there, and is called again if
/// another call wrote in between. What was written is returned.
///
/// ```
/// # use ringfence::{kv, testing::Host};
/// # let host = Host::new();
/// let visits: u64 = kv::update_json("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
/// assert_eq!(visits, 1);
/// # Ok::<(), kv::Error>(())
/// ```
pub fn update_json<T>(key: &str, mut change: impl FnMut(Option<T>) -> T) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned,
{
    loop {
        let there = get(key)?;
        let old = there.as_deref().map(|bytes| from_json(key, bytes)).transpose()?;
        let new = change(old);
        // Each turn that is lost is another call's write, so somebody always gets on.
        if compare_and_swap(key, there.as_deref(), Some(&to_json(key, &new)?))? {
            return Ok(new);
        }
    }
}

fn from_json<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    let text = str::from_utf8(bytes).map_err(|error| Error::NotJson(format!("key `{key}`: {error}")))?;
    parse::json(text).map_err(|error| Error::NotJson(format!("key `{key}`: {error}")))
}

fn to_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::NotJson(format!("key `{key}`: {error}")))
}
