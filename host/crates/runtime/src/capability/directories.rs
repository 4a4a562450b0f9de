//! Directories: folders of the host that a bot may use through `wasi:filesystem`, each with a quota.
//!
//! wasmtime-wasi resolves paths and keeps guests inside. In front of it stands an implementation of the interface that
//! counts what is written, refuses what could lead outside, and lets a tenant have only so many threads at a time: file
//! work cannot be stopped, so it goes on when its call is over, and keeps its permit until the thread returns.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;

use crate::state::State;

mod host;
mod stream;
mod volume;
mod walk;
mod wasi;

use volume::{Node, Volume};

/// The most files and folders that a volume holds.
pub const MAX_ENTRIES: u64 = 10_000;

/// The most files and folders that one call has open.
pub const MAX_OPEN: usize = 64;

/// Pieces of file work that a tenant has under way at a time.
pub const MAX_FILE_WORK: usize = 4;

/// The most bytes that are read, or taken by a stream, at a time.
const MAX_IO_BYTES: usize = 64 << 10;

/// The most bytes that the lists of folders that one call is reading take in memory.
const MAX_LISTED_BYTES: usize = 8 << 20;

/// What a guest may do in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look.
    ReadOnly,
    /// Look and change.
    ReadWrite,
}

/// A directory of a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The folder of the host. It is made when the bot is called, for this user alone, and belongs to the sandbox: what
    /// others change in it is not counted.
    pub volume: PathBuf,
    /// Where the guest finds it: an absolute path.
    pub path: String,
    /// What the guest may do there.
    pub access: Access,
    /// The most bytes that all files in it may have together.
    pub quota_bytes: u64,
}

/// Puts the counting implementation in the place of WASI's own.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<_, HasSelf<State>>(linker, State::called)?;
    preopens::add_to_linker::<_, HasSelf<State>>(linker, State::called)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The permits of one tenant.
#[derive(Clone)]
pub(crate) struct Permits(Arc<Semaphore>);

impl Permits {
    /// Does something that blocks on a thread that may, when there is a permit for it. Dropping the future takes back
    /// what has not begun; what has begun goes on and has its permit until it is done.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ErrorCode> {
        let permit = self.0.clone().acquire_owned().await.map_err(|_| ErrorCode::Io)?;
        let thread = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        let mut thread = AbortOnDropJoinHandle::from(thread);
        (&mut *thread).await.map_err(|_| ErrorCode::Io)
    }
}

/// The directories of one call.
pub(crate) struct Directories {
    /// What the guest begins with, by path.
    mounted: Vec<(String, Arc<Node>)>,
    permits: Permits,
    open: Arc<Semaphore>,
    listed_bytes: usize,
}

impl Directories {
    /// None at all, as most calls have.
    pub(crate) fn none() -> Self {
        static NONE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(0)));
        Self { mounted: Vec::new(), permits: Permits(NONE.clone()), open: NONE.clone(), listed_bytes: 0 }
    }
}

/// All volumes that this host has used, and the permits of those who use them.
#[derive(Default)]
pub(crate) struct Volumes {
    volumes: Mutex<HashMap<PathBuf, Arc<Volume>>>,
    permits: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl Volumes {
    /// Opens a bot's directories for a call.
    pub(crate) async fn open(&self, directories: &[Directory], tenant: &Arc<str>) -> io::Result<Directories> {
        if directories.is_empty() {
            return Ok(Directories::none());
        }
        let permits = self.permits(tenant);
        let wanted: Vec<_> =
            directories.iter().map(|wanted| (wanted.clone(), self.volume(&wanted.volume))).collect();
        let mounting = permits.run(move || {
            let mount = |(wanted, volume): (Directory, Arc<Volume>)| {
                let node = volume.mount(&wanted).map_err(|error| {
                    io::Error::new(error.kind(), format!("the volume {}: {error}", wanted.volume.display()))
                })?;
                Ok((wanted.path, Arc::new(node)))
            };
            wanted.into_iter().map(mount).collect::<io::Result<Vec<_>>>()
        });
        let mounted = mounting.await.map_err(|_| io::Error::other("a volume could not be opened"))??;
        Ok(Directories { mounted, permits, open: Arc::new(Semaphore::new(MAX_OPEN)), listed_bytes: 0 })
    }

    /// Removes a folder with all volumes in it, unless a call uses one of them now. Blocks. Returns whether it is gone.
    pub(crate) fn remove(&self, folder: &Path) -> io::Result<bool> {
        let Some(name) = folder.file_name() else { return Ok(false) };
        let mut away = std::ffi::OsString::from(REMOVED_PREFIX);
        away.push(name);
        let away = folder.with_file_name(away);
        let interrupted;
        {
            let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
            let in_use = |volume: &Arc<Volume>| volume.is_in(folder) && Arc::strong_count(volume) > 1;
            if volumes.values().any(in_use) {
                return Ok(false);
            }
            volumes.retain(|_, volume| !volume.is_in(folder));
            // Under another name nobody opens it, however long removing it takes and whatever interrupts it. What was
            // interrupted before goes first.
            interrupted = away.try_exists()?;
            if !interrupted {
                match std::fs::rename(folder, &away) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                    renamed => renamed?,
                }
            }
        }
        walk::empty(std::fs::File::open(&away)?)?;
        std::fs::remove_dir(&away)?;
        if interrupted { self.remove(folder) } else { Ok(!folder.try_exists()?) }
    }

    fn volume(&self, folder: &Path) -> Arc<Volume> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.entry(folder.to_owned()).or_insert_with(|| Arc::new(Volume::new(folder.to_owned()))).clone()
    }

    fn permits(&self, tenant: &Arc<str>) -> Permits {
        let mut all = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = all.get(tenant).and_then(Weak::upgrade) {
            return Permits(permits);
        }
        all.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(MAX_FILE_WORK));
        all.insert(tenant.clone(), Arc::downgrade(&permits));
        Permits(permits)
    }
}

/// What the name of a folder begins with while it is being removed.
pub const REMOVED_PREFIX: &str = ".removed-";

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// File work stands still for as long as the disk does. Here it waits for a channel.
    #[tokio::test]
    async fn work_that_outlives_its_call_keeps_its_permit() {
        let volumes = Volumes::default();
        let permits = volumes.permits(&"org_one".into());
        let mut stuck = Vec::new();
        for _ in 0..MAX_FILE_WORK {
            let ((begun, has_begun), (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
            let work = permits.run(move || {
                let _ = begun.send(());
                let _ = wait.recv();
            });
            let dropped = tokio::time::timeout(Duration::from_millis(1), work).await;
            assert!(dropped.is_err(), "it cannot have ended");
            // What was dropped before a thread took it up has not begun, and never will.
            if tokio::task::spawn_blocking(move || has_begun.recv().is_ok()).await.unwrap() {
                stuck.push(go);
            }
        }
        assert_eq!(permits.0.available_permits(), MAX_FILE_WORK - stuck.len());

        // The same tenant's permits, in another call; another tenant has its own.
        assert_eq!(volumes.permits(&"org_one".into()).0.available_permits(), MAX_FILE_WORK - stuck.len());
        assert!(volumes.permits(&"org_other".into()).run(|| ()).await.is_ok());

        drop(stuck);
        assert!(permits.run(|| ()).await.is_ok());
        let all = permits.0.acquire_many(u32::try_from(MAX_FILE_WORK).unwrap()).await;
        assert!(all.is_ok(), "every permit comes back when its thread does");
    }
}
