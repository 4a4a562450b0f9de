use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _, SqliteConnection};

use crate::session::Inner;
use crate::sqlite::{self, Lease, Sqlite};
use crate::{Session, Source, StoreError, crash};

/// A step of the schema: its text, the same for both engines or one for each.
struct Step {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! portable {
    ($version:literal, $name:literal, $file:literal) => {
        Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../../../migrations/", $file)),
            postgres: include_str!(concat!("../../../../migrations/", $file)),
        }
    };
}

macro_rules! per_engine {
    ($version:literal, $name:literal, $file:literal) => {
        Step {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../../../migrations/postgres/", $file)),
        }
    };
}

/// The steps of the schema, oldest first. A step that has been released is never edited. What only one engine
/// understands stands in `migrations/sqlite` and `migrations/postgres` under the same name.
const MIGRATIONS: &[Step] = &[
    portable!(1, "initial", "0001_initial.sql"),
    portable!(2, "access", "0002_access.sql"),
    per_engine!(3, "engine", "0003_engine.sql"),
    portable!(4, "usage", "0004_usage.sql"),
    portable!(5, "kv_usage", "0005_kv_usage.sql"),
    portable!(6, "logs", "0006_logs.sql"),
    portable!(7, "fair_queue", "0007_fair_queue.sql"),
    portable!(8, "market", "0008_market.sql"),
    portable!(9, "money", "0009_money.sql"),
    per_engine!(10, "ledger_engine", "0010_ledger_engine.sql"),
    portable!(11, "reputation", "0011_reputation.sql"),
    portable!(12, "evaluation", "0012_evaluation.sql"),
    portable!(13, "market_bots", "0013_market_bots.sql"),
];

/// The names of the files that the steps come from.
#[doc(hidden)]
#[must_use]
pub fn migration_files() -> Vec<String> {
    MIGRATIONS.iter().map(|step| format!("{:04}_{}.sql", step.version, step.name)).collect()
}

