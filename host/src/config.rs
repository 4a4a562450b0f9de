use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use ringfence_api::ConnectionLimits;
use ringfence_control::RateLimits;
use ringfence_model::{OrgId, Role};
use ringfence_runtime::CompileLimits;
use secrecy::{ExposeSecret as _, SecretString};

use crate::outbound::OutboundOptions;

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
    Serve(Box<Serve>),
    /// Make one more operator key and print it: for when the first one is lost.
    OperatorKey(Database),
    /// Users, who log in with a password.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// The keys that seal the database's secrets and sign tokens.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// The audit log.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// The ledger.
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Compile what the deployed bots run, before this version takes over: beside the older host that still serves.
    Precompile(Precompile),
    /// Print the permission matrix: which role may do what.
    Permissions,
    /// Print the OpenAPI document.
    Openapi,
    /// Compile the component on standard input: what a host has its children do.
    #[command(name = COMPILE_COMPONENT, hide = true)]
    CompileComponent,
}

/// The command of a host's children.
pub(crate) const COMPILE_COMPONENT: &str = "compile-component";

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user, such as the first admin. The password is read from standard input.
    Create(CreateUser),
}

#[derive(Debug, Args)]
pub(crate) struct CreateUser {
    #[command(flatten)]
    pub(crate) database: Database,

    /// The address that the user logs in with.
    #[arg(long)]
    pub(crate) email: String,

    /// What people call the user.
    #[arg(long)]
    pub(crate) name: String,

    /// `admin`, `operator`, `user` or `viewer`.
    #[arg(long)]
    pub(crate) role: Role,

    /// The org that the user belongs to; the operators' if none is named.
    #[arg(long)]
    pub(crate) org: Option<OrgId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print a new master key.
    Generate,
    /// Make a new master key and seal every secret under it.
    Rotate(RotateMasterKey),
    /// Sign tokens with a new key from now on.
    RotateSigning(RotateSigningKey),
}

#[derive(Debug, Args)]
pub(crate) struct RotateMasterKey {
    #[command(flatten)]
    pub(crate) database: Database,

    /// Make no new key: drop all but the first from the file, once every secret is sealed under it.
    #[arg(long)]
    pub(crate) forget_old: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RotateSigningKey {
    #[command(flatten)]
    pub(crate) database: Database,

    /// Forget the keys so far: everybody has to log in again.
    #[arg(long)]
    pub(crate) forget_old: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Look through every chain and name the first broken link.
    Verify(Database),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Compute every balance anew from all transfers and name what does not hold. Hosts may serve meanwhile.
    Check(Database),
}

/// Where things are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// Folder for the embedded database and for compiled code. It is made if it is not there.
    #[arg(long, env = "RINGFENCE_DATA_DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,

    /// PostgreSQL instead of the embedded database, as `postgres://user:password@host/name`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_parser = secret)]
    pub(crate) database_url: Option<SecretString>,

    /// File with the master key, which seals the secrets in the database. Or give the key itself in
    /// RINGFENCE_MASTER_KEY. Without either, one is made in the data folder.
    #[arg(long, env = "RINGFENCE_MASTER_KEY_FILE")]
    pub(crate) master_key_file: Option<PathBuf>,
}

/// What compiling one component may take.
#[derive(Debug, Args)]
pub(crate) struct Compiling {
    /// Address space that compiling one component may take, in bytes.
    #[arg(long, env = "RINGFENCE_COMPILE_MEMORY_BYTES", default_value_t = 4 << 30, value_parser = clap::value_parser!(u64).range(256 << 20..))]
    compile_memory_bytes: u64,

    /// Processor time that compiling one component may take.
    #[arg(long, env = "RINGFENCE_COMPILE_CPU_SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    compile_cpu_seconds: u64,

    /// How long compiling one component may take.
    #[arg(long, env = "RINGFENCE_COMPILE_TIMEOUT_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    compile_timeout_seconds: u64,
}

