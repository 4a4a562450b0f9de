use std::fmt;

/// Why a guest could not do what it was asked. An answer, not a crash: the caller reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Short and stable, for programs: `bad_input`, `not_found`, …
    pub code: String,
    /// One or two sentences for people.
    pub message: String,
}

impl Failure {
    /// A failure with a code for programs and a message for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The caller's input is wrong (`bad_input`): say what, and what was expected.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new("bad_input", message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}
