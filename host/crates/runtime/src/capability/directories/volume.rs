//! A volume: a folder of the host, and what is known of its size.
//!
//! Everything that changes sizes or names takes turns, volume by volume, on a thread that may block; what it changed is
//! measured before the next one begins. So the count is exact whatever calls do at the same time, as long as only this
//! host writes there.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi::filesystem::{Descriptor, Dir};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, HostDescriptor as _, OpenFlags, PathFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode};

use super::{Access, Directory, MAX_ENTRIES, walk, wasi};

/// The longest path that a guest can name, in bytes: what Linux allows.
const MAX_PATH_BYTES: usize = 4096;

pub(super) struct Volume {
    folder: PathBuf,
    account: Mutex<Account>,
    opened: Mutex<Opened>,
}

/// What the volume holds. Whoever has it locked is the only one who changes sizes and names.
#[derive(Default)]
struct Account {
    /// The folder that was counted. Another one, put in its place, is counted anew.
    counted: Option<(u64, u64)>,
    bytes: u64,
    entries: u64,
}

/// The files that are open, and those that had their names removed meanwhile. Locked for moments only, also by async
/// threads.
#[derive(Default)]
struct Opened {
    files: HashMap<u64, Uses>,
    /// To be closed by a thread that may block: a file without a name is freed when it is closed, which may take time.
    removed: Vec<Arc<File>>,
    closing: bool,
}

#[derive(Default)]
struct Uses {
    handles: usize,
    removed: bool,
}

/// A volume as one call sees it.
pub(super) struct Mount {
    volume: Arc<Volume>,
    access: Access,
    quota_bytes: u64,
}

/// A file or directory that a call has open.
pub(super) struct Node {
    pub(super) descriptor: Descriptor,
    mount: Arc<Mount>,
    /// Of files.
    identity: Option<u64>,
    _permit: Option<OwnedSemaphorePermit>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, account: Mutex::default(), opened: Mutex::default() }
    }

    pub(super) fn is_in(&self, folder: &Path) -> bool {
        self.folder.starts_with(folder)
    }

    /// Opens the volume for a call: makes its folder if there is none, and counts what is in it the first time. Blocks.
    pub(super) fn mount(self: &Arc<Self>, directory: &Directory) -> io::Result<Node> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = File::from(rustix::fs::open(&self.folder, flags, Mode::empty())?);
        let meta = folder.metadata()?;
        let mut account = locked(&self.account);
        if account.counted != Some((meta.dev(), meta.ino())) {
            let walk::Contents { bytes, entries } = walk::count(&folder, MAX_ENTRIES)?;
            *account = Account { counted: Some((meta.dev(), meta.ino())), bytes, entries };
        }
        drop(account);
        let (perms, mode) = match directory.access {
            Access::ReadOnly => (FsPerms::ReadOnly, OpenMode::READ),
            Access::ReadWrite => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
        };
        let mount =
            Mount { volume: self.clone(), access: directory.access, quota_bytes: directory.quota_bytes };
        Ok(Node {
            descriptor: Descriptor::Dir(Dir::new(folder, perms, mode, true)),
            mount: Arc::new(mount),
            identity: None,
            _permit: None,
        })
    }

    /// Closes files without names, one after the other, and gives back what they took.
    fn close_removed(&self) {
        loop {
            let file = {
                let mut opened = locked(&self.opened);
                let Some(file) = opened.removed.pop() else {
                    opened.closing = false;
                    return;
                };
                file
            };
            let bytes = file.metadata().map_or(0, |meta| meta.len());
            drop(file);
            let mut account = locked(&self.account);
            account.bytes = account.bytes.saturating_sub(bytes);
        }
    }

    /// Something lost its name. A file that is open takes its room until it is closed.
    fn unnamed(&self, account: &mut Account, gone: &Named) {
        account.entries = account.entries.saturating_sub(1);
        if gone.stat.type_ != DescriptorType::RegularFile {
            return;
        }
        match locked(&self.opened).files.get_mut(&gone.identity) {
            Some(uses) => uses.removed = true,
            None => account.bytes = account.bytes.saturating_sub(gone.stat.size),
        }
    }
}

/// What a name stands for, links not followed.
struct Named {
    stat: DescriptorStat,
    identity: u64,
}

