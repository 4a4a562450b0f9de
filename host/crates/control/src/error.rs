use ringfence_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that the caller can do nothing about. What it says is for the log, never for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Internal {
    /// The database was busy for too long: the caller may try again.
    #[error("the database is busy")]
    Busy(#[source] StoreError),
    /// The database failed, or holds what it should not.
    #[error("the database failed")]
    Store(#[source] StoreError),
    /// The sandbox failed, not what runs in it.
    #[error("the sandbox failed: {0}")]
    Sandbox(String),
    /// A rule of the house was found broken.
    #[error("an invariant does not hold: {0}")]
    Invariant(&'static str),
    /// A policy that is in force is not valid any more, or could not be asked.
    #[error("the policies cannot be asked: {0}")]
    Policy(String),
    /// A secret of the host cannot be opened.
    #[error(transparent)]
    Secret(#[from] crate::SealError),
    /// A document could not be written or read back.
    #[error("a stored document cannot be read")]
    Document(#[from] serde_json::Error),
}

impl From<StoreError> for Internal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy(_) => Self::Busy(error),
            _ => Self::Store(error),
        }
    }
}

/// One field that was not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The field, by its path in the request: `limits.fuel`.
    pub field: String,
    /// What is wrong with it and what is wanted.
    pub message: String,
}

/// The fields that were not as they must be. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid input")]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    pub(crate) fn field(field: &str, message: impl Into<String>) -> Self {
        Self(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }
}

/// Collects what is wrong with a request, so that the caller hears of all of it at once.
#[derive(Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    pub(crate) fn require(&mut self, holds: bool, field: &str, message: impl Into<String>) {
        if !holds {
            self.0.push(FieldError { field: field.to_owned(), message: message.into() });
        }
    }

    /// A text of `min` to `max` characters, none of them a control character but line feed and tab.
    pub(crate) fn text(&mut self, field: &str, value: &str, min: usize, max: usize) {
        let length = value.chars().count();
        self.require(
            (min..=max).contains(&length),
            field,
            format!("must have {min} to {max} characters, has {length}"),
        );
        self.require(
            !value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')),
            field,
            "must not contain control characters",
        );
    }

    pub(crate) fn done(self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid(self.0)) }
    }
}

/// A part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: u64,
}

impl<T> Page<T> {
    pub(crate) fn of<R>(page: ringfence_store::Page<R>, view: impl FnMut(R) -> T) -> Self {
        Self { items: page.items.into_iter().map(view).collect(), total: page.total }
    }
}
