//! Where the master key comes from: the environment, a file, or the data folder.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use ringfence_control::MasterKeys;
use ringfence_model::SystemRng;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Database;
use crate::serve::{Failure, doing};

/// The environment variable that holds the key itself.
pub(crate) const VARIABLE: &str = "RINGFENCE_MASTER_KEY";

/// Where the key comes from.
pub(crate) enum Source {
    Environment(SecretString),
    File(PathBuf),
    /// A file in the data folder, made at the first start.
    DataFolder(PathBuf),
}

impl Source {
    /// Where these settings say that the key is.
    pub(crate) fn of(database: &Database) -> Result<Self, Failure> {
        // A variable that is set to nothing is as good as none.
        let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
        match (variable, &database.master_key_file) {
            (Some(_), Some(_)) => {
                Err(format!("both {VARIABLE} and a master key file are given; give one of them").into())
            }
            (Some(value), None) => Ok(Self::Environment(value.into())),
            (None, Some(file)) => Ok(Self::File(file.clone())),
            (None, None) => Ok(Self::DataFolder(database.data_dir.join("master.key"))),
        }
    }

    /// The file that the keys are in, if they are in one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::Environment(_) => None,
            Self::File(path) | Self::DataFolder(path) => Some(path),
        }
    }

    /// The keys. Where the data folder has none, and the database nothing that one would open, a key is made.
    pub(crate) fn load(&self, sealed: bool) -> Result<MasterKeys, Failure> {
        let text = match self {
            Self::Environment(value) => value.clone(),
            Self::File(path) => read(path)?,
            Self::DataFolder(path) => match read(path) {
                Err(_) if !path.exists() && sealed => {
                    return Err(format!(
                        "the database's secrets are sealed under a master key, and {} is not there; put the key of the \
                         host that made this database there, or name it with {VARIABLE} or RINGFENCE_MASTER_KEY_FILE",
                        path.display()
                    )
                    .into());
                }
                Err(_) if !path.exists() => {
                    make(path)?;
                    read(path)?
                }
                read => read?,
            },
        };
        let place = self.file().map_or_else(|| VARIABLE.to_owned(), |path| path.display().to_string());
        MasterKeys::parse(&text).map_err(doing(format!("the master key in {place} cannot be used")))
    }
}

fn read(path: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(doing(format!("the master key cannot be read from {}", path.display())))?.into())
}

/// Makes a key. If another host on the same folder was faster, there is its key.
fn make(path: &Path) -> Result<(), Failure> {
    let text = format!(
        "# Ringfence's master key: it seals the secrets in the database. Keep a copy of it elsewhere.\n{}\n",
        MasterKeys::generate(&SystemRng::new()).expose_secret()
    );
    // Whole under another name first: a key that was cut short would lock everything up.
    let written = write_beside(path, &text).and_then(|new| {
        let linked = std::fs::hard_link(&new, path);
        std::fs::remove_file(&new)?;
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked.and_then(|()| sync_folder(path)),
        }
    });
    written.map_err(doing(format!("a master key cannot be written to {}", path.display())))
}

/// Puts a new key before those in the file, or, if it is to forget the old ones, leaves the first one alone in it.
pub(crate) fn rewrite(path: &Path, forget_old: bool) -> Result<(), Failure> {
    let text = read(path)?;
    let is_key = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines = text.expose_secret().lines().filter(is_key);
    let keys: Vec<_> =
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|key| !key.is_empty()).collect();
    let comments: Vec<_> = text.expose_secret().lines().filter(|line| !is_key(line)).collect();
    let new = MasterKeys::generate(&SystemRng::new());
    let kept: Vec<_> = if forget_old {
        keys.into_iter().take(1).collect()
    } else {
        [vec![new.expose_secret()], keys].concat()
    };
    let text = [comments, kept].concat().join("\n") + "\n";
    let written = write_beside(path, &text).and_then(|new| {
        // Whoever could read the old keys can read the new one: the command may be another user's than the host's.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            let old = std::fs::metadata(path)?;
            std::os::unix::fs::chown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        std::fs::rename(new, path)?;
        // What is sealed under the new key must not be on the disk before the key is.
        sync_folder(path)
    });
    written.map_err(doing(format!("{} cannot be rewritten", path.display())))
}

/// One rotation at a time: of two, one would throw away the key under which the other one has sealed.
pub(crate) struct Rotation(PathBuf);

impl Rotation {
    /// Begins a rotation of the keys in this file.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        let lock = path.with_extension("rotating");
        std::fs::OpenOptions::new().write(true).create_new(true).open(&lock).map_err(doing(format!(
            "{} cannot be made: another rotation is running, or one was cut off (then remove that file and try again)",
            lock.display()
        )))?;
        Ok(Self(lock))
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes sure that a file's name is on the disk, and not only what is in it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Writes a file for its owner alone beside `path`, to the disk; its name.
fn write_beside(path: &Path, text: &str) -> std::io::Result<PathBuf> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(new)
}
