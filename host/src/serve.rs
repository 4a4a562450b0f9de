//! A host: database, sandbox, use cases, worker and listener, put together and taken apart in order.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringfence_api::ApiConfig;
use ringfence_control::{
    Control, LLM_TIMEOUT, LlmEndpoint, LlmSettings, Settings, StoredComponents, is_sealed,
};
use ringfence_model::{ApiKey, FeeBps, SystemClock, SystemRng};
use ringfence_outbound::Limits;
use ringfence_runtime::{Compiler, Runtime, RuntimeConfig};
use ringfence_store::Store;
use secrecy::SecretString;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::config::{COMPILE_COMPONENT, Database, Serve};
use crate::logging;
use crate::master_key::Source;

/// How long requests and evaluations that have begun may take to end after the host was told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Why the program ends.
pub(crate) type Failure = Box<dyn Error>;

/// Something failed; its cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
struct While {
    doing: String,
    #[source]
    source: Failure,
}

/// Says what was being done when something failed.
pub(crate) fn doing<E: Into<Failure>>(doing: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let doing = doing.into();
    move |error| Box::new(While { doing, source: error.into() })
}

/// Runs a host until it is told to stop.
pub(crate) fn serve(config: Serve) -> Result<(), Failure> {
    config.check()?;
    keep_files_private();
    allow_many_files();
    let filter = EnvFilter::try_new(&config.log);
    logging::start(&config, filter.map_err(doing(format!("RINGFENCE_LOG `{}`", config.log)))?);
    if config.dev_mode {
        logging::warn_of_dev_mode(config.log_format);
    }
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    executor.block_on(run(config))
}

/// Runs a command that needs the database.
pub(crate) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    keep_files_private();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

pub(crate) async fn open_store(database: &Database) -> Result<Store, Failure> {
    let folder = &database.data_dir;
    std::fs::create_dir_all(folder)
        .map_err(doing(format!("the data folder {} cannot be made", folder.display())))?;
    Store::connect(&database.url()).await.map_err(Into::into)
}

/// The language models that the operator has named, if any.
fn language_models(config: &Serve) -> Result<Option<LlmEndpoint>, Failure> {
    let Some(base_url) = config.llm_base_url.clone() else { return Ok(None) };
    let api_key = config.llm_api_key_file.as_ref().map(|file| {
        let key = std::fs::read_to_string(file);
        key.map(|key| SecretString::from(key.trim()))
            .map_err(doing(format!("the key of the language models cannot be read from {}", file.display())))
    });
    let models = config.llm_allow_models.iter().cloned().collect();
    let settings = LlmSettings { base_url, api_key: api_key.transpose()?, models };
    // A model may think for long before it says anything.
    let patient = Limits { first_byte_timeout: LLM_TIMEOUT, idle_timeout: LLM_TIMEOUT, ..Limits::default() };
    let outbound = config.outbound.client(patient)?;
    Ok(Some(LlmEndpoint::new(outbound, &settings)?))
}

