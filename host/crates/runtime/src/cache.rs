//! Compiled code, kept between calls (in memory) and between starts (on disk).

use std::fs::{self, File, OpenOptions};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use ringfence_model::{Rng as _, SystemRng};
use rustix::fs::{MemfdFlags, SealFlags};
use wasmtime::Engine;

use crate::component::{ComponentInfo, Linked};
use crate::digest::{Digest, hex};
use crate::upkeep;

/// A component that can be called.
pub(crate) struct Loaded {
    pub(crate) info: ComponentInfo,
    pub(crate) linked: Linked,
    /// Bytes of compiled code and data that it keeps mapped.
    pub(crate) image_bytes: usize,
}

/// Components in memory, within a number of bytes; the least recently used go first. A call holds its own
/// reference, so what is dropped from here lives on until its calls have ended.
pub(crate) struct LoadedCache {
    maximum_bytes: usize,
    components: Mutex<(LruCache<Digest, Arc<Loaded>>, usize)>,
}

impl LoadedCache {
    pub(crate) fn new(maximum_bytes: usize) -> Self {
        Self { maximum_bytes, components: Mutex::new((LruCache::unbounded(), 0)) }
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.0.get(digest).cloned()
    }

    /// Puts a component in and others out. One that is larger than the whole cache stays until the next.
    pub(crate) fn put(&self, loaded: Arc<Loaded>) {
        let mut evicted = Vec::new();
        {
            let mut components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
            let (components, bytes) = &mut *components;
            *bytes += loaded.image_bytes;
            if let Some(old) = components.put(loaded.info.digest, loaded) {
                *bytes -= old.image_bytes;
                evicted.push(old);
            }
            while *bytes > self.maximum_bytes && components.len() > 1 {
                let Some((_, old)) = components.pop_lru() else { break };
                *bytes -= old.image_bytes;
                evicted.push(old);
            }
        }
        // Unmapping happens here, where nobody waits for the lock.
        drop(evicted);
    }

    /// Number of components and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        (components.0.len(), components.1)
    }
}

const MAGIC: &[u8; 8] = b"RFCWASM2";
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "cache.key";

/// What of a file is looked at in one go: small enough to stay in the processor's cache between its three readers.
const CHUNK_BYTES: usize = 64 << 10;

/// Compiled code on disk: one file for each component and engine, `<digest>-<engine hash>.cwasm`, holding a
/// keyed BLAKE3 hash (a MAC) and then what it covers: a magic number, the digest, the engine's hash, the component's size
/// and the code. Loading code means running it, so nothing is loaded that this host has not written under its own key.
pub(crate) struct DiskCache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    engine_hash: [u8; 32],
}

/// Why a file was not used. The caller compiles again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("its authentication code is wrong: it was changed, or written under another key")]
    Forged,
    #[error("it is authentic but belongs to another component or engine")]
    Misplaced,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl DiskCache {
    /// Opens the folder, making it and the key file if they are missing.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let key = read_or_make_key(directory)?;
        Ok(Self { directory: directory.to_owned(), key, engine_hash: engine_hash(engine) })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What stands for this engine in the names of files.
    pub(crate) fn engine_name(&self) -> String {
        hex(&self.engine_hash).chars().take(16).collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{}.cwasm", digest.to_hex(), self.engine_name()))
    }

    fn header(&self, digest: &Digest) -> Vec<u8> {
        [MAGIC.as_slice(), digest.as_bytes(), &self.engine_hash].concat()
    }

    /// The verified code of a component, if it is here. The bytes that were verified are the bytes returned: the file is
    /// read once, into memory that nobody can change any more, and not looked at again.
    pub(crate) fn load(&self, digest: &Digest) -> Result<Option<Verified>, Unusable> {
        let mut file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // One that cannot be marked is made again some day.
        let _ = upkeep::mark_used(&file);
        let expected = self.header(digest);
        let (mut tag, mut header, mut size) = ([0; TAG_BYTES], vec![0; expected.len()], [0; 8]);
        for part in [tag.as_mut_slice(), &mut header, &mut size] {
            file.read_exact(part).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Unusable::Forged,
                _ => error.into(),
            })?;
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&header).update(&size);
        let code = memory_file()?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => chunk.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            hasher.update(read);
            (&code).write_all(read)?;
        }
        seal(&code)?;
        // Compared in constant time.
        if hasher.finalize() != blake3::Hash::from_bytes(tag) {
            return Err(Unusable::Forged);
        }
        if header != expected {
            return Err(Unusable::Misplaced);
        }
        Ok(Some(Verified { wasm_bytes: u64::from_le_bytes(size), code }))
    }

    /// Keeps the code of a component. The file appears under its name only when it is whole and on disk.
    pub(crate) fn store(&self, digest: &Digest, wasm_bytes: u64, code: &[u8]) -> io::Result<()> {
        let (header, size) = (self.header(digest), wasm_bytes.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        let tag = *hasher.update(&header).update(&size).update(code).finalize().as_bytes();

        let path = self.path(digest);
        let temporary = self.directory.join(format!("{}.tmp", unique_name()));
        let written = (|| {
            let mut file = new_private_file(&temporary)?;
            for part in [tag.as_slice(), &header, &size, code] {
                file.write_all(part)?;
            }
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.directory)?.sync_all()
        })();
        if written.is_err() {
            // Best effort: a left-over temporary file is never read.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Code that this host has written for this component and this engine.
pub(crate) struct Verified {
    /// The component's size.
    pub(crate) wasm_bytes: u64,
    /// Sealed memory.
    code: File,
}

impl Verified {
    /// A file's name for the code: to be mapped, which copies nothing and reads only what is used.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.code.as_raw_fd()).into()
    }
}

/// A file in memory that only this process has.
fn memory_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("compiled-code", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// Has what is in the memory stay as it is for good.
fn seal(memory: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(
        memory,
        SealFlags::SEAL | SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW,
    )?)
}

fn new_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Secrets of this machine: no test may predict them, so they never come from a seed.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRng::new().fill(&mut bytes);
    bytes
}

fn unique_name() -> String {
    hex(&random::<16>())
}

/// Several processes may start on one folder at once: the key is written aside and linked into place, which
/// only the first can do, and everyone then reads the one that is there.
fn read_or_make_key(directory: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = directory.join(KEY_FILE);
    if !path.try_exists()? {
        let temporary = directory.join(format!("{}.tmp", unique_name()));
        let mut file = new_private_file(&temporary)?;
        file.write_all(&random::<KEY_BYTES>())?;
        file.sync_all()?;
        let linked = fs::hard_link(&temporary, &path);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let key = fs::read(&path)?;
    key.try_into().map_err(|key: Vec<u8>| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} has {} bytes instead of {KEY_BYTES}; remove it to get a new one",
                path.display(),
                key.len()
            ),
        )
    })
}

/// Everything about an engine that compiled code depends on: wasmtime's version, its settings, the processor.
fn engine_hash(engine: &Engine) -> [u8; 32] {
    struct Sha256(ring::digest::Context);
    impl Hasher for Sha256 {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Sha256(ring::digest::Context::new(&ring::digest::SHA256));
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let mut hash = [0; 32];
    hash.copy_from_slice(hasher.0.finish().as_ref());
    hash
}
