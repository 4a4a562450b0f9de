use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringfence_api::ConnectionLimits;

/// Runs other people's bots inside WebAssembly sandboxes and pays for their results.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a host.
    Serve(Serve),
    /// Make one more operator key and print it: for when the first one is lost.
    OperatorKey(Database),
    /// Print the OpenAPI document.
    Openapi,
}

/// Where things are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// Folder for the embedded database and for compiled code. It is made if it is not there.
    #[arg(long, env = "RINGFENCE_DATA_DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,

    /// PostgreSQL instead of the embedded database, as `postgres://user:password@host/name`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) database: Database,

    /// Address and port to listen on.
    #[arg(long, env = "RINGFENCE_LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Write the address that is listened on into this file once it is, for whoever started the host with port 0.
    #[arg(long, env = "RINGFENCE_ADDRESS_FILE")]
    pub(crate) address_file: Option<PathBuf>,

    /// Write the operator key of a new database into this file, readable for its owner alone, instead of printing it.
    #[arg(long, env = "RINGFENCE_OPERATOR_KEY_FILE")]
    pub(crate) operator_key_file: Option<PathBuf>,

    /// Development: every answer carries `X-Dev-Mode: true`, and internal errors are shown to clients.
    #[arg(long, env = "DEV_MODE", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) dev_mode: bool,

    /// Keep keys, passwords and addresses out of the logs. `false` writes what is logged as it is: for development.
    #[arg(long, env = "DEBUG_REDACTED_MODE", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) debug_redacted_mode: bool,

    /// What the host is for. `production` refuses what is only fit for development.
    #[arg(long, env = "RINGFENCE_ENVIRONMENT", value_enum, default_value_t = Environment::Development)]
    pub(crate) environment: Environment,

    /// Instances that may run at a time.
    #[arg(long, env = "RINGFENCE_SLOTS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slots: u32,

    /// How long one evaluation by an oracle may take, whatever it waits for.
    #[arg(long, env = "ORACLE_TIMEOUT_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) oracle_timeout_seconds: u64,

    /// The platform's share of a job's price in basis points, where the job names none.
    #[arg(long, env = "PLATFORM_FEE_BPS", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub(crate) platform_fee_bps: u16,

    /// The largest component that can be uploaded, in bytes.
    #[arg(long, env = "RINGFENCE_MAX_COMPONENT_BYTES", default_value_t = 64 << 20)]
    pub(crate) max_component_bytes: usize,

    /// The largest JSON body, in bytes.
    #[arg(long, env = "RINGFENCE_MAX_BODY_BYTES", default_value_t = 4 << 20)]
    pub(crate) max_body_bytes: usize,

    /// Connections that may be open at a time; others wait.
    #[arg(long, env = "RINGFENCE_MAX_CONNECTIONS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_connections: u16,

    /// Connections that one client address (of IPv6, one /64 network) may have open at a time; others are closed.
    #[arg(long, env = "RINGFENCE_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_connections_per_address: u16,

    /// How long a connection may take to send a request's headers, and stay open without a request.
    #[arg(long, env = "RINGFENCE_REQUEST_HEADER_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) request_header_timeout_seconds: u64,

    /// How long a request's body may take to arrive. Where nothing arrives for 10 s it is over sooner.
    #[arg(long, env = "RINGFENCE_REQUEST_BODY_TIMEOUT_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) request_body_timeout_seconds: u64,

    /// How long a client may take nothing of an answer that waits for it.
    #[arg(long, env = "RINGFENCE_RESPONSE_WRITE_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) response_write_timeout_seconds: u64,

    /// How logs are written.
    #[arg(long, env = "RINGFENCE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,

    /// What is logged, such as `info` or `ringfence_control=debug,info`.
    #[arg(long, env = "RINGFENCE_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Environment {
    Development,
    Production,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

/// Settings that must not go together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "DEV_MODE shows internal errors to clients and is refused with RINGFENCE_ENVIRONMENT=production; \
         switch off one of the two"
    )]
    DevModeInProduction,
    #[error(
        "DEBUG_REDACTED_MODE=false writes keys, passwords and addresses to the log and is refused with \
         RINGFENCE_ENVIRONMENT=production; change one of the two"
    )]
    UnredactedInProduction,
}

impl Serve {
    /// Whether the settings go together.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.environment != Environment::Production {
            return Ok(());
        }
        if self.dev_mode {
            return Err(ConfigError::DevModeInProduction);
        }
        if !self.debug_redacted_mode {
            return Err(ConfigError::UnredactedInProduction);
        }
        Ok(())
    }

    /// What the API holds its clients' connections to.
    pub(crate) fn connections(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections.into(),
            max_connections_per_address: self.max_connections_per_address.into(),
            request_header_timeout: Duration::from_secs(self.request_header_timeout_seconds),
            request_body_timeout: Duration::from_secs(self.request_body_timeout_seconds),
            response_write_timeout: Duration::from_secs(self.response_write_timeout_seconds),
        }
    }
}

impl Database {
    /// What the store is opened with.
    pub(crate) fn url(&self) -> String {
        self.database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", self.data_dir.join("ringfence.db").display()))
    }
}
