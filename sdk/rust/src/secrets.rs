//! Secrets that the owner set for this bot and granted to it by name.
//!
//! Their values stand in no log and no answer of the host's: keep them out of what you log and return as well. A component
//! that uses them can only be deployed with the grant `secrets`. Oracles have none.

use std::fmt;

use crate::{Failure, host};

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The bot was not granted a secret of this name.
    NotGranted(String),
    /// It was granted, and its owner has set no value, or it cannot be read.
    Unavailable(String),
}

impl Error {
    /// The code of the [`Failure`] that this becomes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotGranted(_) => "secret_not_granted",
            Self::Unavailable(_) => "secret_unavailable",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NotGranted(detail) | Self::Unavailable(detail)) = self;
        formatter.write_str(detail)
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The value of the secret `name`.
pub fn get(name: &str) -> Result<String, Error> {
    host::secret(name)
}
