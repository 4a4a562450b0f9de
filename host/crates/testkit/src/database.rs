use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
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
    folder: TempDir,
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
        Self { url, folder }
    }

    /// What a store is opened with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder that lives as long as the database.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
