//! Going through a folder that a guest has filled: however deep it is, with one folder open at a time and no recursion,
//! without ever following a link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};

/// What lies in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bytes of all regular files, by the lengths that they have.
    pub(super) bytes: u64,
    /// Everything that has a name: files, folders, and what others may have put there.
    pub(super) entries: u64,
}

/// Counts what lies in a folder, up to a number of entries.
pub(super) fn count(folder: impl AsFd, most_entries: u64) -> io::Result<Contents> {
    let mut contents = Contents::default();
    walk(folder, &mut |dir, name, is_folder| {
        contents.entries += 1;
        if contents.entries > most_entries {
            return Err(io::Error::other(format!("it holds more than {most_entries} files and folders")));
        }
        if !is_folder {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if is_regular(&stat) {
                contents.bytes = contents.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
        }
        Ok(())
    })?;
    Ok(contents)
}

/// Removes all that lies in a folder.
pub(super) fn empty(folder: impl AsFd) -> io::Result<()> {
    walk(folder, &mut |dir, name, is_folder| {
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(unlinkat(dir, name, flags)?)
    })
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Shown each entry, in the folder that holds it; folders after what is in them.
type Visit<'a> = &'a mut dyn FnMut(&OwnedFd, &CStr, bool) -> io::Result<()>;

/// A folder on the way from the top to where the walk is.
struct Level {
    /// Its name in the one above.
    name: CString,
    /// The folders in it that the walk has not been in.
    pending: Vec<CString>,
    identity: (u64, u64),
}

fn walk(folder: impl AsFd, visit: Visit<'_>) -> io::Result<()> {
    let mut here = open(folder.as_fd(), c".")?;
    let mut levels = vec![enter(&here, c".", None, visit)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            let device = level.identity.0;
            here = open(here.as_fd(), &name)?;
            let below = enter(&here, &name, Some(device), visit)?;
            levels.push(below);
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let Some(above) = levels.last() else { break };
        here = open(here.as_fd(), c"..")?;
        // Whoever moves folders about meanwhile does not lead the walk out of the one that it is for.
        if identity(&here)? != above.identity {
            return Err(io::Error::other("a folder was moved while it was looked through"));
        }
        visit(&here, &done.name, true)?;
    }
    Ok(())
}

fn enter(here: &OwnedFd, name: &CStr, device: Option<u64>, visit: Visit<'_>) -> io::Result<Level> {
    let identity = identity(here)?;
    if device.is_some_and(|device| device != identity.0) {
        return Err(io::Error::other("another file system is mounted inside"));
    }
    let mut pending = Vec::new();
    for entry in Dir::read_from(here)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if is_folder(here, name, entry.file_type())? {
            pending.push(name.to_owned());
        } else {
            visit(here, name, false)?;
        }
    }
    Ok(Level { name: name.to_owned(), pending, identity })
}

/// Not every file system says of what kind its entries are.
fn is_folder(here: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<bool> {
    Ok(match kind {
        FileType::Unknown => {
            let stat = statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        }
        known => known == FileType::Directory,
    })
}

fn open(here: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(here, name, flags, Mode::empty())?)
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{CWD, mkdirat};

    use super::*;

    #[test]
    fn what_lies_in_a_folder_is_counted_and_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let inside = temp.path().join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(inside.join("a/b/ten"), "0123456789").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("a/link")).unwrap();

        let folder = File::open(&inside).unwrap();
        assert_eq!(count(&folder, 4).unwrap(), Contents { bytes: 10, entries: 4 });
        assert!(count(&folder, 3).unwrap_err().to_string().contains("more than 3"));
        empty(&folder).unwrap();
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    /// Deeper than a path can be long, and than a process has descriptors by default.
    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let temp = tempfile::tempdir().unwrap();
        let mut here = open(CWD, &CString::new(temp.path().to_str().unwrap()).unwrap()).unwrap();
        let top = here.try_clone().unwrap();
        for _ in 0..5_000 {
            mkdirat(&here, c"down", Mode::RWXU).unwrap();
            here = open(&here, c"down").unwrap();
        }
        assert_eq!(count(&top, 10_000).unwrap(), Contents { bytes: 0, entries: 5_000 });
        empty(&top).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
