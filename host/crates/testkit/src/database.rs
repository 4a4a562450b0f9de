use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// A database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The embedded one.
    Sqlite,
    /// The one behind `RINGFENCE_TEST_POSTGRES`.
    Postgres,
}

/// A database of a test's own. What it held is gone with it, or with the throw-away server.
pub struct Database {
    url: String,
    /// Of the embedded one.
    _folder: TempDir,
}

/// A transaction that is held.
pub struct Held(PgConnection);

impl Held {
    /// Lets it go.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn release(mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.0).await.unwrap();
    }
}

impl Database {
    /// An empty database.
    ///
    /// # Panics
    /// If there is no PostgreSQL to make it on.
    pub async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => format!("sqlite:{}", folder.path().join("ringfence.db").display()),
            Engine::Postgres => {
                let server = std::env::var("RINGFENCE_TEST_POSTGRES").expect(
                    "this test needs PostgreSQL: use ./test, or `eval \"$(scripts/postgres.sh start)\"` before cargo",
                );
                let name = folder
                    .path()
                    .file_name()
                    .unwrap()
                    .to_string_lossy()
                    .replace(|c: char| !c.is_ascii_alphanumeric(), "");
                let name = format!("t_{name}_{}", std::process::id()).to_lowercase();
                let mut connection =
                    PgConnection::connect(&server).await.expect("RINGFENCE_TEST_POSTGRES does not answer");
                sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
                let (server, _) = server.rsplit_once('/').unwrap();
                format!("{server}/{name}")
            }
        };
        Self { url, _folder: folder }
    }

    /// What a store is opened with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Begins a transaction on PostgreSQL, does this in it and holds it, so that hosts have to wait for what it locks.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn hold(&self, sql: &str) -> Held {
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        sqlx::query("BEGIN").execute(&mut connection).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        Held(connection)
    }

    /// The tables in which a text stands somewhere, as text or as bytes.
    ///
    /// # Panics
    /// If the database cannot be read.
    pub async fn tables_with(&self, text: &str) -> Vec<String> {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut found = Vec::new();
        if self.url.starts_with("postgres") {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let tables =
                "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'";
            let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
            assert!(tables.len() > 10, "{tables:?}");
            for table in tables {
                // Bytes are hexadecimal digits there.
                let rows = format!(
                    "SELECT COUNT(*) FROM {table} r WHERE POSITION($1 IN r::text) > 0 OR POSITION($2 IN r::text) > 0"
                );
                let rows = sqlx::query_scalar::<_, i64>(AssertSqlSafe(rows)).bind(text).bind(&hex);
                if rows.fetch_one(&mut connection).await.unwrap() > 0 {
                    found.push(table);
                }
            }
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            let tables = "SELECT name FROM sqlite_schema WHERE type = 'table'";
            let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
            assert!(tables.len() > 10, "{tables:?}");
            for table in tables {
                let columns = format!("SELECT name FROM pragma_table_info('{table}')");
                let columns = sqlx::query_scalar::<_, String>(AssertSqlSafe(columns));
                for column in columns.fetch_all(&mut connection).await.unwrap() {
                    let rows = format!(
                        "SELECT COUNT(*) FROM {table} WHERE INSTR({column}, $1) > 0 OR INSTR(HEX({column}), UPPER($2)) > 0"
                    );
                    let rows = sqlx::query_scalar::<_, i64>(AssertSqlSafe(rows)).bind(text).bind(&hex);
                    if rows.fetch_one(&mut connection).await.unwrap() > 0 {
                        found.push(format!("{table}.{column}"));
                    }
                }
            }
        }
        found
    }

    /// How many rows there are: `queue WHERE kind = 'expire'`.
    ///
    /// # Panics
    /// If the database does not say.
    pub async fn count(&self, of: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT COUNT(*) FROM {of}"));
        let rows = if self.url.starts_with("postgres") {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut connection).await
        };
        rows.unwrap()
    }

    /// Does to the database what a host would never do.
    ///
    /// # Errors
    /// What the database says.
    ///
    /// # Panics
    /// If the database cannot be reached.
    pub async fn meddle(&self, sql: &str) -> Result<u64, String> {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = if self.url.starts_with("postgres") {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.map(|done| done.rows_affected())
        } else {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.map(|done| done.rows_affected())
        };
        done.map_err(|error| error.to_string())
    }
}