impl Named {
    fn at(dir: &Descriptor, path: &str) -> FsResult<Option<Self>> {
        let Some(stat) = wasi::stat(dir, PathFlags::empty(), path)? else { return Ok(None) };
        Ok(Some(Self { stat, identity: wasi::identity_at(dir, path)? }))
    }
}

impl Account {
    fn room_for_entry(&self) -> Result<(), ErrorCode> {
        if self.entries < MAX_ENTRIES { Ok(()) } else { Err(ErrorCode::InsufficientSpace) }
    }

    fn room_for(&self, growth: u64, quota_bytes: u64) -> Result<(), ErrorCode> {
        let fits = growth == 0 || self.bytes.saturating_add(growth) <= quota_bytes;
        if fits { Ok(()) } else { Err(ErrorCode::InsufficientSpace) }
    }

    /// Takes over how a file has changed, whether it was changed wholly or in part.
    fn resized(&mut self, before: u64, file: &File) -> io::Result<()> {
        let after = file.metadata()?.len();
        self.bytes = self.bytes.saturating_add(after).saturating_sub(before);
        Ok(())
    }
}

/// Paths that no system call would take are refused before wasmtime-wasi walks them.
pub(super) fn check_path(path: &str) -> Result<(), ErrorCode> {
    if path.len() < MAX_PATH_BYTES { Ok(()) } else { Err(ErrorCode::NameTooLong) }
}

