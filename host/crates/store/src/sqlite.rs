//! SQLite: one connection that writes, several that read.
//!
//! A statement takes some microseconds, less than a hop to another thread, so it is carried out where it is awaited. What
//! waits for the disk or may take long goes to a thread for blocking work: commits, lists, counts, batches.
//!
//! Transactions that write take turns, and share commits: each is a savepoint of the database's own transaction. Those that
//! were waiting for their turn when the first ended have theirs before the commit, which makes all of them durable at once.
//! Each is told only then; if the commit fails, none of them has happened. Who sees what others have done and goes without a
//! commit of its own, to answer from it, makes it durable first.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::{FromSql, ToSql, ToSqlOutput};
use rusqlite::{CachedStatement, Connection, OpenFlags, Statement};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::connect::LOCK_TIMEOUT;
use crate::session::{self, Arg};
use crate::{StoreError, crash};

/// How many read at a time.
const READERS: usize = 8;
/// How many statements a connection keeps prepared: all that the store has, with room for those that are put together.
const PREPARED: usize = 400;
/// What a connection keeps in memory of the file at most. What the writer writes to again and again stays there, for nobody
/// else changes it; a reader begins anew after each commit.
const WRITER_CACHE_KIB: i64 = 65_536;
const READER_CACHE_KIB: i64 = 8_192;
/// How long is waited between two looks at a file that another process is writing to.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Why SQLite was not even asked.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("another transaction took too long")]
    Waited,
    #[error("the database is closed")]
    Closed,
    #[error("the transaction has ended")]
    Ended,
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Waited => Self::Busy(Arc::new(trouble)),
            Trouble::Closed | Trouble::Ended => Self::Database(Arc::new(trouble)),
        }
    }
}

/// The connections to a file.
#[derive(Clone)]
pub(crate) struct Sqlite {
    /// Nothing once the database is closed.
    writer: Arc<tokio::sync::Mutex<Option<Writer>>>,
    readers: Arc<Readers>,
}

struct Writer {
    connection: Connection,
    /// Tells those whose turn has ended how the commit did that they wait for.
    waiting: Option<watch::Sender<Option<Result<(), StoreError>>>>,
}

struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Sqlite {
    /// Opens a file that is there.
    pub(crate) fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
        // Who waits for another process waits without a thread.
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Pages that are written to the log again and again are copied into the database less often: each 16 MiB.
        connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
        let readers = Readers {
            path: path.to_owned(),
            permits: Arc::new(Semaphore::new(READERS)),
            idle: Mutex::default(),
        };
        let writer = Writer { connection, waiting: None };
        Ok(Self { writer: Arc::new(tokio::sync::Mutex::new(Some(writer))), readers: Arc::new(readers) })
    }

    pub(crate) async fn reader(&self) -> Result<Lease, StoreError> {
        let permit = timeout_at(Instant::now() + LOCK_TIMEOUT, self.readers.permits.clone().acquire_owned());
        let permit = permit.await.map_err(|_| Trouble::Waited)?.map_err(|_| Trouble::Closed)?;
        let idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.readers.connect()?,
        };
        Ok(Lease::Reader(Reader {
            connection: Some(connection),
            readers: Arc::clone(&self.readers),
            _permit: permit,
        }))
    }

    /// As [`Self::reader`]; what others write from now on is not seen.
    pub(crate) async fn snapshot(&self) -> Result<Lease, StoreError> {
        let lease = self.reader().await?;
        execute(lease.connection()?, "BEGIN", &[])?;
        Ok(lease)
    }

    /// Waits for its turn to write.
    pub(crate) async fn begin(&self) -> Result<Lease, StoreError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let writer = timeout_at(deadline, self.writer.clone().lock_owned()).await;
        let writer = writer.map_err(|_| Trouble::Waited)?;
        loop {
            match writer.as_ref().ok_or(Trouble::Closed)?.begin() {
                // Another process is writing.
                Err(StoreError::Busy(_)) if Instant::now() < deadline => sleep(BETWEEN_LOOKS).await,
                begun => {
                    begun?;
                    return Ok(Lease::Turn(Turn { writer, ended: false }));
                }
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.readers.permits.close();
        self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut writer = self.writer.lock().await;
        if let Some(writer) = writer.as_mut() {
            let _ = writer.commit();
        }
        *writer = None;
    }
}

