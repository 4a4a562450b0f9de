//! From bytes to something that can be called: the memory cache, then the disk cache, then the compiler.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, watch};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::cache::{DiskCache, Loaded, LoadedCache};
use crate::child::{self, CompileError, CompileLimits};
use crate::component::{self, ComponentInfo, InvalidComponent, Linkers};
use crate::digest::Digest;
use crate::refused::Refused;
use crate::slots::{Slot, Slots};

/// Where components are compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// In this process, on a thread: for components that are trusted not to make the compiler take too much.
    #[default]
    InProcess,
    /// In a process of its own for each component, under [`CompileLimits`].
    Child {
        /// A program that calls [`compile_from_stdin`](crate::compile_from_stdin), built from the same sources.
        program: PathBuf,
        /// What makes it do so.
        arguments: Vec<OsString>,
    },
}

/// Turns components into something that can be called, and keeps the result.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    pub(crate) linkers: Linkers,
    pub(crate) loaded: LoadedCache,
    pub(crate) disk: Option<DiskCache>,
    pub(crate) compiler: Compiler,
    pub(crate) limits: CompileLimits,
    /// Compilers that may run at once. Each uses one thread.
    pub(crate) slots: Slots,
    /// How long a caller waits for one of them, and how long while another loads the same component.
    pub(crate) patience: Duration,
    /// Loads that need a compiler now. What compiles ahead gives way to them.
    pub(crate) urgent: watch::Sender<usize>,
    /// What was refused.
    pub(crate) refused: Refused,
    /// Compilers started so far.
    pub(crate) compilations: AtomicU64,
    /// Components loaded from disk so far.
    pub(crate) loaded_from_disk: AtomicU64,
    /// One gate for each component that is being loaded, so that callers who come at the same time wait for
    /// one load instead of each doing their own.
    pub(crate) gates: Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>,
}

/// Why a component could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError<E> {
    #[error(transparent)]
    Source(E),
    #[error(transparent)]
    Invalid(#[from] InvalidComponent),
    #[error("every compiler is busy")]
    Busy,
    #[error("{0}")]
    Failed(String),
    #[error("the host's compiler thread ended early")]
    Interrupted,
}

/// Needs a compiler for as long as it lives.
struct Urgent<'a>(&'a watch::Sender<usize>);

impl<'a> Urgent<'a> {
    fn new(urgent: &'a watch::Sender<usize>) -> Self {
        urgent.send_modify(|urgent| *urgent += 1);
        Self(urgent)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|urgent| *urgent = urgent.saturating_sub(1));
    }
}