async fn run(config: Serve) -> Result<(), Failure> {
    let store = open_store(&config.database).await?;
    let runtime = Runtime::new(
        RuntimeConfig {
            cache_dir: Some(config.database.compiled()),
            slots: config.slots,
            slots_per_tenant: config.slots_per_org,
            queue_per_tenant: config.queue_per_org,
            max_component_bytes: config.max_component_bytes,
            compiler: compiler()?,
            compile_limits: config.compiling.limits(),
            ..RuntimeConfig::default()
        },
        Arc::new(StoredComponents(store.clone())),
    )
    .map_err(doing("the sandbox cannot be set up"))?;
    let master = Source::of(&config.database)?.load(is_sealed(&store).await?)?;
    let settings = Settings {
        llm: language_models(&config)?,
        rate_limits: config.rate_limits(),
        platform_fee: FeeBps::try_from(config.platform_fee_bps)?,
        oracle_timeout: Duration::from_secs(config.oracle_timeout_seconds),
        outbound: Some(config.outbound.client(Limits::default())?),
        log_retention_days: config.log_retention_days,
        invocation_retention_days: config.invocation_retention_days,
        volumes_dir: Some(config.database.data_dir.join("volumes")),
        ..Settings::default()
    };
    let (control, operator_key) = Control::start(
        store.clone(),
        runtime,
        master,
        Arc::new(SystemClock),
        Arc::new(SystemRng::new()),
        settings,
    )
    .await
    .map_err(doing("the database cannot be used"))?;
    if let Some(key) = operator_key {
        hand_over(&key, config.operator_key_file.as_deref())?;
    }

    let listener = ringfence_api::listen(config.listen);
    let listener = listener.map_err(doing(format!("{} cannot be listened on", config.listen)))?;
    let address = listener.local_addr()?;
    if let Some(file) = &config.address_file {
        let written = std::fs::write(file, format!("{address}\n"));
        written.map_err(doing(format!("the address cannot be written to {}", file.display())))?;
    }
    let api = ApiConfig {
        dev_mode: config.dev_mode,
        max_component_bytes: config.max_component_bytes,
        max_body_bytes: config.max_body_bytes,
        trusted_proxies: config.trusted_proxies.clone(),
        connections: config.connections(),
    };
    let (stop, stopping) = watch::channel(false);
    let worker = tokio::spawn(control.clone().work(stopping.clone()));
    let mut stopped = stopping;
    let server = tokio::spawn(ringfence_api::serve(listener, control.clone(), api, async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    logging::announce(config.log_format, address);

    let (mut server, mut worker) = (server, worker);
    // Both go on until they are told to stop. One that ends before has failed, and a host without it is none.
    tokio::select! {
        signal = stop_signal() => signal?,
        ended = &mut server => return Err(format!("the listener ended by itself: {ended:?}").into()),
        ended = &mut worker => return Err(format!("the worker ended by itself: {ended:?}").into()),
    }
    tracing::info!("stopping: no new requests; what has begun may take {} s to end", DRAIN.as_secs());
    stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN, async {
        let _ = server.await;
        let _ = worker.await;
    });
    if drained.await.is_err() {
        tracing::warn!("stopped before everything had ended; what was cut off is taken up at the next start");
    }
    if tokio::time::timeout(DRAIN, control.settled()).await.is_err() {
        tracing::warn!("stopped before every call was recorded: the database did not take them");
    }
    store.close().await;
    Ok(())
}

/// This program is its own compiler.
pub(crate) fn compiler() -> Result<Compiler, Failure> {
    Ok(Compiler::Child {
        program: myself().map_err(doing("the program's own file cannot be found"))?,
        arguments: vec![COMPILE_COMPONENT.into()],
    })
}

/// This program, for its children. Linux has a name for it that stays right when another version is installed over
/// the file while the host runs: the other's code would not fit.
fn myself() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.try_exists()? { Ok(running.to_owned()) } else { std::env::current_exe() }
}

/// Shows the first operator key, once: on standard error, or in a file that only its owner can read.
pub(crate) fn hand_over(key: &ApiKey, file: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = file else {
        writeln!(
            std::io::stderr(),
            "\nThis is a new database. Its operator key, shown this once:\n\n    {}\n\n\
             Keep it: it books deposits. If it is lost, `ringfence operator-key` makes another one.\n",
            key.reveal()
        )?;
        return Ok(());
    };
    let mut options = std::fs::OpenOptions::new();
    // A new file: what is there already may be somebody else's, or readable for others.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{}", key.reveal()));
    written.map_err(doing(format!(
        "the operator key cannot be written to {} (make another one with `ringfence operator-key`)",
        path.display()
    )))?;
    tracing::info!(file = %path.display(), "the operator key of the new database is written");
    Ok(())
}

/// What the host writes is for its own account alone: the database holds what others have paid for.
fn keep_files_private() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Calls may have files open, besides connections and the database: as many as the system lets this process have, not
/// what it has by default.
fn allow_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let maximum = getrlimit(Resource::Nofile).maximum;
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
    }
}

/// Returns when the host is asked to stop: by the terminal, or by whoever supervises it.
async fn stop_signal() -> Result<(), Failure> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed?,
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