/// Everything here blocks.
impl Node {
    pub(super) fn directory(&self) -> Result<&Descriptor, ErrorCode> {
        match &self.descriptor {
            Descriptor::Dir(_) => Ok(&self.descriptor),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory),
        }
    }

    /// The file, if it was opened for this.
    pub(super) fn file(&self, mode: OpenMode) -> Result<&Arc<File>, ErrorCode> {
        match &self.descriptor {
            Descriptor::File(file) if file.open_mode.contains(mode) => Ok(&file.file),
            Descriptor::File(_) => Err(ErrorCode::BadDescriptor),
            Descriptor::Dir(_) => Err(ErrorCode::IsDirectory),
        }
    }

    pub(super) fn may_change(&self) -> Result<(), ErrorCode> {
        match self.mount.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(ErrorCode::NotPermitted),
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        locked(&self.mount.volume.account)
    }

    /// Refuses what others may have put into the volume and a guest must not reach: opening a pipe or a device may
    /// wait for ever, and a file with several names may be one from outside.
    pub(super) fn check_plain(&self, follow: PathFlags, path: &str) -> FsResult<Option<DescriptorStat>> {
        check_path(path)?;
        let found = wasi::stat(self.directory()?, follow, path)?;
        let plain = found.as_ref().is_none_or(|stat| match stat.type_ {
            DescriptorType::RegularFile => stat.link_count <= 1,
            // A link that is not to be followed is refused by the system.
            DescriptorType::Directory | DescriptorType::SymbolicLink => true,
            _ => false,
        });
        if plain { Ok(found) } else { Err(ErrorCode::NotPermitted.into()) }
    }

    pub(super) fn open(
        &self,
        follow: PathFlags,
        path: String,
        mut how: OpenFlags,
        mut flags: DescriptorFlags,
        permit: OwnedSemaphorePermit,
    ) -> FsResult<Self> {
        let truncate = how.contains(OpenFlags::TRUNCATE);
        if truncate && how.contains(OpenFlags::DIRECTORY) {
            return Err(ErrorCode::Invalid.into());
        }
        if truncate {
            // Emptied below, when it is known what it is.
            how &= !OpenFlags::TRUNCATE;
            if !flags.contains(DescriptorFlags::WRITE) {
                flags |= DescriptorFlags::READ | DescriptorFlags::WRITE;
            }
        }
        let mut account = self.account();
        let is_new = self.check_plain(follow, &path)?.is_none();
        if is_new && how.contains(OpenFlags::CREATE) {
            self.may_change()?;
            account.room_for_entry()?;
        }
        let descriptor = wasi::open(self.directory()?, follow, path, how, flags)?;
        if is_new {
            account.entries = account.entries.saturating_add(1);
        }
        let identity = match &descriptor {
            Descriptor::Dir(_) => None,
            Descriptor::File(opened) => {
                let meta = opened.file.metadata()?;
                if !meta.is_file() || meta.nlink() > 1 {
                    return Err(ErrorCode::NotPermitted.into());
                }
                if truncate {
                    opened.file.set_len(0)?;
                    account.bytes = account.bytes.saturating_sub(meta.len());
                }
                let identity = wasi::identity(&descriptor)?;
                locked(&self.mount.volume.opened).files.entry(identity).or_default().handles += 1;
                Some(identity)
            }
        };
        Ok(Self { descriptor, mount: self.mount.clone(), identity, _permit: Some(permit) })
    }

    /// Writes all of it, at a place or at the end. Returns how much that was.
    pub(super) fn write(&self, data: &[u8], place: Option<u64>) -> Result<u64, ErrorCode> {
        self.may_change()?;
        let file = self.file(OpenMode::WRITE)?;
        let written = u64::try_from(data.len()).map_err(|_| ErrorCode::FileTooLarge)?;
        if data.is_empty() {
            return Ok(0);
        }
        let mut account = self.account();
        let before = file.metadata()?.len();
        let place = place.unwrap_or(before);
        let end = place.checked_add(written).ok_or(ErrorCode::FileTooLarge)?;
        account.room_for(end.saturating_sub(before), self.mount.quota_bytes)?;
        let result = file.write_all_at(data, place);
        account.resized(before, file)?;
        result?;
        Ok(written)
    }

    pub(super) fn set_size(&self, size: u64) -> Result<(), ErrorCode> {
        self.may_change()?;
        let file = self.file(OpenMode::WRITE)?;
        let mut account = self.account();
        let before = file.metadata()?.len();
        account.room_for(size.saturating_sub(before), self.mount.quota_bytes)?;
        let result = file.set_len(size);
        account.resized(before, file)?;
        Ok(result?)
    }

    pub(super) fn create_directory(&self, path: String) -> FsResult<()> {
        check_path(&path)?;
        self.may_change()?;
        let mut account = self.account();
        account.room_for_entry()?;
        wasi::delegate([self.directory()?], async |wasi, [dir]| wasi.create_directory_at(dir, path).await)?;
        account.entries = account.entries.saturating_add(1);
        Ok(())
    }

    pub(super) fn remove_directory(&self, path: String) -> FsResult<()> {
        check_path(&path)?;
        let mut account = self.account();
        wasi::delegate([self.directory()?], async |wasi, [dir]| wasi.remove_directory_at(dir, path).await)?;
        account.entries = account.entries.saturating_sub(1);
        Ok(())
    }

    pub(super) fn unlink(&self, path: String) -> FsResult<()> {
        check_path(&path)?;
        self.may_change()?;
        let dir = self.directory()?;
        let mut account = self.account();
        let gone = Named::at(dir, &path)?.ok_or(ErrorCode::NoEntry)?;
        wasi::delegate([dir], async |wasi, [dir]| wasi.unlink_file_at(dir, path).await)?;
        self.mount.volume.unnamed(&mut account, &gone);
        Ok(())
    }

    pub(super) fn rename(&self, path: String, other: &Self, new_path: String) -> FsResult<()> {
        check_path(&path)?;
        check_path(&new_path)?;
        let volume = &self.mount.volume;
        if !Arc::ptr_eq(volume, &other.mount.volume) {
            return Err(ErrorCode::CrossDevice.into());
        }
        self.may_change()?;
        let (from, to) = (self.directory()?, other.directory()?);
        let mut account = self.account();
        let moved = Named::at(from, &path)?.ok_or(ErrorCode::NoEntry)?;
        let replaced = Named::at(to, &new_path)?.filter(|replaced| replaced.identity != moved.identity);
        wasi::delegate([from, to], async |wasi, [from, to]| wasi.rename_at(from, path, to, new_path).await)?;
        if let Some(replaced) = replaced {
            volume.unnamed(&mut account, &replaced);
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (Some(identity), Descriptor::File(file)) = (self.identity, &self.descriptor) else { return };
        let volume = &self.mount.volume;
        let mut opened = locked(&volume.opened);
        let Some(uses) = opened.files.get_mut(&identity) else { return };
        uses.handles = uses.handles.saturating_sub(1);
        if uses.handles > 0 {
            return;
        }
        let removed = uses.removed;
        opened.files.remove(&identity);
        if !removed {
            return;
        }
        opened.removed.push(file.file.clone());
        if !std::mem::replace(&mut opened.closing, true) {
            let volume = volume.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(executor) => drop(executor.spawn_blocking(move || volume.close_removed())),
                Err(_) => {
                    drop(opened);
                    volume.close_removed();
                }
            }
        }
    }
}
