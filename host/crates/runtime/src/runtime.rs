//! The door to the sandbox.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::bindings::types::Task;
use crate::cache::{DiskCache, Loaded, LoadedCache};
use crate::call::{self, Frame};
use crate::capability::Capabilities;
use crate::capability::directories::{Directories, Volumes};
use crate::child::CompileLimits;
use crate::compile::{Compiler, LoadError, Loader};
use crate::component::{self, ComponentInfo, InvalidComponent, Kind, Linked, Linkers};
use crate::confine;
use crate::digest::Digest;
use crate::engine::{self, MAX_SLOTS};
use crate::invocation::{BotCall, CallError, Invocation, OracleCall, Verdict};
use crate::limits::{LimitError, Limits};
use crate::logs::LogOptions;
use crate::refused::Refused;
use crate::slots::{Asked, Slot, SlotLimits, Slots};
use crate::state::{Profile, State, bot_linker, oracle_linker};
use crate::upkeep::Swept;

/// Components that may wait for a compiler. Their bytes are in memory meanwhile.
const MAX_WAITING_COMPILATIONS: u32 = 32;

/// Those of one tenant among them.
const MAX_WAITING_COMPILATIONS_PER_TENANT: u32 = 8;

/// A time after which a compiler may be free, in milliseconds.
const COMPILERS_RETRY_AFTER_MS: u64 = 10_000;

/// A time after which a disk may answer again, in milliseconds.
const DISK_RETRY_AFTER_MS: u64 = 1000;

/// How much of this machine the sandbox takes.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Folder for compiled code and the key that authenticates it. Made if missing, for this user alone.
    /// Without one, components are compiled again after each start.
    pub cache_dir: Option<PathBuf>,
    /// Instances that may exist at once, 1 to 4,096. Address space is laid out for all of them at the start;
    /// memory is only taken by what runs.
    pub slots: u32,
    /// Instances that one tenant may have at once: 1 to one less than the slots, so that nobody can hold all of them.
    /// Half of the slots if it is not given. A single slot is everybody's.
    pub slots_per_tenant: Option<u32>,
    /// Calls that may wait for a slot, at least 1.
    pub queue_length: u32,
    /// Calls of one tenant among them, at least 1.
    pub queue_per_tenant: u32,
    /// Milliseconds that a call waits for a slot.
    pub queue_timeout_ms: u64,
    /// The host's maximum for every limit.
    pub maximum: Limits,
    /// The most bytes that a component may have.
    pub max_component_bytes: usize,
    /// Bytes of compiled code to keep in memory for the next call.
    pub loaded_cache_bytes: usize,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// What compiling one may take, if that is a process of its own.
    pub compile_limits: CompileLimits,
    /// Components that may be compiled at once, at least 1; each takes one thread.
    pub compile_concurrency: u32,
    /// Milliseconds that an upload or a call waits for a compiler, or for another's load of the same component.
    pub compile_queue_timeout_ms: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cache_dir: None,
            slots: 64,
            slots_per_tenant: None,
            queue_length: 1024,
            queue_per_tenant: 256,
            queue_timeout_ms: 5000,
            maximum: Limits::host_maximum(),
            max_component_bytes: 64 << 20,
            loaded_cache_bytes: 512 << 20,
            compiler: Compiler::InProcess,
            compile_limits: CompileLimits::default(),
            compile_concurrency: if processors > 2 { 2 } else { 1 },
            compile_queue_timeout_ms: 30_000,
        }
    }
}

/// The sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Slots outside what can be laid out.
    #[error("slots is {slots}; it can be 1 to {maximum}")]
    Slots {
        /// What was asked for.
        slots: u32,
        /// The most.
        maximum: u32,
    },
    /// A share that lets one tenant hold every slot, or none.
    #[error("slots_per_tenant is {share}; with {slots} slots it can be 1 to {maximum}")]
    Share {
        /// What was asked for.
        share: u32,
        /// The slots that there are.
        slots: u32,
        /// The most.
        maximum: u32,
    },
    /// A host maximum that no instance could start with, or that cannot be laid out.
    #[error("maximum: {0}")]
    Maximum(#[from] LimitError),
    /// The folder for compiled code cannot be used.
    #[error("the cache folder {path}: {source}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine refused its configuration, or the system gave no address space.
    #[error("the engine: {0}")]
    Engine(String),
    /// The epoch's thread could not be started.
    #[error("the epoch's thread: {0}")]
    Thread(std::io::Error),
}

