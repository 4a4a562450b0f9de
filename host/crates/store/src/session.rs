//! One SQL text and one body for two engines.
//!
//! A statement is a constant with `$1` parameters. Its arguments are one of three portable types ([`Arg`]), its
//! rows are read through [`Row`]. Only this file knows which engine is behind; `docs/decisions/0001-two-engines.md`
//! says why it is done so.

use std::sync::Arc;

use futures::TryStreamExt as _;
use ringfence_model as model;
use sqlx::pool::PoolConnection;
use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, Postgres, Row as _, SqlSafeStr, SqlStr};

use crate::sqlite::{self, Lease};
use crate::{StoreError, crash};

/// An argument of a statement.
#[derive(Debug, Clone)]
pub enum Arg {
    /// A number, a time in microseconds, an amount in micro-USDC.
    Int(Option<i64>),
    /// A text, an id, a word, a JSON document.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
}

/// How many bytes are written to SQLite in place at most.
const MANY_BYTES: usize = 64 << 10;

impl Arg {
    fn bytes(&self) -> usize {
        match self {
            Self::Int(_) => 8,
            Self::Text(text) => text.as_ref().map_or(0, String::len),
            Self::Bytes(bytes) => bytes.as_ref().map_or(0, Vec::len),
        }
    }
}

/// The arguments of a statement, in the order of `$1`, `$2`, …
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::session::Arg::from($value)),*] };
}
pub(crate) use args;

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<&String> for Arg {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}
impl From<&std::sync::Arc<str>> for Arg {
    fn from(value: &std::sync::Arc<str>) -> Self {
        Self::Text(Some(value.as_ref().to_owned()))
    }
}
impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<&[u8]> for Arg {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}
impl From<model::Timestamp> for Arg {
    fn from(value: model::Timestamp) -> Self {
        Self::Int(Some(value.as_micros()))
    }
}
impl From<model::MicroUsdc> for Arg {
    fn from(value: model::MicroUsdc) -> Self {
        Self::Int(Some(value.as_micros()))
    }
}
impl From<model::FeeBps> for Arg {
    fn from(value: model::FeeBps) -> Self {
        Self::Int(Some(i64::from(value.get())))
    }
}
impl From<&model::ApiKeyHash> for Arg {
    fn from(value: &model::ApiKeyHash) -> Self {
        Self::Text(Some(value.to_text()))
    }
}
impl From<&model::Sha256> for Arg {
    fn from(value: &model::Sha256) -> Self {
        Self::Text(Some(value.to_string()))
    }
}
impl From<&model::WalletAddress> for Arg {
    fn from(value: &model::WalletAddress) -> Self {
        value.as_str().into()
    }
}
impl From<Option<model::Timestamp>> for Arg {
    fn from(value: Option<model::Timestamp>) -> Self {
        Self::Int(value.map(model::Timestamp::as_micros))
    }
}
impl From<Option<model::MicroUsdc>> for Arg {
    fn from(value: Option<model::MicroUsdc>) -> Self {
        Self::Int(value.map(model::MicroUsdc::as_micros))
    }
}
impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<Option<u32>> for Arg {
    fn from(value: Option<u32>) -> Self {
        Self::Int(value.map(i64::from))
    }
}
/// For texts and ids that may be missing: `None` is NULL.
impl<T> From<Option<&T>> for Arg
where
    T: ?Sized + ToString,
{
    fn from(value: Option<&T>) -> Self {
        Self::Text(value.map(ToString::to_string))
    }
}

macro_rules! arg_by_as_str {
    ($($name:ident),+) => { $(
        impl From<&model::$name> for Arg {
            fn from(value: &model::$name) -> Self { value.as_str().into() }
        }
    )+ };
}
arg_by_as_str!(
    OrgId,
    AgentId,
    ApiKeyId,
    BotId,
    InvocationId,
    JobId,
    SubmissionId,
    AccountId,
    TransferId,
    ReportId,
    EventId,
    UserId,
    SessionId,
    PolicyId,
    SigningKeyId
);

macro_rules! arg_by_word {
    ($($name:ident),+) => { $(
        impl From<model::$name> for Arg {
            fn from(value: model::$name) -> Self { value.as_str().into() }
        }
    )+ };
}
arg_by_word!(BotStatus, JobStatus, SubmissionStatus, PayoutStatus, EscrowStatus, Visibility, Role);

/// A connection to the database, inside a transaction or not.
pub struct Session(pub(crate) Inner);