impl Readers {
    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        Ok(connection)
    }
}

fn connect(path: &Path, access: OpenFlags, cache_kib: i64) -> Result<Connection, rusqlite::Error> {
    // No lock around what one thread at a time has.
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // Pages are counted in numbers above zero, KiB in numbers below.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    // A statement that may fail half-way keeps a journal of its own. In memory, not in a file for each.
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

impl Writer {
    /// A turn begins: in the database's transaction, which may be open for those before it.
    fn begin(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            execute(&self.connection, "BEGIN IMMEDIATE", &[])?;
        }
        let begun = execute(&self.connection, "SAVEPOINT turn", &[]);
        if begun.is_err() && self.waiting.is_none() {
            self.roll_back();
        }
        begun.map(|_| ())
    }

    /// A turn ends as if it had not been. What it has seen of those who wait for their commit may be told from now on: it is
    /// made durable here and now.
    fn undo(&mut self) {
        let undone = execute(&self.connection, "ROLLBACK TO turn", &[])
            .and_then(|_| execute(&self.connection, "RELEASE turn", &[]));
        match undone {
            Ok(_) if self.waiting.is_none() => self.roll_back(),
            Ok(_) => {
                if let Err(error) = self.commit() {
                    end_process("what was seen cannot be made durable", &error);
                }
            }
            // SQLite has given up the whole transaction, as it does on a full disk.
            Err(error) => {
                self.roll_back();
                self.tell(&Err(error));
            }
        }
    }

    /// Makes durable all whose turn has ended, and tells them.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.waiting.is_none() {
            return Ok(());
        }
        crash::point();
        let committed = execute(&self.connection, "COMMIT", &[]).map(|_| ());
        if committed.is_err() {
            self.roll_back();
        }
        self.tell(&committed);
        committed
    }

    fn tell(&mut self, ended: &Result<(), StoreError>) {
        if let Some(waiting) = self.waiting.take() {
            waiting.send_replace(Some(ended.clone()));
        }
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&self.connection, "ROLLBACK", &[])
        {
            end_process("SQLite cannot roll back", &error);
        }
    }
}

/// Ends the host as kill −9 would, before it says or builds upon what is not so. What was promised is durable, and a host
/// that starts again begins with that.
fn end_process(why: &str, error: &StoreError) -> ! {
    tracing::error!(error = error as &dyn std::error::Error, "{why}: the host ends");
    std::process::abort()
}

/// What statements are carried out on.
pub(crate) enum Lease {
    Reader(Reader),
    Turn(Turn),
}