/// Why a component was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It may not run here.
    #[error(transparent)]
    Invalid(#[from] InvalidComponent),
    /// Every compiler is busy, and the queue is full or did not move in time.
    #[error("all compilers are busy; try again in {retry_after_ms} ms")]
    Busy {
        /// A time after which trying again makes sense, in milliseconds.
        retry_after_ms: u64,
    },
    /// The host could not compile: its child cannot be started, or its code does not fit. Internal: not for clients.
    #[error("the host could not compile: {0}")]
    Failed(String),
}

impl From<LoadError<Infallible>> for PrepareError {
    fn from(error: LoadError<Infallible>) -> Self {
        match error {
            LoadError::Invalid(error) => error.into(),
            LoadError::Busy => Self::Busy { retry_after_ms: COMPILERS_RETRY_AFTER_MS },
            LoadError::Failed(reason) => Self::Failed(reason),
            LoadError::Interrupted => {
                let message = "the host is shutting down or its compiler failed".to_owned();
                InvalidComponent::CompileFailed { message }.into()
            }
            LoadError::Source(never) => match never {},
        }
    }
}

/// Where the bytes of components are kept. Asked only when no compiled code is at hand.
#[async_trait]
pub trait ComponentSource: Send + Sync {
    /// The bytes of a component, or `None` if there is no such component. What comes back is checked against
    /// the digest.
    ///
    /// # Errors
    /// Why the source could not say, for the host's log.
    async fn load(&self, digest: &Digest) -> Result<Option<Bytes>, String>;
}

/// A source that has nothing: for a host that prepares every component before it calls it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSource;

#[async_trait]
impl ComponentSource for NoSource {
    async fn load(&self, _: &Digest) -> Result<Option<Bytes>, String> {
        Ok(None)
    }
}

/// How full the sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Slots that are free.
    pub free_slots: u32,
    /// Calls that wait for one.
    pub waiting: u32,
    /// Components in memory.
    pub loaded_components: usize,
    /// Bytes of their compiled code.
    pub loaded_bytes: usize,
    /// Compilers started since this began.
    pub compilations: u64,
    /// Components loaded from disk since this began.
    pub loaded_from_disk: u64,
}

/// Whether there was code of a component for this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precompiled {
    /// It was there, and good.
    Kept,
    /// It is now.
    Compiled,
}

/// The sandbox. Clones share it.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    loader: Arc<Loader>,
    slots: Slots,
    volumes: Volumes,
    lane: Slots,
    source: Arc<dyn ComponentSource>,
    config: RuntimeConfig,
}

/// What one tenant may have of the slots.
fn share(config: &RuntimeConfig) -> Result<u32, StartError> {
    let slots = config.slots;
    let share = config.slots_per_tenant.unwrap_or((slots / 2).max(1));
    let maximum = (slots - 1).max(1);
    if (1..=maximum).contains(&share) { Ok(share) } else { Err(StartError::Share { share, slots, maximum }) }
}

fn compiler_slots(slots: u32) -> Slots {
    Slots::new(SlotLimits {
        slots,
        per_tenant: (slots - 1).max(1),
        queue: MAX_WAITING_COMPILATIONS,
        queue_per_tenant: MAX_WAITING_COMPILATIONS_PER_TENANT,
    })
}

/// Guests that compute for long hold a permit for each slice of it. There are as many as the machine has processors,
/// and of one tenant one less: it never holds every worker thread. The queue is as long as there are instances.
fn lane() -> Slots {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = u32::try_from(processors).unwrap_or(u32::MAX);
    Slots::new(SlotLimits {
        slots,
        per_tenant: (slots - 1).max(1),
        queue: MAX_SLOTS,
        queue_per_tenant: MAX_SLOTS,
    })
}

