//! From bytes to something that can be called: the memory cache, then the disk cache, then the compiler.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::cache::{DiskCache, Loaded, LoadedCache};
use crate::child::{self, CompileError, CompileLimits};
use crate::component::{self, ComponentInfo, InvalidComponent, Linkers};
use crate::digest::Digest;
use crate::slots::Slots;

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

impl<E> From<CompileError> for LoadError<E> {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Invalid(error) => Self::Invalid(error),
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

        let wasm = source().await.map_err(LoadError::Source)?;
        let size = wasm.len() as u64;
        let code = self.compile(wasm, tenant).await?;
        let loader = Arc::clone(self);
        let adopted = tokio::task::spawn_blocking(move || loader.adopt(digest, size, &code));
        adopted.await.map_err(|_| LoadError::Interrupted)?.map_err(Into::into)
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
        let size_bytes = wasm.len() as u64;
        let code = self.compile(wasm, tenant).await?;
        let loader = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || {
            let component = loader.revive(&code)?;
            let inspected = component::inspect(&component, &loader.linkers, digest, size_bytes);
            inspected.map(|(info, _)| info).map_err(CompileError::Invalid)
        });
        checked.await.map_err(|_| LoadError::Interrupted)?.map_err(Into::into)
    }

    async fn compile<E>(&self, wasm: Bytes, tenant: &Arc<str>) -> Result<Vec<u8>, LoadError<E>> {
        let slot = tokio::time::timeout(self.patience, self.slots.take(tenant)).await;
        let slot = slot.map_err(|_| LoadError::Busy)?.map_err(|_| LoadError::Busy)?;
        match &self.compiler {
            Compiler::Child { program, arguments } => {
                Ok(child::compile(program, arguments, &self.limits, &wasm).await?)
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
                compiled.map_err(|error| component::classify(format!("{error:#}")).into())
            }
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
        let (size, code) = verified.code().split_first_chunk::<8>()?;
        #[expect(
            unsafe_code,
            reason = "these bytes, unchanged since they were verified, were written by `adopt` below under a \
                      key that only this host has, for the same component and an equal engine"
        )]
        let component = unsafe { Component::deserialize(&self.engine, code) };
        let component = component
            .inspect_err(
                |reason| tracing::warn!(%digest, %reason, "compiled code did not load; compiling again"),
            )
            .ok()?;
        self.finish(&component, digest, u64::from_le_bytes(*size))
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
        if let Some(disk) = &self.disk {
            // The cache is a help, not a promise: what cannot be kept is compiled again next time.
            if let Err(reason) = disk.store(&digest, &[size.to_le_bytes().as_slice(), code].concat()) {
                tracing::warn!(%digest, %reason, "compiled code could not be kept");
            }
        }
        Ok(loaded)
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
