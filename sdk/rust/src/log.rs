//! Structured logs of this invocation.
//!
//! ```
//! let (kept, rejected) = (3980, 20);
//! ringfence::log::info!("read the orders"; kept = kept, rejected = rejected);
//! ringfence::log::warn!("{rejected} rows were no orders");
//! ```
//!
//! What a guest writes to stdout and stderr is kept too. All three share one limit in bytes; passing
//! it ends the invocation.

use std::fmt;

use crate::host;

#[doc(inline)]
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every single thing.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happened.
    Info,
    /// What someone should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Writes one line. The macros of this module are shorter.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    host::log_write(level, message, fields);
}

/// What the macros of [`crate::log`] expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $format:literal $(, $argument:expr)* $(; $($key:ident = $value:expr),* $(,)?)?) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($format $(, $argument)*),
            &[$($((
                ::std::string::String::from(::core::stringify!($key)),
                ::std::string::ToString::to_string(&$value),
            )),*)?],
        )
    };
}

/// Logs what helps to trace every single step.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($argument:tt)+) => { $crate::__log!(Trace, $($argument)+) }; }

/// Logs what helps to find a fault.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($argument:tt)+) => { $crate::__log!(Debug, $($argument)+) }; }

/// Logs what happened: a format string and its arguments, then fields after a semicolon.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($argument:tt)+) => { $crate::__log!(Info, $($argument)+) }; }

/// Logs what someone should look at.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($argument:tt)+) => { $crate::__log!(Warn, $($argument)+) }; }

/// Logs what went wrong.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($argument:tt)+) => { $crate::__log!(Error, $($argument)+) }; }