impl Runtime {
    /// Lays out the pool, opens the cache and starts the epoch's thread. Blocks for some milliseconds.
    ///
    /// # Errors
    /// See [`StartError`]: all are matters of configuration or of the machine.
    pub fn new(config: RuntimeConfig, source: Arc<dyn ComponentSource>) -> Result<Self, StartError> {
        if !(1..=MAX_SLOTS).contains(&config.slots) {
            return Err(StartError::Slots { slots: config.slots, maximum: MAX_SLOTS });
        }
        let share = share(&config)?;
        // 32-bit memories end at 4 GiB; the pool reserves table elements for every slot.
        let bound = Limits {
            memory_bytes: 4 << 30,
            table_elements: 10_000_000,
            fuel: u64::MAX >> 1,
            wall_time_ms: u64::MAX >> 1,
            log_bytes: 1 << 30,
            output_bytes: 1 << 30,
            host_calls: u64::MAX >> 1,
            instances: u64::MAX >> 1,
        };
        config.maximum.validate(&bound)?;
        if matches!(config.compiler, Compiler::Child { .. }) {
            // Says so now if it is not, rather than with the first upload.
            confine::is_possible();
        }

        let engine = engine::start(&config)?;
        let linker_error = |error: wasmtime::Error| StartError::Engine(format!("{error:#}"));
        let linkers = Linkers {
            bot: bot_linker(&engine).map_err(linker_error)?,
            oracle: oracle_linker(&engine).map_err(linker_error)?,
        };
        let disk = config.cache_dir.as_ref().map(|path| {
            DiskCache::open(path, &engine).map_err(|source| StartError::Cache { path: path.clone(), source })
        });
        let patience = Duration::from_millis(config.compile_queue_timeout_ms);
        let loader = Loader {
            linkers,
            loaded: LoadedCache::new(config.loaded_cache_bytes),
            disk: disk.transpose()?,
            compiler: config.compiler.clone(),
            limits: config.compile_limits.clone(),
            slots: compiler_slots(config.compile_concurrency.max(1)),
            patience,
            urgent: watch::Sender::new(0),
            refused: Refused::default(),
            compilations: AtomicU64::new(0),
            loaded_from_disk: AtomicU64::new(0),
            gates: Mutex::default(),
            engine,
        };
        let slots = Slots::new(SlotLimits {
            slots: config.slots,
            per_tenant: share,
            queue: config.queue_length.max(1),
            queue_per_tenant: config.queue_per_tenant.max(1),
        });
        Ok(Self(Arc::new(Inner {
            loader: Arc::new(loader),
            slots,
            lane: lane(),
            volumes: Volumes::default(),
            source,
            config,
        })))
    }

