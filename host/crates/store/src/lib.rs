//! What is kept: one file an aggregate, over SQLite or PostgreSQL.

pub mod accounts;
pub mod audit;
pub mod bots;
pub mod components;
mod connect;
mod crash;
pub mod idempotency;
pub mod invocations;
pub mod jobs;
pub mod keys;
pub mod kv;
pub mod ledger;
pub mod logs;
pub mod market_bots;
pub mod outbox;
pub mod parties;
pub mod policies;
pub mod queue;
pub mod rates;
pub mod records;
pub mod reputation;
pub mod secrets;
mod session;
pub mod sessions;
mod sqlite;
mod statements;
pub mod submissions;
pub mod usage;
pub mod users;

use std::sync::Arc;

use ringfence_model::words;
use rusqlite::ffi;
use sqlx::error::ErrorKind;

#[doc(hidden)]
pub use connect::migration_files;
pub use connect::{ConnectError, Store, Tx};
pub use session::{Arg, Session};

/// A part of a list, and how long the whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in all. What can grow without bound is counted up to [`COUNTED`].
    pub total: u64,
}

/// How far a listing counts: to count a million takes longer than to read a page of them.
pub const COUNTED: u64 = 1_000;

/// The number that a `SELECT COUNT(*) AS n` gives.
async fn count(s: &mut Session, sql: impl sqlx::SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
    s.one(sql, args, |row| row.count("n")).await
}

/// Every statement by name, for the test that prepares them all on both engines.
#[doc(hidden)]
#[must_use]
pub fn all_statements() -> Vec<(&'static str, &'static str)> {
    [
        accounts::STATEMENTS,
        audit::STATEMENTS,
        bots::STATEMENTS,
        components::STATEMENTS,
        idempotency::STATEMENTS,
        invocations::STATEMENTS,
        jobs::STATEMENTS,
        keys::STATEMENTS,
        kv::STATEMENTS,
        &ledger::all_statements(),
        logs::STATEMENTS,
        market_bots::STATEMENTS,
        outbox::STATEMENTS,
        parties::STATEMENTS,
        policies::STATEMENTS,
        queue::STATEMENTS,
        rates::STATEMENTS,
        reputation::STATEMENTS,
        secrets::STATEMENTS,
        sessions::STATEMENTS,
        submissions::STATEMENTS,
        usage::STATEMENTS,
        users::STATEMENTS,
    ]
    .concat()
}

/// What the database's driver says.
type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A row with this key, or this unique value, exists.
    #[error("already there")]
    Conflict(#[source] Source),
    /// A constraint that carries an invariant refused the change, such as a balance below zero.
    #[error("refused by a constraint")]
    Refused(#[source] Source),
    /// Another transaction held what was needed for too long, or the two were in each other's way. Trying again helps.
    #[error("the database is busy")]
    Busy(#[source] Source),
    /// What was read makes no sense.
    #[error("column `{column}`: {reason}")]
    Corrupt {
        /// Where.
        column: String,
        /// Why not.
        reason: String,
    },
    /// Anything else.
    #[error("database")]
    Database(#[source] Source),
}

impl StoreError {
    pub(crate) fn corrupt(column: &str, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { column: column.to_owned(), reason: reason.to_string() }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::corrupt("a document that is written", error)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let make = match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Database(refused) => match (refused.kind(), refused.code().as_deref()) {
                (ErrorKind::UniqueViolation, _) => Self::Conflict,
                (
                    ErrorKind::CheckViolation | ErrorKind::ForeignKeyViolation | ErrorKind::NotNullViolation,
                    _,
                ) => Self::Refused,
                // raise_exception. The only triggers keep the audit log and the ledger as they are.
                (_, Some("P0001")) => Self::Refused,
                // lock_not_available, serialization_failure, deadlock_detected.
                (_, Some("55P03" | "40001" | "40P01")) => Self::Busy,
                _ => Self::Database,
            },
            _ => Self::Database,
        };
        make(Arc::new(error))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let make = match error.sqlite_error().map(|failure| failure.extended_code) {
            Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => Self::Conflict,
            Some(
                ffi::SQLITE_CONSTRAINT_CHECK
                | ffi::SQLITE_CONSTRAINT_FOREIGNKEY
                | ffi::SQLITE_CONSTRAINT_NOTNULL
                | ffi::SQLITE_CONSTRAINT_TRIGGER,
            ) => Self::Refused,
            Some(ffi::SQLITE_BUSY | ffi::SQLITE_BUSY_RECOVERY | ffi::SQLITE_BUSY_SNAPSHOT) => Self::Busy,
            _ => Self::Database,
        };
        make(Arc::new(error))
    }
}
