//! Configuration values that the owner set for this bot.

use std::fmt::Display;
use std::str::FromStr;

use crate::{Failure, host};

/// The value of `key`, if the owner set one.
pub fn get(key: &str) -> Option<String> {
    host::config_get(key)
}

/// All values, ordered by key.
pub fn entries() -> Vec<(String, String)> {
    host::config_entries()
}

/// The value of `key`, or a failure `not_configured` that names the key.
pub fn require(key: &str) -> Result<String, Failure> {
    get(key)
        .ok_or_else(|| Failure::new("not_configured", format!("the configuration value `{key}` is not set")))
}

/// The value of `key` as a number, a flag, …; `default` where the owner set none. One that can't be
/// read is a failure `bad_config` that names the key.
pub fn parse_or<T>(key: &str, default: T) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    match get(key) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|error| {
            Failure::new("bad_config", format!("the configuration value `{key}` is `{text}`: {error}"))
        }),
    }
}
