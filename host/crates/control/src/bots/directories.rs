//! Directories of bots: what can be granted, where the volumes are, and when they go.

use std::path::{Path, PathBuf};

use ringfence_model::{BotId, BotStatus};
use ringfence_runtime::{Access, Directory};
use ringfence_store::bots;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::bot_name;
use crate::Control;
use crate::error::rules::{require, within};

/// The most directories of a bot.
const MAX_DIRECTORIES: usize = 8;

/// A directory that the guest finds at a path. Its files belong to the bot and stay there from call to call, also when
/// the bot is changed, until it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// Which of the bot's volumes; a new name makes a new one. 1 to 63 lower-case letters, digits and hyphens.
    #[garde(custom(bot_name))]
    #[schema(
        example = "notes",
        min_length = 1,
        max_length = 63,
        pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
    )]
    pub volume: String,
    /// Where the guest finds it.
    #[garde(custom(guest_path))]
    #[schema(example = "/data", min_length = 2, max_length = 255, pattern = "^(/[A-Za-z0-9._-]+)+$")]
    pub path: String,
    /// What the guest may do there.
    #[garde(skip)]
    pub access: DirectoryAccess,
    /// The most bytes that all files in it may have together, 1 byte to 1 GiB.
    #[garde(custom(within(1..=1 << 30, "must be 1 to 1073741824 bytes (1 GiB)")))]
    #[schema(minimum = 1, maximum = 1_073_741_824)]
    pub quota_bytes: u64,
}

/// What a guest may do in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryAccess {
    /// List and read.
    ReadOnly,
    /// Change as well.
    ReadWrite,
}

impl From<DirectoryAccess> for Access {
    fn from(access: DirectoryAccess) -> Self {
        match access {
            DirectoryAccess::ReadOnly => Self::ReadOnly,
            DirectoryAccess::ReadWrite => Self::ReadWrite,
        }
    }
}

fn guest_path(path: &str, (): &()) -> garde::Result {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !matches!(part, "" | "." | "..") && part.bytes().all(allowed)
    };
    let holds = path.len() <= 255 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    require(
        holds,
        "must be an absolute path such as /data, of up to 255 letters, digits, `.`, `_` and `-`, without `..`",
    )
}

/// What must hold of all directories of a bot together.
pub(super) fn apart(granted: &[DirectoryGrant], (): &()) -> garde::Result {
    require(granted.len() <= MAX_DIRECTORIES, "must be 8 at most")?;
    for (number, one) in granted.iter().enumerate() {
        for other in granted.iter().skip(number + 1) {
            require(one.volume != other.volume, format!("must not have the volume `{}` twice", one.volume))?;
            let separate = !Path::new(&one.path).starts_with(&other.path)
                && !Path::new(&other.path).starts_with(&one.path);
            let message = format!("must not have one path in another: `{}` and `{}`", one.path, other.path);
            require(separate, message)?;
        }
    }
    Ok(())
}

impl Control {
    /// The directories of a bot on this host.
    pub(super) fn directories(&self, bot: &BotId, granted: &[DirectoryGrant]) -> Vec<Directory> {
        let Some(folder) = self.volumes_of(bot) else { return Vec::new() };
        granted
            .iter()
            .map(|grant| Directory {
                volume: folder.join(&grant.volume),
                path: grant.path.clone(),
                access: grant.access.into(),
                quota_bytes: grant.quota_bytes,
            })
            .collect()
    }

    fn volumes_of(&self, bot: &BotId) -> Option<PathBuf> {
        self.settings.volumes_dir.as_ref().map(|folder| folder.join(bot.as_str()))
    }

    /// Removes what a deleted bot has kept on this host. What a call still uses, or cannot be removed now, goes with
    /// [`Self::sweep_volumes`].
    pub(super) async fn remove_volumes(&self, bot: &BotId) {
        let Some(folder) = self.volumes_of(bot) else { return };
        let runtime = self.runtime.clone();
        match tokio::task::spawn_blocking(move || runtime.remove_volumes(&folder)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%bot, error = &error as &dyn std::error::Error, "volumes of a deleted bot cannot be removed");
            }
            Err(error) => {
                tracing::warn!(%bot, error = &error as &dyn std::error::Error, "removing volumes ended badly");
            }
        }
    }

    /// Removes what bots have left on this host that were deleted meanwhile: on another host, during a call, or just before
    /// a crash. What belongs to no bot that the database knows is left alone.
    pub(crate) async fn sweep_volumes(&self) {
        let Some(folder) = self.settings.volumes_dir.clone() else { return };
        let kept = tokio::task::spawn_blocking(move || owners(&folder)).await;
        for id in kept.unwrap_or_default() {
            let found = async { bots::get(&mut self.store.reader().await?, &id).await };
            match found.await {
                Ok(Some(bot)) if bot.status == BotStatus::Terminated => self.remove_volumes(&id).await,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "whose volumes are left cannot be found out"
                    );
                    return;
                }
            }
        }
    }
}

/// The bots that have volumes here, also such as were half removed. Blocks.
fn owners(folder: &Path) -> Vec<BotId> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut owners: Vec<BotId> = names
        .filter_map(|name| name.strip_prefix(ringfence_runtime::REMOVED_PREFIX).unwrap_or(&name).parse().ok())
        .collect();
    owners.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    owners.dedup();
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(volume: &str, path: &str) -> DirectoryGrant {
        let access = DirectoryAccess::ReadWrite;
        DirectoryGrant { volume: volume.to_owned(), path: path.to_owned(), access, quota_bytes: 1 }
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for path in ["/data", "/a/b.c/d_e-f", "/..."] {
            assert!(guest_path(path, &()).is_ok(), "{path}");
        }
        let long = format!("/{}", "a".repeat(255));
        for path in
            ["", "/", "data", "/data/", "//data", "/a//b", "/..", "/a/../b", "/a/.", "/ä", "/a\0", &long]
        {
            assert!(guest_path(path, &()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn directories_keep_out_of_each_other() {
        assert!(apart(&[grant("a", "/a"), grant("b", "/ab"), grant("c", "/c/d")], &()).is_ok());
        for (one, other) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b/c", "/a")] {
            assert!(apart(&[grant("a", one), grant("b", other)], &()).is_err(), "{one} {other}");
        }
        assert!(apart(&[grant("a", "/a"), grant("a", "/b")], &()).is_err());
        let many: Vec<_> = (0..9).map(|number| grant(&format!("v{number}"), &format!("/{number}"))).collect();
        assert!(apart(&many[..8], &()).is_ok());
        assert!(apart(&many, &()).is_err());
    }
}