/// A connection that reads. Goes back to the others when it is dropped.
pub(crate) struct Reader {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let is_idle = connection.is_autocommit() || execute(&connection, "ROLLBACK", &[]).is_ok();
        if is_idle && !self.readers.permits.is_closed() {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// A transaction that writes. Dropped before its end, it changes nothing.
pub(crate) struct Turn {
    writer: OwnedMutexGuard<Option<Writer>>,
    ended: bool,
}

impl Turn {
    /// Ends the turn, and waits until it is durable.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        execute(self.connection()?, "RELEASE turn", &[])?;
        self.ended = true;
        let all = Arc::clone(OwnedMutexGuard::mutex(&self.writer));
        let mut waiting = {
            let writer = self.writer.as_mut().ok_or(Trouble::Closed)?;
            match &writer.waiting {
                Some(waiting) => waiting.subscribe(),
                None => {
                    let (tell, waiting) = watch::channel(None);
                    writer.waiting = Some(tell);
                    // It queues behind all who are waiting now.
                    tokio::task::spawn_blocking(move || {
                        if let Some(writer) = all.blocking_lock().as_mut() {
                            // Those whom it concerns are told.
                            let _ = writer.commit();
                        }
                    });
                    waiting
                }
            }
        };
        drop(self);
        let ended = waiting.wait_for(Option::is_some).await.map_err(|_| Trouble::Ended)?;
        ended.clone().ok_or(Trouble::Ended)?
    }

    /// An error if SQLite has ended the transaction by itself, or statements would be carried out each for itself.
    fn connection(&self) -> Result<&Connection, StoreError> {
        let writer = self.writer.as_ref().ok_or(Trouble::Closed)?;
        if writer.connection.is_autocommit() { Err(Trouble::Ended.into()) } else { Ok(&writer.connection) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let (false, Some(writer)) = (self.ended, self.writer.as_mut()) {
            writer.undo();
        }
    }
}

impl Lease {
    /// Where its statements are carried out.
    pub(crate) fn connection(&self) -> Result<&Connection, StoreError> {
        match self {
            Self::Reader(reader) => reader.connection.as_ref().ok_or_else(|| Trouble::Closed.into()),
            Self::Turn(turn) => turn.connection(),
        }
    }
}

/// Carries out on a thread what may take long. Whoever stops waiting for it has no lease any more.
pub(crate) async fn aside<T: Send + 'static>(
    lease: &mut Option<Lease>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let taken = lease.take().ok_or(Trouble::Ended)?;
    let worked = tokio::task::spawn_blocking(move || {
        let done = taken.connection().and_then(work);
        (taken, done)
    });
    let (taken, done) = worked.await.map_err(|error| StoreError::Database(Arc::new(error)))?;
    *lease = Some(taken);
    done
}

/// Carries out at once what takes some microseconds. Who does so again and again lets others have the thread in between.
pub(crate) async fn here<T>(
    lease: &mut Option<Lease>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    tokio::task::coop::consume_budget().await;
    work(lease.as_ref().ok_or(Trouble::Ended)?.connection()?)
}

/// Why a transaction that is not there cannot be committed.
pub(crate) fn ended() -> StoreError {
    Trouble::Ended.into()
}

pub(crate) fn execute(connection: &Connection, sql: &str, args: &[Arg]) -> Result<u64, StoreError> {
    let changed = prepare(connection, sql, args)?.raw_execute()?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

pub(crate) fn all<T>(
    connection: &Connection,
    sql: &str,
    args: &[Arg],
    read: impl Fn(&session::Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = prepare(connection, sql, args)?;
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(&Row::of(row))?);
    }
    Ok(found)
}

pub(crate) fn optional<T>(
    connection: &Connection,
    sql: &str,
    args: &[Arg],
    read: impl Fn(&session::Row) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = prepare(connection, sql, args)?;
    let changes = !statement.readonly();
    let mut rows = statement.raw_query();
    let found = rows.next()?.map(|row| read(&Row::of(row))).transpose()?;
    // What a change breaks is told at its end.
    while changes && rows.next()?.is_some() {}
    Ok(found)
}

fn prepare<'c>(connection: &'c Connection, sql: &str, args: &[Arg]) -> rusqlite::Result<CachedStatement<'c>> {
    let mut statement = connection.prepare_cached(sql)?;
    for index in 1..=statement.parameter_count() {
        // To SQLite `$2` is a name like any other, and its place is that of its first use. `?` has none.
        let name = statement.parameter_name(index).and_then(|name| name.get(1..));
        let place = name.map_or(Ok(index), str::parse::<usize>).unwrap_or(usize::MAX);
        let arg = args
            .get(place.wrapping_sub(1))
            .ok_or(rusqlite::Error::InvalidParameterCount(args.len(), place))?;
        statement.raw_bind_parameter(index, arg)?;
    }
    Ok(statement)
}

/// A row, and which of its columns is probably asked for next: they are mostly read in their order, and SQLite has names of
/// columns only to be compared one after the other.
pub(crate) struct Row<'a> {
    row: &'a rusqlite::Row<'a>,
    next: Cell<usize>,
}

impl<'a> Row<'a> {
    fn of(row: &'a rusqlite::Row<'a>) -> session::Row<'a> {
        session::Row::Sqlite(Self { row, next: Cell::new(0) })
    }

    pub(crate) fn get<T: FromSql>(&self, column: &str) -> Result<T, rusqlite::Error> {
        let statement: &Statement<'_> = self.row.as_ref();
        let next = self.next.get();
        let index = match statement.column_name(next) {
            Ok(name) if name == column => next,
            _ => statement.column_index(column)?,
        };
        self.next.set(index.wrapping_add(1));
        self.row.get(index)
    }
}

impl ToSql for Arg {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Int(value) => value.to_sql(),
            Self::Text(value) => value.to_sql(),
            Self::Bytes(value) => value.to_sql(),
        }
    }
}