fn migrator(text: fn(&Step) -> &'static str) -> Migrator {
    let steps = MIGRATIONS.iter().map(|step| {
        let sql = text(step).into_sql_str();
        Migration::new(step.version, step.name.into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(steps.collect())
}

/// How often a new SQLite file is tried, and how long is waited between.
const OPENINGS: u32 = 100;
const BETWEEN_OPENINGS: Duration = Duration::from_millis(50);

/// Makes the file if it is not there, with a log. Of several hosts that open a new file at once, one changes its journal to
/// a log, and the others are told that it is locked without having waited.
async fn create_sqlite(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(LOCK_TIMEOUT)
        .disable_statement_logging();
    let mut tries = OPENINGS;
    loop {
        match options.connect().await {
            Err(error) if tries > 0 && is_locked(&error) => {
                tries -= 1;
                tokio::time::sleep(BETWEEN_OPENINGS).await;
            }
            opened => return opened,
        }
    }
}

/// SQLITE_BUSY and its kin.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("5" | "261" | "517"))
}

/// How long a transaction waits for another's lock before it gives up with [`StoreError::Busy`].
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The database.
#[derive(Clone)]
pub struct Store(Pools);

#[derive(Clone)]
enum Pools {
    Sqlite(Sqlite),
    Postgres(sqlx::PgPool),
}

/// A transaction that writes. Dropped without [`Tx::commit`], it changes nothing.
pub struct Tx(Session);

impl Deref for Tx {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl Tx {
    /// Makes all of it so.
    ///
    /// # Errors
    /// If the database cannot promise it; then nothing is changed.
    pub async fn commit(self) -> Result<(), StoreError> {
        crash::point();
        match self.0.0 {
            Inner::Sqlite(Some(Lease::Turn(turn))) => turn.commit().await?,
            Inner::PostgresTx(transaction) => transaction.commit().await?,
            // Somebody stopped waiting for a statement of it, and so it was undone.
            Inner::Sqlite(_) | Inner::Postgres(_) => return Err(sqlite::ended()),
        }
        crash::point();
        Ok(())
    }
}

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is neither a file for SQLite nor a URL of PostgreSQL.
    #[error("the database address must begin with `sqlite:` or `postgres:`")]
    UnknownEngine,
    /// The address could not be read.
    #[error("the database address cannot be read")]
    Address(#[source] sqlx::Error),
    /// The database does not answer, or refuses.
    #[error("the database cannot be opened")]
    Open(#[source] Source),
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// What opening a database does with its schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schema {
    BroughtUpToDate,
    LeftAsItIs,
}

fn unopened(error: impl std::error::Error + Send + Sync + 'static) -> ConnectError {
    ConnectError::Open(Arc::new(error))
}

impl Store {
    /// Opens the database at `url` (`sqlite:<path>` or `postgres://…`) and brings its schema up to date. Several hosts
    /// may do so at once.
    ///
    /// # Errors
    /// [`ConnectError`] says what is wrong with the address or the database.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::open(url, Schema::BroughtUpToDate).await
    }

    /// Opens a database that is there and leaves its schema as it is: for a newer program beside older hosts. Only what
    /// has been in the schema from the start can be read then.
    ///
    /// # Errors
    /// [`ConnectError`] says what is wrong with the address or the database.
    pub async fn connect_beside_older(url: &str) -> Result<Self, ConnectError> {
        Self::open(url, Schema::LeftAsItIs).await
    }

    async fn open(url: &str, schema: Schema) -> Result<Self, ConnectError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            Self::open_sqlite(Path::new(path.trim_start_matches("//")), schema).await
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Self::open_postgres(url, schema).await
        } else {
            Err(ConnectError::UnknownEngine)
        }
    }

    async fn open_sqlite(path: &Path, schema: Schema) -> Result<Self, ConnectError> {
        if schema == Schema::BroughtUpToDate {
            let mut connection = create_sqlite(path).await.map_err(unopened)?;
            // SQLite has no lock for this: of two hosts that open a new file at once, one fails at a step that the other
            // has just done, and finds it done when it looks again.
            let mut tries = MIGRATIONS.len();
            while let Err(error) = migrator(|step| step.sqlite).run_direct(None, &mut connection, false).await
            {
                tries = tries.checked_sub(1).ok_or(error)?;
            }
            connection.close().await.map_err(unopened)?;
        }
        Ok(Self(Pools::Sqlite(Sqlite::open(path).map_err(unopened)?)))
    }

    async fn open_postgres(url: &str, schema: Schema) -> Result<Self, ConnectError> {
        let options: PgConnectOptions = url.parse().map_err(ConnectError::Address)?;
        let options = options.application_name("ringfence").disable_statement_logging();
        // On a connection without the timeout: a host that starts waits for as long as another changes the schema.
        let mut connection = options.connect().await.map_err(unopened)?;
        if schema == Schema::BroughtUpToDate {
            migrator(|step| step.postgres).run_direct(None, &mut connection, false).await?;
        }
        connection.close().await.map_err(unopened)?;
        let options = options.options([
            ("lock_timeout", format!("{}ms", LOCK_TIMEOUT.as_millis())),
            // A host that is cut off in mid-transaction must not hold its locks until TCP gives up.
            ("idle_in_transaction_session_timeout", "30000ms".to_owned()),
            // Each statement has an index to go by. While a table is small PostgreSQL would rather read all of it, and keep
            // to that plan while the table grows. (A plan for any argument would have no sight of a LIMIT: that is left to
            // PostgreSQL.)
            ("enable_seqscan", "off".to_owned()),
            ("jit", "off".to_owned()),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .acquire_timeout(LOCK_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(unopened)?;
        Ok(Self(Pools::Postgres(pool)))
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none becomes free in time.
    pub async fn reader(&self) -> Result<Session, StoreError> {
        Ok(Session(match &self.0 {
            Pools::Sqlite(sqlite) => Inner::Sqlite(Some(sqlite.reader().await?)),
            Pools::Postgres(pool) => Inner::Postgres(pool.acquire().await?),
        }))
    }

    /// A connection for reading, to which the database stays as it is now: what others write meanwhile is not seen.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none becomes free in time.
    pub async fn snapshot(&self) -> Result<Session, StoreError> {
        Ok(Session(match &self.0 {
            Pools::Sqlite(sqlite) => Inner::Sqlite(Some(sqlite.snapshot().await?)),
            Pools::Postgres(pool) => {
                let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
                let mut snapshot = pool.begin_with(begin).await?;
                // Who needs this looks at all there is.
                sqlx::query("SET LOCAL enable_seqscan = on").execute(&mut *snapshot).await?;
                Inner::PostgresTx(snapshot)
            }
        }))
    }

    /// Begins a transaction that writes. On SQLite there is one at a time.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if none can begin in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Tx(Session(match &self.0 {
            Pools::Sqlite(sqlite) => Inner::Sqlite(Some(sqlite.begin().await?)),
            Pools::Postgres(pool) => Inner::PostgresTx(pool.begin().await?),
        })))
    }

    /// Whether other hosts may be at work on the same database.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.0, Pools::Postgres(_))
    }

    /// Waits until what writes has ended, and closes the database. What reads may come to its end.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite(sqlite) => sqlite.close().await,
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}