pub(crate) enum Inner {
    /// Nothing while a thread has it.
    Sqlite(Option<Lease>),
    Postgres(PoolConnection<Postgres>),
    PostgresTx(sqlx::Transaction<'static, Postgres>),
}

enum Engine<'a> {
    Sqlite(&'a mut Option<Lease>),
    Postgres(&'a mut PgConnection),
}

impl Session {
    fn engine(&mut self) -> Engine<'_> {
        if matches!(self.0, Inner::Sqlite(Some(Lease::Turn(_))) | Inner::PostgresTx(_)) {
            crash::point();
        }
        match &mut self.0 {
            Inner::Sqlite(lease) => Engine::Sqlite(lease),
            Inner::Postgres(connection) => Engine::Postgres(connection),
            Inner::PostgresTx(connection) => Engine::Postgres(connection),
        }
    }

    /// Whether PostgreSQL is behind: for the few places where the engines differ.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.0, Inner::Postgres(_) | Inner::PostgresTx(_))
    }

    /// A SELECT whose rows nobody else changes until the transaction ends. On SQLite a transaction is alone anyway.
    ///
    /// Keys are left free: a row that refers to the locked one can be inserted meanwhile, and two transactions that have
    /// each inserted one do not then wait for each other.
    pub(crate) fn locking(&self, select: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(if self.is_postgres() {
            format!("{select} FOR NO KEY UPDATE")
        } else {
            select.to_owned()
        })
    }

    /// A SELECT whose rows nobody changes until the transaction ends; others may hold them in the same way.
    pub(crate) fn sharing(&self, select: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(if self.is_postgres() { format!("{select} FOR SHARE") } else { select.to_owned() })
    }

    /// As [`Self::locking`], without the rows that another transaction has locked.
    pub(crate) fn locking_unlocked(&self, select: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(if self.is_postgres() {
            format!("{select} FOR UPDATE SKIP LOCKED")
        } else {
            select.to_owned()
        })
    }

    /// Runs a statement that changes a few rows; how many those were.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
        let sql = sql.into_sql_str();
        if args.iter().map(Arg::bytes).sum::<usize>() > MANY_BYTES {
            return self.execute_many(sql, args).await;
        }
        match self.engine() {
            Engine::Sqlite(lease) => {
                sqlite::here(lease, |connection| sqlite::execute(connection, sql.as_str(), &args)).await
            }
            Engine::Postgres(connection) => execute_postgres(connection, sql, args).await,
        }
    }

    /// As [`Self::execute`], for many rows, or many bytes.
    pub(crate) async fn execute_many(
        &mut self,
        sql: impl SqlSafeStr,
        args: Vec<Arg>,
    ) -> Result<u64, StoreError> {
        let sql = sql.into_sql_str();
        match self.engine() {
            Engine::Sqlite(lease) => {
                sqlite::aside(lease, move |connection| sqlite::execute(connection, sql.as_str(), &args)).await
            }
            Engine::Postgres(connection) => execute_postgres(connection, sql, args).await,
        }
    }

    /// The rows of a statement, each read by `read`.
    pub(crate) async fn all<T: Send + 'static>(
        &mut self,
        sql: impl SqlSafeStr,
        args: Vec<Arg>,
        read: impl Fn(&Row) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        let sql = sql.into_sql_str();
        match self.engine() {
            // What a transaction reads before it writes is not much, and others wait for it.
            Engine::Sqlite(lease @ Some(Lease::Turn(_))) => {
                sqlite::here(lease, |connection| sqlite::all(connection, sql.as_str(), &args, read)).await
            }
            Engine::Sqlite(lease) => {
                sqlite::aside(lease, move |connection| sqlite::all(connection, sql.as_str(), &args, read))
                    .await
            }
            Engine::Postgres(connection) => {
                let mut found = Vec::new();
                let mut rows = sqlx::query_with(sql, bind_postgres(args)?).fetch(connection);
                while let Some(row) = rows.try_next().await? {
                    found.push(read(&Row::Postgres(row))?);
                }
                Ok(found)
            }
        }
    }

    /// The only row of a statement that finds it by its key, if there is one.
    pub(crate) async fn optional<T>(
        &mut self,
        sql: impl SqlSafeStr,
        args: Vec<Arg>,
        read: impl Fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let sql = sql.into_sql_str();
        match self.engine() {
            Engine::Sqlite(lease) => {
                sqlite::here(lease, |connection| sqlite::optional(connection, sql.as_str(), &args, read))
                    .await
            }
            Engine::Postgres(connection) => {
                let row = sqlx::query_with(sql, bind_postgres(args)?).fetch_optional(connection).await?;
                row.map(|row| read(&Row::Postgres(row))).transpose()
            }
        }
    }

    /// The only row of a statement that always has one, such as a count or a sum, for which it may look at many.
    pub(crate) async fn one<T: Send + 'static>(
        &mut self,
        sql: impl SqlSafeStr,
        args: Vec<Arg>,
        read: impl Fn(&Row) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.all(sql, args, read).await?.pop();
        found.ok_or_else(|| StoreError::Database(Arc::new(sqlx::Error::RowNotFound)))
    }
}

