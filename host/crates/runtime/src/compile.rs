//! From bytes to something that can be called: the memory cache, then the disk cache, then the compiler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::cache::{DiskCache, Loaded, LoadedCache};
use crate::component::{self, InvalidComponent, Linkers};
use crate::digest::Digest;

/// Turns components into something that can be called, and keeps the result.
pub(crate) struct Compiler {
    pub(crate) engine: Engine,
    pub(crate) linkers: Linkers,
    pub(crate) loaded: LoadedCache,
    pub(crate) disk: Option<DiskCache>,
    /// Compilers that may run at once. Each uses one thread.
    pub(crate) permits: Arc<Semaphore>,
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
    #[error("the host's compiler thread ended early")]
    Interrupted,
}

impl Compiler {
    /// The component of this digest; `source` is asked for its bytes only if no compiled code is kept.
    pub(crate) async fn load<E>(
        self: &Arc<Self>,
        digest: Digest,
        source: impl AsyncFnOnce() -> Result<Bytes, E>,
    ) -> Result<Arc<Loaded>, LoadError<E>> {
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded);
        }
        let gate = self.gate(digest);
        let _turn = gate.lock().await;
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded);
        }

        if self.disk.is_some() {
            let compiler = Arc::clone(self);
            let found = tokio::task::spawn_blocking(move || compiler.load_from_disk(digest)).await;
            if let Some(loaded) = found.map_err(|_| LoadError::Interrupted)? {
                return Ok(loaded);
            }
        }

        let wasm = source().await.map_err(LoadError::Source)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| LoadError::Interrupted)?;
        let compiler = Arc::clone(self);
        // The permit goes with the thread: a caller who leaves does not make room for another compiler while
        // this one still runs.
        let compiled = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            compiler.compile(digest, &wasm)
        });
        Ok(compiled.await.map_err(|_| LoadError::Interrupted)??)
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
            reason = "these bytes, unchanged since they were verified, were written by `compile` below under a \
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

    fn compile(&self, digest: Digest, wasm: &[u8]) -> Result<Arc<Loaded>, InvalidComponent> {
        let component =
            Component::from_binary(&self.engine, wasm).map_err(|error| component::classify(&error))?;
        let size = wasm.len() as u64;
        let loaded = self.finish(&component, digest, size)?;
        if let Some(disk) = &self.disk {
            // The cache is a help, not a promise: what cannot be kept is compiled again next time.
            let kept = component.serialize().map_err(|error| format!("{error:#}")).and_then(|code| {
                let code = [size.to_le_bytes().as_slice(), &code].concat();
                disk.store(&digest, &code).map_err(|error| error.to_string())
            });
            if let Err(reason) = kept {
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