impl Compiling {
    pub(crate) fn limits(&self) -> CompileLimits {
        CompileLimits {
            memory_bytes: self.compile_memory_bytes,
            cpu_seconds: self.compile_cpu_seconds,
            wall_time_ms: self.compile_timeout_seconds * 1000,
            ..CompileLimits::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Precompile {
    #[command(flatten)]
    pub(crate) database: Database,

    #[command(flatten)]
    pub(crate) compiling: Compiling,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) database: Database,

    #[command(flatten)]
    pub(crate) compiling: Compiling,

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

    /// Instances that one org may run at a time, fewer than there are slots; half of them if it is not given.
    #[arg(long, env = "RINGFENCE_SLOTS_PER_ORG", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slots_per_org: Option<u32>,

    /// Calls of one org that may wait for an instance at a time.
    #[arg(long, env = "RINGFENCE_QUEUE_PER_ORG", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) queue_per_org: u32,

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

    /// How many days the lines of calls are kept; 0 keeps them for ever. A bot can have its own kept less long.
    #[arg(long, env = "RINGFENCE_LOG_RETENTION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub(crate) log_retention_days: u32,

    /// How many days calls are kept, but for those about submissions; 0 keeps them for ever.
    #[arg(long, env = "RINGFENCE_INVOCATION_RETENTION_DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(0..=3650))]
    pub(crate) invocation_retention_days: u32,

    /// Requests that read, a minute, by a key or a user. A key can have a limit of its own.
    #[arg(long, env = "RINGFENCE_READS_PER_MINUTE", default_value = "60", value_parser = a_minute)]
    pub(crate) reads_per_minute: NonZeroU32,

    /// Requests that change something, a minute, by a key or a user.
    #[arg(long, env = "RINGFENCE_WRITES_PER_MINUTE", default_value = "20", value_parser = a_minute)]
    pub(crate) writes_per_minute: NonZeroU32,

    /// Requests without a key or token, or with a wrong one, a minute, by an address.
    #[arg(long, env = "RINGFENCE_ANONYMOUS_PER_MINUTE", default_value = "60", value_parser = a_minute)]
    pub(crate) anonymous_per_minute: NonZeroU32,

    /// Logins a minute, by an address, and into an account.
    #[arg(long, env = "RINGFENCE_LOGINS_PER_MINUTE", default_value = "10", value_parser = a_minute)]
    pub(crate) logins_per_minute: NonZeroU32,

    #[command(flatten)]
    pub(crate) outbound: OutboundOptions,

    /// Where language models are: a URL that speaks OpenAI's chat completions, up to `/chat/completions`.
    #[arg(long, env = "RINGFENCE_LLM_BASE_URL", requires = "llm_allow_models")]
    pub(crate) llm_base_url: Option<String>,

    /// A file with the key that this endpoint wants.
    #[arg(long, env = "RINGFENCE_LLM_API_KEY_FILE", requires = "llm_base_url")]
    pub(crate) llm_api_key_file: Option<PathBuf>,

    /// The models that bots may be granted, separated by commas.
    #[arg(long, env = "RINGFENCE_LLM_ALLOW_MODELS", value_delimiter = ',', requires = "llm_base_url")]
    pub(crate) llm_allow_models: Vec<String>,

    /// Networks of proxies whose X-Forwarded-For is believed, such as `10.0.0.0/8`, separated by commas.
    #[arg(long, env = "RINGFENCE_TRUSTED_PROXIES", value_delimiter = ',', value_parser = proxies)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// Let a production host, or one in DEV_MODE, listen on an address that is not loopback without a trusted proxy: something
    /// else in front of it speaks TLS, or nobody else can reach it.
    #[arg(long, env = "RINGFENCE_ALLOW_OPEN_BIND", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) allow_open_bind: bool,

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
pub(crate) enum Refused {
    /// DEV_MODE, where others can come.
    #[error(
        "refused with DEV_MODE: RINGFENCE_LISTEN is open to other machines, and internal errors are shown to every client; \
         listen on 127.0.0.1, switch DEV_MODE off, or set RINGFENCE_ALLOW_OPEN_BIND=true if nobody else can reach this address"
    )]
    OpenDevMode,
    #[error(transparent)]
    Production(Unsafe),
}

/// Settings that must not go together with `RINGFENCE_ENVIRONMENT=production`. All of them are told at once.
#[derive(Debug, thiserror::Error)]
#[error("refused with RINGFENCE_ENVIRONMENT=production:{}", .0.iter().map(|one| format!("\n  - {one}")).collect::<String>())]
pub(crate) struct Unsafe(pub(crate) Vec<Danger>);

/// Something that is only fit for development.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Danger {
    #[error("DEV_MODE shows internal errors to clients; switch it off")]
    DevMode,
    #[error("DEBUG_REDACTED_MODE=false writes keys, passwords and addresses to the log; leave it on")]
    Unredacted,
    #[error(
        "RINGFENCE_LISTEN is open to other machines, and keys would cross the network in the clear; listen on 127.0.0.1, \
         name the proxy that speaks TLS in RINGFENCE_TRUSTED_PROXIES, or set RINGFENCE_ALLOW_OPEN_BIND=true if \
         something else does"
    )]
    OpenBind,
    #[error("DATABASE_URL has a placeholder for a password; give the database's user a real one")]
    PlaceholderPassword,
    #[error(
        "there is no master key; make one with `ringfence keys generate`, keep it apart from the database, and give it in \
         RINGFENCE_MASTER_KEY_FILE or RINGFENCE_MASTER_KEY"
    )]
    NoMasterKey,
}