    /// What this host runs guests with. Part of a receipt: fuel is comparable only under the same engine.
    #[must_use]
    pub const fn engine_version() -> &'static str {
        concat!("wasmtime ", "48.0.8")
    }

    /// The host's maximum for every limit.
    #[must_use]
    pub fn maximum(&self) -> &Limits {
        &self.0.config.maximum
    }

    /// How full the sandbox is, for metrics and readiness.
    #[must_use]
    pub fn load(&self) -> Load {
        let loader = &self.0.loader;
        let (loaded_components, loaded_bytes) = loader.loaded.size();
        Load {
            free_slots: self.0.slots.free(),
            waiting: self.0.slots.waiting(),
            loaded_components,
            loaded_bytes,
            compilations: loader.compilations.load(Ordering::Relaxed),
            loaded_from_disk: loader.loaded_from_disk.load(Ordering::Relaxed),
        }
    }

    /// Validates and compiles a component, where [`RuntimeConfig::compiler`] says, and keeps the compiled code. Store
    /// the bytes only when this has succeeded. A component that was prepared before is recognised. Compilers are shared
    /// out fairly between tenants. Dropping the future ends a compiler that is a process of its own.
    ///
    /// # Errors
    /// Why the component may not run here, or why it cannot be said now. Nothing is kept then.
    pub async fn prepare(&self, wasm: Bytes, tenant: &Arc<str>) -> Result<ComponentInfo, PrepareError> {
        let digest = self.digest_of(&wasm).await?;
        let loaded = self.0.loader.load(digest, tenant, async || Ok::<_, Infallible>(wasm)).await?;
        Ok(loaded.info.clone())
    }

    /// As [`Self::prepare`], and keeps nothing.
    ///
    /// # Errors
    /// Why the component may not run here, or why it cannot be said now.
    pub async fn check(&self, wasm: Bytes, tenant: &Arc<str>) -> Result<ComponentInfo, PrepareError> {
        let digest = self.digest_of(&wasm).await?;
        Ok(self.0.loader.check(digest, tenant, wasm).await?)
    }

    /// The digest of bytes that look like a component.
    async fn digest_of(&self, wasm: &Bytes) -> Result<Digest, PrepareError> {
        component::check_header(wasm, self.0.config.max_component_bytes)?;
        let hashed = wasm.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&hashed)).await;
        Ok(digest.map_err(|_| LoadError::Interrupted)?)
    }

    /// Calls a bot in a fresh instance. However the guest ends, the answer is an [`Invocation`]; dropping the
    /// future ends the guest and frees its slot.
    ///
    /// # Errors
    /// The call could not begin: see [`CallError`].
    pub async fn call_bot(&self, call: BotCall) -> Result<Invocation<String>, CallError> {
        self.call_bot_until(call, std::future::pending()).await
    }

    /// As [`call_bot`](Self::call_bot), until `cancelled` is ready: then the guest is ended, with the outcome
    /// `cancelled` and what it used so far. A change of state that it had begun is carried to its end all the same, and
    /// keeps the slot until then.
    ///
    /// # Errors
    /// [`CallError::Cancelled`] if the guest had not begun; else as [`call_bot`](Self::call_bot).
    pub async fn call_bot_until(
        &self,
        call: BotCall,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Result<Invocation<String>, CallError> {
        let mut cancelled = std::pin::pin!(cancelled);
        let (loaded, slot, directories) = tokio::select! {
            biased;
            () = &mut cancelled => return Err(CallError::Cancelled),
            admitted = self.admit_bot(&call) => admitted?,
        };
        let Linked::Bot(pre) = &loaded.linked else {
            return Err(CallError::WrongKind { expected: Kind::Bot, found: loaded.info.kind });
        };
        let frame = self.frame(&call.limits, &call.tenant);
        let mut state = State::new(
            &frame.limits,
            Profile::Live,
            call.capabilities,
            Arc::clone(&slot),
            frame.started,
            call.logs,
        );
        state.directories = directories;
        let task = Task { id: call.invocation_id, input: call.input };
        call::handle(pre, state, &frame, task, cancelled).await
    }

    async fn admit_bot(&self, call: &BotCall) -> Result<(Arc<Loaded>, Arc<Slot>, Directories), CallError> {
        let loaded = self.loaded(call.digest, &call.tenant).await?;
        if !matches!(loaded.linked, Linked::Bot(_)) {
            return Err(CallError::WrongKind { expected: Kind::Bot, found: loaded.info.kind });
        }
        if let Some(capability) = call.capabilities.missing(&loaded.info.capabilities) {
            return Err(CallError::MissingGrant { capability });
        }
        let slot = self.slot(&call.tenant).await?;
        let directories = self.directories(call).await?;
        Ok((loaded, slot, directories))
    }

    /// Calls an oracle in a fresh instance, under the deterministic profile. However the guest ends, the answer
    /// is an [`Invocation`]; dropping the future ends the guest and frees its slot.
    ///
    /// # Errors
    /// The call could not begin: see [`CallError`].
    pub async fn call_oracle(&self, call: OracleCall) -> Result<Invocation<Verdict>, CallError> {
        let loaded = self.loaded(call.digest, &call.tenant).await?;
        let Linked::Oracle(pre) = &loaded.linked else {
            return Err(CallError::WrongKind { expected: Kind::Oracle, found: loaded.info.kind });
        };
        let slot = self.slot(&call.tenant).await?;
        let frame = self.frame(&call.limits, &call.tenant);
        let capabilities = Arc::new(Capabilities { config: call.config, ..Capabilities::default() });
        let profile = Profile::Deterministic { now_us: call.submission.submitted_at_us, seed: call.seed };
        let state = State::new(
            &frame.limits,
            profile,
            capabilities,
            Arc::clone(&slot),
            frame.started,
            LogOptions::default(),
        );
        let (job, submission) = (call.job.into(), call.submission.into());
        call::evaluate(pre, state, &frame, job, submission).await
    }

    /// Removes a folder with all volumes in it, unless a call of this host uses one of them. Blocks. Returns whether it
    /// is gone.
    ///
    /// # Errors
    /// What the system said. What is left is removed by the next attempt.
    pub fn remove_volumes(&self, folder: &Path) -> std::io::Result<bool> {
        self.0.volumes.remove(folder)
    }

    /// The call's directories. Their folders may be on a disk that does not answer: that costs no more than the call.
    async fn directories(&self, call: &BotCall) -> Result<Directories, CallError> {
        let opening = self.0.volumes.open(&call.capabilities.directories, &call.tenant);
        let wall_time_ms = call.limits.clamp_to(self.maximum()).wall_time_ms;
        match tokio::time::timeout(Duration::from_millis(wall_time_ms), opening).await {
            Ok(opened) => opened.map_err(|error| CallError::Internal(error.to_string())),
            Err(_) => Err(CallError::Busy { retry_after_ms: DISK_RETRY_AFTER_MS }),
        }
    }

    /// A call that begins now.
    fn frame<'a>(&'a self, limits: &Limits, tenant: &'a Arc<str>) -> Frame<'a> {
        let limits = limits.clamp_to(&self.0.config.maximum);
        Frame { engine: &self.0.loader.engine, lane: &self.0.lane, tenant, limits, started: Instant::now() }
    }

    async fn slot(&self, tenant: &Arc<str>) -> Result<Arc<Slot>, CallError> {
        // The longest queue is drained in about its own timeout, so that is when to come back.
        let retry_after_ms = self.0.config.queue_timeout_ms.max(1000);
        let slot = match self.0.slots.ask(tenant) {
            Ok(Asked::Have(slot)) => Some(slot),
            Ok(Asked::Wait(waiting)) => {
                let queue_timeout = Duration::from_millis(self.0.config.queue_timeout_ms);
                tokio::time::timeout(queue_timeout, waiting).await.ok().and_then(Result::ok)
            }
            Err(_) => None,
        };
        slot.map(Arc::new).ok_or(CallError::Busy { retry_after_ms })
    }

    async fn loaded(&self, digest: Digest, tenant: &Arc<str>) -> Result<Arc<Loaded>, CallError> {
        self.0.loader.load(digest, tenant, async || self.bytes(digest).await).await.map_err(call_error)
    }

    async fn bytes(&self, digest: Digest) -> Result<Bytes, CallError> {
        let failed = |reason| CallError::SourceFailed { digest, reason };
        let bytes = self.0.source.load(&digest).await.map_err(failed)?;
        let bytes = bytes.ok_or(CallError::UnknownComponent(digest))?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(failed(format!("the bytes have the digest {found}")));
        }
        Ok(bytes)
    }

    /// Makes sure that the code of a component for this engine lies in the cache folder, ahead of any call. A compiler
    /// that is a process of its own gives way to those that calls and uploads need: it is ended and begun again. One
    /// in this process goes on beside them.
    ///
    /// # Errors
    /// There is no such component, it can no longer be compiled, or the folder cannot be written.
    pub async fn precompile(&self, digest: Digest) -> Result<Precompiled, CallError> {
        let loader = Arc::clone(&self.0.loader);
        let kept = tokio::task::spawn_blocking(move || {
            let found = loader.disk.as_ref().map(|disk| disk.load(&digest));
            matches!(found, Some(Ok(Some(_))))
        });
        if kept.await.map_err(|error| CallError::Internal(error.to_string()))? {
            return Ok(Precompiled::Kept);
        }
        let loader = &self.0.loader;
        if let Some(error) = loader.refused.get(&digest) {
            return Err(CallError::Invalid(error));
        }
        loader.compile_ahead(digest, self.bytes(digest).await?).await.map_err(call_error)?;
        Ok(Precompiled::Compiled)
    }

    /// Which of these components have no code for this engine in the cache folder; in the same order. Looks at names
    /// alone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn not_compiled(&self, mut digests: Vec<Digest>) -> std::io::Result<Vec<Digest>> {
        let loader = Arc::clone(&self.0.loader);
        let missing = tokio::task::spawn_blocking(move || {
            let Some(disk) = &loader.disk else { return Ok(Vec::new()) };
            let kept = disk.kept()?;
            digests.retain(|digest| !kept.contains(digest));
            Ok(digests)
        });
        missing.await?
    }

    /// Removes compiled code that was not used for a week from the cache folder, at most 10,000 files: of engines that no
    /// host has run in that time, and of components that are not `in_use`. A host should do so once a day: it marks its
    /// engine as at work, too.
    ///
    /// # Errors
    /// The folder cannot be read or changed.
    pub async fn sweep_cache(&self, in_use: HashSet<Digest>) -> std::io::Result<Swept> {
        let loader = Arc::clone(&self.0.loader);
        let swept = tokio::task::spawn_blocking(move || {
            loader.disk.as_ref().map_or(Ok(Swept::default()), |disk| disk.sweep(&in_use))
        });
        swept.await?
    }
}

fn call_error(error: LoadError<CallError>) -> CallError {
    match error {
        LoadError::Source(error) => error,
        LoadError::Invalid(error) => CallError::Invalid(error),
        LoadError::Busy => CallError::Busy { retry_after_ms: COMPILERS_RETRY_AFTER_MS },
        LoadError::Failed(_) | LoadError::Interrupted => CallError::Internal(error.to_string()),
    }
}
