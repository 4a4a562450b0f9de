//! The folder of compiled code, looked after: what is missing in it, and what nobody needs any more.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use crate::cache::DiskCache;
use crate::digest::Digest;

/// How long what nobody uses is kept: another engine's code, for hosts that still run it and for the way back to it, and
/// the code of components that no bot has.
const KEPT_UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// A file that was used is marked so at most this often.
const MARKED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Files that one sweep removes at most.
const MAX_REMOVED: usize = 10_000;

/// What a sweep has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Marks a file as used today. The system's own clock is what a sweep compares it with.
pub(crate) fn mark_used(file: &File) -> io::Result<()> {
    // It is set ahead in a copied folder, perhaps; then it is older than it looks, and never younger.
    let age = |time: SystemTime| time.elapsed().unwrap_or_default();
    if age(file.metadata()?.modified()?) < MARKED_EVERY {
        return Ok(());
    }
    mark(file)
}

fn mark(file: &File) -> io::Result<()> {
    let time = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// What a name in the folder stands for.
enum Kind {
    Code {
        digest: Digest,
        engine: String,
    },
    /// When its engine was last at work here.
    Engine,
    /// What a process that ended has left half-written.
    Temporary,
    Other,
}

fn kind(name: &str) -> Kind {
    if let Some((digest, engine)) = name.strip_suffix(".cwasm").and_then(|stem| stem.split_once('-')) {
        return match format!("sha256:{digest}").parse() {
            Ok(digest) => Kind::Code { digest, engine: engine.to_owned() },
            Err(_) => Kind::Other,
        };
    }
    match name.rsplit_once('.') {
        Some((_, "engine")) => Kind::Engine,
        Some((_, "tmp")) => Kind::Temporary,
        _ => Kind::Other,
    }
}

impl DiskCache {
    /// The components whose code for this engine lies in the folder, by name; it is not read.
    pub(crate) fn kept(&self) -> io::Result<HashSet<Digest>> {
        let own = self.engine_name();
        let mut kept = HashSet::new();
        for entry in fs::read_dir(self.directory())? {
            if let Some(Kind::Code { digest, engine }) = entry?.file_name().to_str().map(kind)
                && engine == own
            {
                kept.insert(digest);
            }
        }
        Ok(kept)
    }

    /// Marks this engine as at work, and removes what has not been used for a week: code of other engines, once they are
    /// not at work either; code of components that are not `in_use`; what was left half-written.
    pub(crate) fn sweep(&self, in_use: &HashSet<Digest>) -> io::Result<Swept> {
        let own = self.engine_name();
        let now = self.stamp(&own)?;
        let idle = |path: &Path| {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|then| now.duration_since(then).is_ok_and(|age| age > KEPT_UNUSED_FOR))
        };
        let engine_is_idle = |engine: &str| {
            let stamp = self.stamp_path(engine);
            !stamp.exists() || idle(&stamp)
        };
        let mut swept = Swept::default();
        for entry in fs::read_dir(self.directory())? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let unused = match name.to_str().map_or(Kind::Other, kind) {
                Kind::Code { digest, engine } if engine == own => !in_use.contains(&digest),
                Kind::Code { engine, .. } => engine_is_idle(&engine),
                Kind::Engine | Kind::Temporary => true,
                Kind::Other => false,
            };
            if !unused || !idle(&path) {
                continue;
            }
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            match fs::remove_file(&path) {
                Ok(()) => {
                    swept.files += 1;
                    swept.bytes = swept.bytes.saturating_add(bytes);
                }
                // Another host has the same folder, and was first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if swept.files >= MAX_REMOVED {
                break;
            }
        }
        Ok(swept)
    }

    /// Marks an engine as at work now; when that is, by the clock of the file system.
    fn stamp(&self, engine: &str) -> io::Result<SystemTime> {
        let file = File::options().create(true).append(true).open(self.stamp_path(engine))?;
        mark(&file)?;
        file.metadata()?.modified()
    }

    fn stamp_path(&self, engine: &str) -> std::path::PathBuf {
        self.directory().join(format!("{engine}.engine"))
    }
}