/// Passwords that stand in examples.
const PLACEHOLDERS: &[&str] = &[
    "password",
    "passwd",
    "postgres",
    "changeme",
    "change-me",
    "change_me",
    "secret",
    "example",
    "admin",
    "test",
    "ringfence",
    "123456",
    "12345678",
    "xxx",
    "todo",
];

impl Serve {
    /// Whether the settings go together.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        let reachable = !self.listen.ip().is_loopback() && !self.allow_open_bind;
        if self.environment != Environment::Production {
            // A proxy in front of it changes nothing: whoever is behind that sees what it shows.
            return if self.dev_mode && reachable { Err(Refused::OpenDevMode) } else { Ok(()) };
        }
        let open = reachable && self.trusted_proxies.is_empty();
        let given = std::env::var_os(crate::master_key::VARIABLE).is_some_and(|key| !key.is_empty());
        let dangers = [
            (self.dev_mode, Danger::DevMode),
            (!self.debug_redacted_mode, Danger::Unredacted),
            (open, Danger::OpenBind),
            (self.database.has_placeholder_password(), Danger::PlaceholderPassword),
            (!given && self.database.master_key_file.is_none(), Danger::NoMasterKey),
        ];
        let found: Vec<_> =
            dangers.into_iter().filter_map(|(found, danger)| found.then_some(danger)).collect();
        if found.is_empty() { Ok(()) } else { Err(Refused::Production(Unsafe(found))) }
    }

    /// What principals and addresses may do a minute.
    pub(crate) const fn rate_limits(&self) -> RateLimits {
        RateLimits {
            reads_per_minute: self.reads_per_minute,
            writes_per_minute: self.writes_per_minute,
            anonymous_per_minute: self.anonymous_per_minute,
            logins_per_minute: self.logins_per_minute,
        }
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
        self.database_url.as_ref().map_or_else(
            || format!("sqlite:{}", self.data_dir.join("ringfence.db").display()),
            |url| url.expose_secret().to_owned(),
        )
    }

    /// The folder of compiled code.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.data_dir.join("compiled")
    }

    fn has_placeholder_password(&self) -> bool {
        let url = self.database_url.as_ref().map(|url| url.expose_secret());
        let credentials =
            url.and_then(|url| url.split_once("://")?.1.rsplit_once('@')).map(|(before, _)| before);
        let password =
            credentials.and_then(|credentials| credentials.split_once(':')).map(|(_, password)| password);
        password.is_some_and(|password| {
            let password = password.to_lowercase();
            password.is_empty() || PLACEHOLDERS.contains(&password.as_str()) || password.starts_with('<')
        })
    }
}

/// A value that is never shown.
fn secret(value: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(value.to_owned().into())
}

/// A network of proxies. Not all of them: whoever trusts everyone believes what every client writes.
fn proxies(value: &str) -> Result<IpNet, String> {
    let network: IpNet = value.parse().map_err(|_| "must be a network such as 10.0.0.0/8".to_owned())?;
    if network.prefix_len() == 0 {
        return Err(
            "must not be every address there is: then any client could write its own address".to_owned()
        );
    }
    Ok(network)
}

