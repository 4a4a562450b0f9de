use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::{Database, Engine};

/// A table of its own, into which rows are committed one by one: what any service on this engine and disk is bound by.
pub struct DurableRows {
    pool: Pool,
    drivers: usize,
    next: Arc<AtomicU64>,
    _database: Database,
}

#[derive(Clone)]
enum Pool {
    /// One connection, as there is one writer.
    Sqlite(sqlx::SqlitePool),
    Postgres(sqlx::PgPool),
}

impl DurableRows {
    /// An empty table for as many drivers at once.
    ///
    /// # Panics
    /// If there is no database.
    pub async fn new(engine: Engine, drivers: usize) -> Self {
        let database = Database::new(engine).await;
        let table = "CREATE TABLE rows (id BIGINT PRIMARY KEY, content TEXT NOT NULL)";
        let pool = match engine {
            Engine::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(database.url().trim_start_matches("sqlite:"))
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full);
                let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
                let pool = pool.expect("a database");
                sqlx::query(table).execute(&pool).await.expect("a table");
                Pool::Sqlite(pool)
            }
            Engine::Postgres => {
                let pool = sqlx::postgres::PgPoolOptions::new()
                    .max_connections(u32::try_from(drivers).unwrap_or(u32::MAX));
                let pool = pool.connect(database.url()).await.expect("a database");
                sqlx::query(table).execute(&pool).await.expect("a table");
                Pool::Postgres(pool)
            }
        };
        Self { pool, drivers, next: Arc::default(), _database: database }
    }

    /// Commits of one row a second, for so long.
    ///
    /// # Panics
    /// If the database refuses one.
    pub async fn commits(&self, time: Duration) -> f64 {
        let (begun, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let drivers: Vec<_> = (0..self.drivers)
            .map(|_| {
                let (pool, done, next) = (self.pool.clone(), Arc::clone(&done), Arc::clone(&self.next));
                tokio::spawn(async move {
                    while begun.elapsed() < time {
                        let id = next.fetch_add(1, Ordering::Relaxed) as i64;
                        let insert = "INSERT INTO rows (id, content) VALUES ($1, 'A row of usual length, as a service has')";
                        match &pool {
                            Pool::Sqlite(pool) => sqlx::query(insert).bind(id).execute(pool).await.map(|_| ()),
                            Pool::Postgres(pool) => sqlx::query(insert).bind(id).execute(pool).await.map(|_| ()),
                        }
                        .expect("a row is taken");
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for driver in drivers {
            driver.await.expect("a driver ends well");
        }
        done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
    }
}
