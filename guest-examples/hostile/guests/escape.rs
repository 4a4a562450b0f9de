//! Does to files whatever it is asked to, and says what came of it: for trying to get out of a directory, past a quota
//! or at things that are no files.

use std::ffi::{CString, c_char, c_int};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{FromRawFd as _, RawFd};
use std::time::SystemTime;

use ringfence::Failure;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(tag = "try", rename_all = "snake_case")]
enum Try {
    Read {
        path: String,
    },
    Write {
        path: String,
        bytes: usize,
    },
    WriteAt {
        path: String,
        offset: u64,
        bytes: usize,
    },
    Append {
        path: String,
        bytes: usize,
    },
    SetLen {
        path: String,
        bytes: u64,
    },
    Truncate {
        path: String,
    },
    List {
        path: String,
    },
    Stat {
        path: String,
    },
    Lstat {
        path: String,
    },
    Touch {
        path: String,
    },
    Mkdir {
        path: String,
    },
    Rmdir {
        path: String,
    },
    Remove {
        path: String,
    },
    Rename {
        path: String,
        to: String,
    },
    Link {
        path: String,
        to: String,
    },
    Symlink {
        path: String,
        to: String,
    },
    Readlink {
        path: String,
    },
    /// Writes a file, takes away its name, and then tries `other` while it is still open.
    Unlinked {
        path: String,
        bytes: usize,
        other: Box<Try>,
    },
    /// Folders in one another, each made in the one before.
    Deep {
        path: String,
        levels: usize,
    },
    /// Opens a file as often as it can, up to a number of times.
    OpenMany {
        path: String,
        times: usize,
    },
    /// Makes empty files until it cannot, or there are so many.
    MakeMany {
        path: String,
        times: usize,
    },
    /// Writes without a read, an end, or anybody who waits.
    Flood {
        path: String,
        times: usize,
        bytes: usize,
    },
}

#[ringfence::bot]
fn handle(tries: Vec<Try>) -> Result<Vec<String>, Failure> {
    Ok(tries.into_iter().map(said).collect())
}

fn said(attempt: Try) -> String {
    match carry_out(attempt) {
        Ok(done) => format!("ok {done}"),
        Err(error) => format!("{:?}", error.kind()),
    }
}

unsafe extern "C" {
    fn link(from: *const c_char, to: *const c_char) -> c_int;
    fn symlink(target: *const c_char, path: *const c_char) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn mkdirat(dir: c_int, path: *const c_char, mode: u32) -> c_int;
}

const O_RDONLY_DIRECTORY: c_int = 0x0400_0000 | (2 << 12);

fn c(path: &str) -> io::Result<CString> {
    Ok(CString::new(path)?)
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn made<T>(result: io::Result<T>) -> io::Result<String> {
    result.map(|_| "done".to_owned())
}

fn some(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

fn carry_out(attempt: Try) -> io::Result<String> {
    match attempt {
        Try::Read { path } => {
            fs::read(path).map(|data| String::from_utf8_lossy(&data).chars().take(100).collect())
        }
        Try::Write { path, bytes } => made(fs::write(path, some(bytes))),
        Try::WriteAt { path, offset, bytes } => {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            made(file.write_all(&some(bytes)))
        }
        Try::Append { path, bytes } => {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            made(file.write_all(&some(bytes)))
        }
        Try::SetLen { path, bytes } => {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            made(file.set_len(bytes))
        }
        Try::Truncate { path } => made(OpenOptions::new().write(true).truncate(true).open(path)),
        Try::List { path } => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names.join(" "))
        }
        Try::Stat { path } => fs::metadata(path).map(|meta| meta.len().to_string()),
        Try::Lstat { path } => fs::symlink_metadata(path).map(|meta| meta.len().to_string()),
        Try::Touch { path } => touch(&path),
        Try::Mkdir { path } => made(fs::create_dir(path)),
        Try::Rmdir { path } => made(fs::remove_dir(path)),
        Try::Remove { path } => made(fs::remove_file(path)),
        Try::Rename { path, to } => made(fs::rename(path, to)),
        Try::Link { path, to } => {
            let (path, to) = (c(&path)?, c(&to)?);
            made(checked(unsafe { link(path.as_ptr(), to.as_ptr()) }))
        }
        Try::Symlink { path, to } => {
            let (path, to) = (c(&path)?, c(&to)?);
            made(checked(unsafe { symlink(to.as_ptr(), path.as_ptr()) }))
        }
        Try::Readlink { path } => fs::read_link(path).map(|target| target.display().to_string()),
        Try::Unlinked { path, bytes, other } => {
            let mut file = File::create_new(&path)?;
            file.write_all(&some(bytes))?;
            fs::remove_file(&path)?;
            let other = said(*other);
            drop(file);
            Ok(other)
        }
        Try::Deep { path, levels } => deep(&path, levels),
        Try::OpenMany { path, times } => {
            let mut files = Vec::new();
            for _ in 0..times {
                match File::open(&path) {
                    Ok(file) => files.push(file),
                    Err(error) => return Ok(format!("{} then {:?}", files.len(), error.kind())),
                }
            }
            Ok(files.len().to_string())
        }
        Try::MakeMany { path, times } => {
            for number in 0..times {
                if let Err(error) = File::create_new(format!("{path}/{number}")) {
                    return Ok(format!("{number} then {:?}", error.kind()));
                }
            }
            Ok(times.to_string())
        }
        Try::Flood { path, times, bytes } => {
            let data = some(bytes);
            for _ in 0..times {
                fs::write(&path, &data)?;
            }
            Ok(times.to_string())
        }
    }
}

fn touch(path: &str) -> io::Result<String> {
    made(File::open(path)?.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)))
}

fn deep(path: &str, levels: usize) -> io::Result<String> {
    let (path, name) = (c(path)?, c("down")?);
    let mut dir: RawFd = checked(unsafe { open(path.as_ptr(), O_RDONLY_DIRECTORY) })?;
    for level in 0..levels {
        let made = checked(unsafe { mkdirat(dir, name.as_ptr(), 0o700) });
        let below = made.and_then(|_| checked(unsafe { openat(dir, name.as_ptr(), O_RDONLY_DIRECTORY) }));
        drop(unsafe { File::from_raw_fd(dir) });
        match below {
            Ok(below) => dir = below,
            Err(error) => return Ok(format!("{level} then {:?}", error.kind())),
        }
    }
    drop(unsafe { File::from_raw_fd(dir) });
    Ok(levels.to_string())
}