async fn execute_postgres(
    connection: &mut PgConnection,
    sql: SqlStr,
    args: Vec<Arg>,
) -> Result<u64, StoreError> {
    Ok(sqlx::query_with(sql, bind_postgres(args)?).execute(connection).await?.rows_affected())
}

fn bind_postgres(args: Vec<Arg>) -> Result<sqlx::postgres::PgArguments, StoreError> {
    let mut bound = sqlx::postgres::PgArguments::default();
    for arg in args {
        match arg {
            Arg::Int(value) => bound.add(value),
            Arg::Text(value) => bound.add(value),
            Arg::Bytes(value) => bound.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(bound)
}

/// A row of either engine. Columns are read by name.
pub(crate) enum Row<'a> {
    Sqlite(sqlite::Row<'a>),
    Postgres(sqlx::postgres::PgRow),
}

impl Row<'_> {
    fn get<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: rusqlite::types::FromSql + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        Ok(match self {
            Self::Sqlite(row) => row.get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn int(&self, column: &str) -> Result<i64, StoreError> {
        self.get(column)
    }

    pub(crate) fn opt_int(&self, column: &str) -> Result<Option<i64>, StoreError> {
        self.get(column)
    }

    pub(crate) fn text(&self, column: &str) -> Result<String, StoreError> {
        self.get(column)
    }

    pub(crate) fn opt_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        self.get(column)
    }

    pub(crate) fn bytes(&self, column: &str) -> Result<Vec<u8>, StoreError> {
        self.get(column)
    }

    /// A number that is never negative, such as a count or a size.
    pub(crate) fn count(&self, column: &str) -> Result<u64, StoreError> {
        u64::try_from(self.int(column)?).map_err(|error| StoreError::corrupt(column, error))
    }

    /// A 0 or a 1. (PostgreSQL's type of a literal is INT4, not BIGINT: such a column is never read as a number.)
    pub(crate) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        Ok(self.get::<i32>(column)? != 0)
    }

    /// A number of at most 32 bits, where NULL is `None`.
    pub(crate) fn opt_small(&self, column: &str) -> Result<Option<u32>, StoreError> {
        self.opt_int(column)?
            .map(|number| u32::try_from(number).map_err(|error| StoreError::corrupt(column, error)))
            .transpose()
    }

    /// A number of at most 32 bits.
    pub(crate) fn small(&self, column: &str) -> Result<u32, StoreError> {
        u32::try_from(self.int(column)?).map_err(|error| StoreError::corrupt(column, error))
    }

    pub(crate) fn time(&self, column: &str) -> Result<model::Timestamp, StoreError> {
        Ok(model::Timestamp::from_micros(self.int(column)?))
    }

    pub(crate) fn opt_time(&self, column: &str) -> Result<Option<model::Timestamp>, StoreError> {
        Ok(self.opt_int(column)?.map(model::Timestamp::from_micros))
    }

    pub(crate) fn money(&self, column: &str) -> Result<model::MicroUsdc, StoreError> {
        model::MicroUsdc::from_micros(self.int(column)?)
            .ok_or_else(|| StoreError::corrupt(column, "negative amount"))
    }

    pub(crate) fn opt_money(&self, column: &str) -> Result<Option<model::MicroUsdc>, StoreError> {
        self.opt_int(column)?
            .map(|micros| {
                model::MicroUsdc::from_micros(micros)
                    .ok_or_else(|| StoreError::corrupt(column, "negative amount"))
            })
            .transpose()
    }

    /// An id, a status word, a digest: whatever is written as a text.
    pub(crate) fn parse<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.text(column)?.parse().map_err(|error: T::Err| StoreError::corrupt(column, error))
    }

    /// As [`Self::parse`], where NULL is `None`.
    pub(crate) fn opt_parse<T>(&self, column: &str) -> Result<Option<T>, StoreError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.opt_text(column)?
            .map(|text| text.parse().map_err(|error: T::Err| StoreError::corrupt(column, error)))
            .transpose()
    }

    /// A JSON document.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?).map_err(|error| StoreError::corrupt(column, error))
    }

    /// A JSON document, where NULL is `None`.
    pub(crate) fn opt_json<T: serde::de::DeserializeOwned>(
        &self,
        column: &str,
    ) -> Result<Option<T>, StoreError> {
        self.opt_text(column)?
            .map(|text| serde_json::from_str(&text).map_err(|error| StoreError::corrupt(column, error)))
            .transpose()
    }
}