impl<E> From<CompileError> for LoadError<E> {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Invalid(error) | CompileError::Unlucky(error) => Self::Invalid(error),
            CompileError::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl Loader {
    /// The component of this digest; `source` is asked for its bytes only if no compiled code is kept.
    pub(crate) async fn load<E>(
        self: &Arc<Self>,
        digest: Digest,
        tenant: &Arc<str>,
        source: impl AsyncFnOnce() -> Result<Bytes, E>,
    ) -> Result<Arc<Loaded>, LoadError<E>> {
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded);
        }
        let gate = self.gate(digest);
        let turn = tokio::time::timeout(self.patience, gate.lock()).await;
        let _turn = turn.map_err(|_| LoadError::Busy)?;
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded);
        }

        if self.disk.is_some() {
            let loader = Arc::clone(self);
            let found = tokio::task::spawn_blocking(move || loader.load_from_disk(digest)).await;
            if let Some(loaded) = found.map_err(|_| LoadError::Interrupted)? {
                return Ok(loaded);
            }
        }
        if let Some(error) = self.refused.get(&digest) {
            return Err(LoadError::Invalid(error));
        }

        let wasm = source().await.map_err(LoadError::Source)?;
        let size = wasm.len() as u64;
        let code = self.compile_now(digest, wasm, tenant).await?;
        let loader = Arc::clone(self);
        let adopted = tokio::task::spawn_blocking(move || loader.adopt(digest, size, &code));
        adopted.await.map_err(|_| LoadError::Interrupted)?.map_err(|error| {
            self.remember(digest, &error);
            error.into()
        })
    }

    /// What there is to know of a component that nobody has asked to keep: it is compiled, looked at and forgotten.
    pub(crate) async fn check(
        self: &Arc<Self>,
        digest: Digest,
        tenant: &Arc<str>,
        wasm: Bytes,
    ) -> Result<ComponentInfo, LoadError<Infallible>> {
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded.info.clone());
        }
        if let Some(error) = self.refused.get(&digest) {
            return Err(LoadError::Invalid(error));
        }
        let size_bytes = wasm.len() as u64;
        let code = self.compile_now(digest, wasm, tenant).await?;
        let loader = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || {
            let component = loader.revive(&code)?;
            let inspected = component::inspect(&component, &loader.linkers, digest, size_bytes);
            inspected.map(|(info, _)| info).map_err(CompileError::Invalid)
        });
        checked.await.map_err(|_| LoadError::Interrupted)?.map_err(Into::into)
    }

    /// Compiles for somebody who waits for it, in turn.
    async fn compile_now<E>(
        &self,
        digest: Digest,
        wasm: Bytes,
        tenant: &Arc<str>,
    ) -> Result<Vec<u8>, LoadError<E>> {
        let _urgent = Urgent::new(&self.urgent);
        let slot = tokio::time::timeout(self.patience, self.slots.take(tenant)).await;
        let slot = slot.map_err(|_| LoadError::Busy)?.map_err(|_| LoadError::Busy)?;
        self.compile(digest, wasm, Some(slot)).await
    }

    /// Compiles ahead of any call and keeps the code on disk. Takes no slot: it begins when nobody needs a compiler and
    /// gives way, from the start again, as soon as anybody does.
    pub(crate) async fn compile_ahead<E>(
        self: &Arc<Self>,
        digest: Digest,
        wasm: Bytes,
    ) -> Result<(), LoadError<E>> {
        let size = wasm.len() as u64;
        let mut urgent = self.urgent.subscribe();
        let code = loop {
            let _ = urgent.wait_for(|urgent| *urgent == 0).await;
            let compiling = self.compile(digest, wasm.clone(), None);
            if self.compiler == Compiler::InProcess {
                // A thread cannot be ended.
                break compiling.await?;
            }
            tokio::select! {
                biased;
                _ = urgent.wait_for(|urgent| *urgent > 0) => {}
                code = compiling => break code?,
            }
        };
        let loader = Arc::clone(self);
        // What a component may do here is looked at whenever its code is loaded.
        let kept = tokio::task::spawn_blocking(move || loader.keep(digest, size, &code));
        let kept = kept.await.map_err(|_| LoadError::Interrupted)?;
        kept.map_err(|reason| LoadError::Failed(format!("compiled code could not be kept: {reason}")))
    }

    /// Runs a compiler. Dropping the future ends one that is a process of its own.
    async fn compile<E>(
        &self,
        digest: Digest,
        wasm: Bytes,
        slot: Option<Slot>,
    ) -> Result<Vec<u8>, LoadError<E>> {
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let (begun, wasm_bytes) = (Instant::now(), wasm.len());
        let compiled = match &self.compiler {
            Compiler::Child { program, arguments } => {
                child::compile(program, arguments, &self.limits, &wasm).await
            }
            Compiler::InProcess => {
                let engine = self.engine.clone();
                // The slot goes with the thread: a caller who leaves does not make room for another compiler while
                // this one still runs.
                let compiled = tokio::task::spawn_blocking(move || {
                    let _slot = slot;
                    engine.precompile_component(&wasm)
                });
                let compiled = compiled.await.map_err(|_| LoadError::Interrupted)?;
                compiled.map_err(|error| CompileError::Invalid(component::classify(format!("{error:#}"))))
            }
        };
        let took_ms = begun.elapsed().as_millis();
        match compiled {
            Ok(code) => {
                tracing::info!(%digest, wasm_bytes, code_bytes = code.len(), took_ms, "compiled a component");
                Ok(code)
            }
            Err(error) => {
                self.remember(digest, &error);
                let error = LoadError::from(error);
                tracing::info!(%digest, wasm_bytes, took_ms, "a component was not compiled");
                Err(error)
            }
        }
    }

    /// So that the next upload of the same costs nothing.
    fn remember(&self, digest: Digest, error: &CompileError) {
        match error {
            CompileError::Invalid(error) => self.refused.for_good(digest, error),
            CompileError::Unlucky(error) => self.refused.for_now(digest, error),
            CompileError::Failed(_) => {}
        }
    }

    fn gate(&self, digest: Digest) -> Arc<AsyncMutex<()>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&digest).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::default();
        gates.insert(digest, Arc::downgrade(&gate));
        gate
    }

    fn load_from_disk(&self, digest: Digest) -> Option<Arc<Loaded>> {
        let disk = self.disk.as_ref()?;
        let verified = match disk.load(&digest) {
            Ok(found) => found?,
            Err(reason) => {
                tracing::warn!(%digest, %reason, "compiled code was refused; compiling again");
                return None;
            }
        };
        #[expect(
            unsafe_code,
            reason = "these bytes, sealed before they were verified to the end, were written by `keep` below under a \
                      key that only this host has, for the same component and an equal engine"
        )]
        let component = unsafe { Component::deserialize_file(&self.engine, verified.path()) };
        let component = component
            .inspect_err(
                |reason| tracing::warn!(%digest, %reason, "compiled code did not load; compiling again"),
            )
            .ok()?;
        self.loaded_from_disk.fetch_add(1, Ordering::Relaxed);
        self.finish(&component, digest, verified.wasm_bytes)
            .inspect_err(|reason| tracing::warn!(%digest, %reason, "a kept component may no longer run here"))
            .ok()
    }

    /// Makes a component of what a compiler of this host has just made.
    fn revive(&self, code: &[u8]) -> Result<Component, CompileError> {
        #[expect(
            unsafe_code,
            reason = "these bytes were made a moment ago by this engine, or by this host's own child with an equal one"
        )]
        let component = unsafe { Component::deserialize(&self.engine, code) };
        // The pool has its say only now.
        component.map_err(|error| match component::needs_too_much(format!("{error:#}")) {
            Ok(invalid) => CompileError::Invalid(invalid),
            Err(reason) => CompileError::Failed(format!("compiled code does not load: {reason}")),
        })
    }

    /// Takes over what a compiler of this host has just made, and keeps it.
    fn adopt(&self, digest: Digest, size: u64, code: &[u8]) -> Result<Arc<Loaded>, CompileError> {
        let component = self.revive(code)?;
        let loaded = self.finish(&component, digest, size).map_err(CompileError::Invalid)?;
        // The cache is a help, not a promise: what cannot be kept is compiled again next time.
        if let Err(reason) = self.keep(digest, size, code) {
            tracing::warn!(%digest, %reason, "compiled code could not be kept");
        }
        Ok(loaded)
    }

    fn keep(&self, digest: Digest, size: u64, code: &[u8]) -> std::io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        disk.store(&digest, size, code)
    }

    /// Checks and links, and puts the result into the memory cache. Also done for code from disk: what a
    /// component may import is this host's rule of today, not of the day on which it was compiled.
    fn finish(
        &self,
        component: &Component,
        digest: Digest,
        size_bytes: u64,
    ) -> Result<Arc<Loaded>, InvalidComponent> {
        let (info, linked) = component::inspect(component, &self.linkers, digest, size_bytes)?;
        let image = component.image_range();
        let image_bytes = (image.end as usize).saturating_sub(image.start as usize);
        // Now rather than in the first call.
        if let Err(reason) = component.initialize_copy_on_write_image() {
            tracing::debug!(%digest, %reason, "the memory image will be made by the first call");
        }
        let loaded = Arc::new(Loaded { info, linked, image_bytes });
        self.loaded.put(Arc::clone(&loaded));
        Ok(loaded)
    }
}