/// Requests a minute.
fn a_minute(value: &str) -> Result<NonZeroU32, String> {
    let number = value.parse().ok().filter(|number: &NonZeroU32| number.get() <= 1_000_000);
    number.ok_or_else(|| "must be 1 to 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dangers(arguments: &[&str]) -> Vec<Danger> {
        let all = [&["ringfence", "serve", "--environment", "production"], arguments].concat();
        let Command::Serve(serve) = Cli::try_parse_from(all).unwrap().command else { panic!("it serves") };
        match serve.check() {
            Ok(()) => Vec::new(),
            Err(Refused::Production(Unsafe(dangers))) => dangers,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn dev_mode_is_not_for_other_machines() {
        let refused = |arguments: &[&str]| {
            let all = [&["ringfence", "serve"], arguments].concat();
            let Command::Serve(serve) = Cli::try_parse_from(all).unwrap().command else {
                panic!("it serves")
            };
            matches!(serve.check(), Err(Refused::OpenDevMode))
        };
        assert!(refused(&["--dev-mode", "--listen", "0.0.0.0:80"]));
        assert!(!refused(&["--dev-mode", "--listen", "0.0.0.0:80", "--allow-open-bind"]));
        assert!(!refused(&["--dev-mode"]));
        assert!(!refused(&["--listen", "0.0.0.0:80"]), "a host that is not in DEV_MODE");
    }

    #[test]
    fn what_is_for_development_is_refused_in_production() {
        let key = ["--master-key-file", "/somewhere"];
        let with_key = |more: &[&str]| dangers(&[&key, more].concat());
        assert_eq!(with_key(&[]), []);
        assert_eq!(dangers(&[]), [Danger::NoMasterKey]);
        assert_eq!(with_key(&["--dev-mode"]), [Danger::DevMode]);
        assert_eq!(with_key(&["--debug-redacted-mode=false"]), [Danger::Unredacted]);
        assert_eq!(with_key(&["--listen", "0.0.0.0:80"]), [Danger::OpenBind]);
        assert_eq!(with_key(&["--listen", "[::]:80"]), [Danger::OpenBind]);
        assert_eq!(with_key(&["--listen", "0.0.0.0:80", "--trusted-proxies", "10.0.0.0/8,fd00::/8"]), []);
        assert_eq!(with_key(&["--listen", "0.0.0.0:80", "--allow-open-bind"]), []);
        assert_eq!(with_key(&["--listen", "[::1]:80"]), []);
    }

    #[test]
    fn a_placeholder_is_no_password() {
        let url = |url: &str| dangers(&["--master-key-file", "/somewhere", "--database-url", url]);
        for password in ["postgres", "ChangeMe", "", "<your password>"] {
            let found = url(&format!("postgres://ringfence:{password}@db/ringfence"));
            assert_eq!(found, [Danger::PlaceholderPassword], "{password}");
        }
        assert_eq!(url("postgres://ringfence:k3Jd81%40x@db/ringfence"), []);
        // A socket, or a certificate, needs none.
        assert_eq!(url("postgres://ringfence@db/ringfence"), []);
        assert_eq!(url("postgres:///ringfence?host=/run/postgresql"), []);
    }

    #[test]
    fn settings_do_not_show_secrets() {
        let cli =
            Cli::try_parse_from(["ringfence", "serve", "--database-url", "postgres://u:hidden-word@db/x"]);
        assert!(!format!("{:?}", cli.unwrap()).contains("hidden-word"));
    }

    #[test]
    fn not_everyone_is_a_proxy() {
        for bad in ["0.0.0.0/0", "::/0", "everyone", "10.0.0.0/33"] {
            assert!(proxies(bad).is_err(), "{bad}");
        }
        assert!(proxies("10.0.0.0/8").is_ok());
    }

    #[test]
    fn a_limit_is_a_number_that_can_be_kept() {
        for bad in ["0", "-1", "1000001", "many"] {
            assert!(a_minute(bad).is_err(), "{bad}");
        }
        assert_eq!(a_minute("60").unwrap().get(), 60);
    }
}
