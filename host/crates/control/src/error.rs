use ringfence_model::MicroUsdc;
use ringfence_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that the caller can do nothing about. What it says is for the log, never for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Internal {
    /// The database was busy for too long: the caller may try again.
    #[error("the database is busy")]
    Busy(#[source] StoreError),
    /// Somebody else has just waited for the database in vain.
    #[error("the database did not answer a moment ago")]
    Unavailable,
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

impl From<garde::Report> for Invalid {
    fn from(report: garde::Report) -> Self {
        let errors = report.into_inner().into_iter();
        Self(
            errors
                .map(|(path, error)| FieldError {
                    field: path.to_string(),
                    message: error.message().to_owned(),
                })
                .collect(),
        )
    }
}

/// Collects what is wrong with a request, so that the caller hears of all of it at once.
#[derive(Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    /// Begins with the rules that the request's type carries: those that need nothing but the request.
    pub(crate) fn of<T: garde::Validate<Context = ()>>(request: &T) -> Self {
        Self(request.validate().map_or_else(|report| Invalid::from(report).0, |()| Vec::new()))
    }

    pub(crate) fn require(&mut self, holds: bool, field: &str, message: impl Into<String>) {
        if !holds {
            self.0.push(FieldError { field: field.to_owned(), message: message.into() });
        }
    }

    pub(crate) fn done(self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid(self.0)) }
    }
}

/// The rules that request types share, in the form that `#[garde(custom(…))]` takes.
pub(crate) mod rules {
    use std::ops::RangeInclusive;

    use super::MicroUsdc;

    /// A rule that is kept, or what it asks for.
    pub(crate) fn require(holds: bool, message: impl std::fmt::Display) -> garde::Result {
        if holds { Ok(()) } else { Err(garde::Error::new(message.to_string())) }
    }

    /// Whether there is no control character in it but the ends of lines and tabs.
    pub(crate) fn is_plain(value: &str) -> bool {
        !value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    }

    pub(crate) const PLAIN: &str = "must not contain control characters";

    /// A text of `min` to `max` characters, none of them a control character.
    pub(crate) fn text(min: usize, max: usize) -> impl Fn(&str, &()) -> garde::Result {
        move |value, ()| {
            let length = value.chars().count();
            let in_range = (min..=max).contains(&length);
            let range = format!("must have {min} to {max} characters, has {length}");
            match (in_range, is_plain(value)) {
                (true, plain) => require(plain, PLAIN),
                (false, true) => require(false, range),
                (false, false) => require(false, format!("{range}, and {PLAIN}")),
            }
        }
    }

    /// A text of 1 to `max` characters that names something.
    pub(crate) fn label(max: usize) -> impl Fn(&str, &()) -> garde::Result {
        move |value, context| {
            text(1, max)(value, context)?;
            require(value.trim() == value, "must not begin or end with a space")
        }
    }

    /// A number within a range, told in these words.
    pub(crate) fn within<T: PartialOrd>(
        range: RangeInclusive<T>,
        message: &'static str,
    ) -> impl Fn(&T, &()) -> garde::Result {
        move |value, ()| require(range.contains(value), message)
    }

    /// An amount that moves money.
    pub(crate) fn positive(amount: &MicroUsdc, (): &()) -> garde::Result {
        require(*amount > MicroUsdc::ZERO, "must be more than zero")
    }
}

/// A part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in all. Jobs, claims, submissions, ranked agents, transfers and calls are counted
    /// up to 1,000.
    pub total: u64,
}

impl<T> Page<T> {
    pub(crate) fn of<R>(page: ringfence_store::Page<R>, view: impl FnMut(R) -> T) -> Self {
        Self { items: page.items.into_iter().map(view).collect(), total: page.total }
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate as _;

    use super::*;

    #[derive(garde::Validate)]
    struct Outer {
        #[garde(custom(rules::label(3)))]
        name: String,
        #[garde(inner(custom(rules::text(0, 3))))]
        note: Option<String>,
        #[garde(dive)]
        inner: Option<Inner>,
    }

    #[derive(garde::Validate)]
    struct Inner {
        #[garde(custom(rules::within(1..=9, "must be 1 to 9")))]
        size: u32,
    }

    fn found(name: &str, note: Option<&str>, size: u32) -> Vec<(String, String)> {
        let outer =
            Outer { name: name.to_owned(), note: note.map(str::to_owned), inner: Some(Inner { size }) };
        let Err(report) = outer.validate() else { return Vec::new() };
        Invalid::from(report).0.into_iter().map(|error| (error.field, error.message)).collect()
    }

    fn pair(field: &str, message: &str) -> (String, String) {
        (field.to_owned(), message.to_owned())
    }

    #[test]
    fn every_field_is_named_by_its_path() {
        assert_eq!(found("äöü", Some("a\nb"), 9), []);
        let mut all = found("", Some("abc\u{7}"), 0);
        all.sort();
        assert_eq!(
            all,
            [
                pair("inner.size", "must be 1 to 9"),
                pair("name", "must have 1 to 3 characters, has 0"),
                pair("note", "must have 0 to 3 characters, has 4, and must not contain control characters"),
            ]
        );
    }

    #[test]
    fn control_characters_and_outer_spaces_are_found() {
        for name in ["a\0", "\u{1b}", "\u{85}", "\u{7f}"] {
            assert_eq!(
                found(name, None, 1),
                [pair("name", "must not contain control characters")],
                "{name:?}"
            );
        }
        assert_eq!(found(" a", None, 1), [pair("name", "must not begin or end with a space")]);
        assert_eq!(found("a\n", None, 1), [pair("name", "must not begin or end with a space")]);
    }

    #[test]
    fn what_the_type_finds_and_what_the_state_finds_are_told_together() {
        let outer = Outer { name: String::new(), note: None, inner: None };
        let mut checks = Checks::of(&outer);
        checks.require(false, "expiry", "must lie in the future");
        let fields: Vec<_> = checks.done().unwrap_err().0.into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["name", "expiry"]);
    }
}
