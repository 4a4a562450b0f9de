use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{Client, Database, Engine};

/// How a host is started.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// More arguments for `ringfence serve`.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

/// A host in a process of its own, on a database of its own.
pub struct Host {
    binary: PathBuf,
    options: HostOptions,
    database: Arc<Database>,
    /// Where this host keeps what is its own.
    folder: Arc<TempDir>,
    process: Child,
    base: String,
}

impl Host {
    /// Starts the host that `binary` is and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(binary: &str, engine: Engine, options: HostOptions) -> Self {
        let (database, folder) =
            (Arc::new(Database::new(engine).await), Arc::new(tempfile::tempdir().unwrap()));
        let (process, base) = spawn(&PathBuf::from(binary), &database, folder.path(), &options).await;
        Self { binary: binary.into(), options, database, folder, process, base }
    }

    /// Starts another host on the same database, with the same master key.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn another(&self) -> Self {
        let (binary, database) = (self.binary.clone(), Arc::clone(&self.database));
        let folder = Arc::new(tempfile::tempdir().unwrap());
        std::fs::copy(self.folder().join("master.key"), folder.path().join("master.key")).unwrap();
        let options = self.options.clone();
        let (process, base) = spawn(&binary, &database, folder.path(), &options).await;
        Self { binary, options, database, folder, process, base }
    }

    /// Runs a command of the program on the host's database, with this on its standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn command(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--data-dir").arg(self.folder());
        command.args(["--database-url", self.database.url()]);
        clean(&mut command).envs(self.options.env.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        // A command that fails at once does not read it.
        let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
        process.wait_with_output().unwrap()
    }

    /// The folder where this host keeps what is its own.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// With other options from the next start on.
    pub fn set_options(&mut self, options: HostOptions) {
        self.options = options;
    }

    /// A client of this host.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// The address that it listens on, as `127.0.0.1:8080`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    /// The key that the host made for its operator.
    ///
    /// # Panics
    /// If it made none.
    #[must_use]
    pub fn operator_key(&self) -> String {
        std::fs::read_to_string(self.folder().join("operator.key"))
            .expect("an operator key")
            .trim()
            .to_owned()
    }

    /// The database that it uses.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("host.log")).unwrap_or_default()
    }

    /// Ends the host as a crash would: kill −9.
    ///
    /// # Panics
    /// If it cannot be ended.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts a host again, on the same data, at another address.
    pub async fn restart(&mut self) {
        let (process, base) = spawn(&self.binary, &self.database, self.folder.path(), &self.options).await;
        self.process = process;
        self.base = base;
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the host to end by itself; whether it ended well.
    ///
    /// # Panics
    /// If it does not within half a minute.
    pub async fn wait(&mut self) -> bool {
        for _ in 0..600 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the host does not end:\n{}", self.log());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "what a failed test shows")]
            {
                eprintln!("--- the host's log ---\n{}", self.log());
            }
        }
    }
}

/// A command that knows nothing of this process's settings.
fn clean(command: &mut Command) -> &mut Command {
    for variable in [
        "DATABASE_URL",
        "DEV_MODE",
        "DEBUG_REDACTED_MODE",
        "RINGFENCE_MASTER_KEY",
        "RINGFENCE_MASTER_KEY_FILE",
    ] {
        command.env_remove(variable);
    }
    command
}

async fn spawn(
    binary: &PathBuf,
    database: &Database,
    folder: &Path,
    options: &HostOptions,
) -> (Child, String) {
    let log_path = folder.join("host.log");
    let address_path = folder.join("address");
    let _ = std::fs::remove_file(&address_path);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).unwrap();
    let mut command = Command::new(binary);
    clean(&mut command)
        .arg("serve")
        .args(["--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder)
        .arg("--operator-key-file")
        .arg(folder.join("operator.key"))
        .arg("--address-file")
        .arg(&address_path)
        .args(&options.args)
        .env("RINGFENCE_LOG", "info")
        .env("RINGFENCE_SLOTS", "16")
        // A test asks faster than people do. Those of the limits set them.
        .env("RINGFENCE_READS_PER_MINUTE", "1000000")
        .env("RINGFENCE_WRITES_PER_MINUTE", "1000000")
        .env("RINGFENCE_ANONYMOUS_PER_MINUTE", "1000000")
        .env("RINGFENCE_LOGINS_PER_MINUTE", "1000000")
        .envs(options.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command.args(["--database-url", database.url()]);
    let mut process = command.spawn().expect("the host can be started");
    let begun = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            panic!(
                "the host ended at once ({status}):\n{}",
                std::fs::read_to_string(&log_path).unwrap_or_default()
            );
        }
        if let Ok(address) = std::fs::read_to_string(&address_path)
            && address.ends_with('\n')
        {
            return (process, format!("http://{}", address.trim()));
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the host does not listen within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
