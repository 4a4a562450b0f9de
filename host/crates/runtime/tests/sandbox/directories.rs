//! Directories: what a guest can do in them, what it cannot, and what is counted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringfence_runtime::{
    Access, BotCall, Capabilities, Directory, Invocation, Limits, MAX_ENTRIES, MAX_FILE_WORK, MAX_OPEN,
    Outcome, Runtime,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guests::{RUNTIME, built, prepared};

/// Volumes of one bot, in a folder that is removed with it.
struct Volumes(TempDir);

const MIB: u64 = 1 << 20;

/// What the standard library says when the host has answered a call with `insufficient-space`.
const FULL: &str = "StorageFull";

/// The same, of a write: these are streams, and the C library of the guest says "I/O error" whatever went wrong in one. It
/// does not ask for the code.
const FULL_WRITE: &str = "Uncategorized";

impl Volumes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("bot")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    fn directory(&self, name: &str, access: Access, quota_bytes: u64) -> Directory {
        Directory { volume: self.volume(name), path: format!("/{name}"), access, quota_bytes }
    }

    /// One volume, `/data`.
    fn data(&self, quota_bytes: u64) -> Vec<Directory> {
        vec![self.directory("data", Access::ReadWrite, quota_bytes)]
    }

    /// The volume as an operator would prepare it.
    fn made(&self) -> PathBuf {
        let folder = self.volume("data");
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}

async fn call_within(
    guest: &str,
    input: Value,
    directories: Vec<Directory>,
    limits: Limits,
) -> Invocation<String> {
    let call = BotCall {
        input: input.to_string(),
        limits,
        capabilities: Arc::new(Capabilities { directories, ..Capabilities::default() }),
        ..prepared(&RUNTIME, built(guest)).await
    };
    RUNTIME.call_bot(call).await.unwrap()
}

async fn files(input: Value, directories: &[Directory]) -> Result<Value, String> {
    let done = call_within("files", input, directories.to_vec(), Limits::default()).await;
    match (&done.output, &done.failure) {
        (Some(output), _) => Ok(serde_json::from_str(output).unwrap()),
        (None, Some(failure)) => Err(failure.code.clone()),
        (None, None) => panic!("{done:?}"),
    }
}

/// What came of each attempt.
async fn tried(tries: Value, directories: &[Directory]) -> Vec<String> {
    let limits = Limits { wall_time_ms: 60_000, host_calls: 1_000_000, ..Limits::default() };
    let done = call_within("hostile/escape", tries, directories.to_vec(), limits).await;
    let output = done.output.as_deref().unwrap_or_else(|| panic!("{done:?}"));
    serde_json::from_str(output).unwrap()
}

async fn tried_one(attempt: Value, directories: &[Directory]) -> String {
    tried(json!([attempt]), directories).await.remove(0)
}

#[tokio::test]
async fn the_standard_library_simply_works_and_what_is_kept_lives_on() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    let write = json!({"do": "write", "path": "/data/notes/milk.txt", "text": "two litres"});
    assert_eq!(files(write, &data).await.unwrap(), json!({"written": {"bytes": 10}}));
    let listed = files(json!({"do": "list", "path": "/data/notes"}), &data).await.unwrap();
    assert_eq!(listed, json!({"entries": [{"name": "milk.txt", "bytes": 10}]}));
    let read = files(json!({"do": "read", "path": "/data/notes/milk.txt"}), &data).await.unwrap();
    assert_eq!(read, json!({"text": "two litres"}));
    assert_eq!(fs::read_to_string(volumes.volume("data").join("notes/milk.txt")).unwrap(), "two litres");
    assert_eq!(volumes.volume("data").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(files(json!({"do": "delete", "path": "/data/notes"}), &data).await.unwrap(), json!("deleted"));
    assert_eq!(files(json!({"do": "list", "path": "/data"}), &data).await.unwrap(), json!({"entries": []}));
}

#[tokio::test]
async fn without_the_grant_there_is_nothing() {
    for path in ["/data/x", "/etc/passwd", "x"] {
        let refused = files(json!({"do": "read", "path": path}), &[]).await;
        assert!(refused.is_err(), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn large_files_come_back_as_they_were() {
    let volumes = Volumes::new();
    let data = volumes.data(8 * MIB);
    let text: String = (0..300_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    let write = json!({"do": "write", "path": "/data/large", "text": text});
    files(write, &data).await.unwrap();
    assert_eq!(fs::read_to_string(volumes.volume("data").join("large")).unwrap(), text);
    let read = files(json!({"do": "read", "path": "/data/large"}), &data).await.unwrap();
    assert_eq!(read["text"], text);
}

#[tokio::test]
async fn read_only_is_read_only() {
    let volumes = Volumes::new();
    fs::write(volumes.made().join("kept"), "kept").unwrap();
    fs::create_dir(volumes.made().join("folder")).unwrap();
    let data = [volumes.directory("data", Access::ReadOnly, MIB)];
    let said = tried(
        json!([
            {"try": "read", "path": "/data/kept"},
            {"try": "list", "path": "/data"},
            {"try": "write", "path": "/data/new", "bytes": 1},
            {"try": "write", "path": "/data/kept", "bytes": 1},
            {"try": "write_at", "path": "/data/kept", "offset": 0, "bytes": 1},
            {"try": "append", "path": "/data/kept", "bytes": 1},
            {"try": "set_len", "path": "/data/kept", "bytes": 0},
            {"try": "truncate", "path": "/data/kept"},
            {"try": "touch", "path": "/data/kept"},
            {"try": "mkdir", "path": "/data/new"},
            {"try": "rmdir", "path": "/data/folder"},
            {"try": "remove", "path": "/data/kept"},
            {"try": "rename", "path": "/data/kept", "to": "/data/other"},
            {"try": "link", "path": "/data/kept", "to": "/data/other"},
            {"try": "symlink", "path": "/data/other", "to": "kept"},
        ]),
        &data,
    )
    .await;
    assert_eq!(said[..2], ["ok kept", "ok folder kept"]);
    assert!(said[2..].iter().all(|said| said == "PermissionDenied"), "{said:?}");
    assert_eq!(fs::read_to_string(volumes.made().join("kept")).unwrap(), "kept");
    assert_ne!(volumes.made().join("kept").metadata().unwrap().mtime(), 0);
}

#[tokio::test]
async fn no_path_leads_out() {
    let volumes = Volumes::new();
    let secret = volumes.0.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let data = volumes.made();
    fs::create_dir(data.join("dir")).unwrap();
    symlink(&secret, data.join("absolute")).unwrap();
    symlink("../../secret", data.join("relative")).unwrap();
    symlink("/", data.join("root")).unwrap();
    symlink("..", data.join("up")).unwrap();
    symlink("loop", data.join("loop")).unwrap();
    symlink("there", data.join("back")).unwrap();
    symlink("back", data.join("there")).unwrap();
    symlink("../../made-outside", data.join("dangling")).unwrap();
    symlink("../../secret/", data.join("slash")).unwrap();
    let long = format!("/data/{}", "a/".repeat(3000));
    let name = format!("/data/{}", "n".repeat(300));
    let depth = format!("/data/{}../../secret", "dir/../".repeat(300));
    let paths = [
        "/etc/passwd",
        "/data/../secret",
        "/data/../../secret",
        "/data/dir/../../../secret",
        "/data/dir/../../../secret/",
        "/data/dir/../..//../secret//",
        "/data/dir/../..//",
        "/data/./dir/.././../../secret",
        "/data/absolute",
        "/data/absolute/",
        "/data/relative",
        "/data/relative/",
        "/data/slash",
        "/data/root/etc/passwd",
        "/data/up/../secret",
        "/data/up/up/secret",
        "/data/loop",
        "/data/back/x",
        "/data/dangling",
        "/data/nul\u{0}/../../secret",
        "../secret",
        "/proc/self/environ",
        &long,
        &name,
        &depth,
    ];
    for path in paths {
        let attempts = json!([
            {"try": "read", "path": path},
            {"try": "list", "path": path},
            {"try": "stat", "path": path},
            {"try": "write", "path": path, "bytes": 3},
            {"try": "append", "path": path, "bytes": 3},
            {"try": "truncate", "path": path},
            {"try": "set_len", "path": path, "bytes": 0},
            {"try": "touch", "path": path},
            {"try": "mkdir", "path": path},
            {"try": "rename", "path": path, "to": "/data/dir/taken"},
            {"try": "link", "path": path, "to": "/data/dir/taken"},
            {"try": "symlink", "path": "/data/dir/taken", "to": path},
        ]);
        // Links that the operator made may be moved about; they lead nowhere still.
        let may_move = data.join(path.trim_start_matches("/data/")).is_symlink();
        for (attempt, said) in
            attempts.as_array().unwrap().iter().zip(tried(attempts.clone(), &volumes.data(MIB)).await)
        {
            let moved = may_move && attempt["try"] == "rename";
            assert!(!said.starts_with("ok") || moved, "{attempt}: {said}");
            assert!(!said.contains("secret"), "{attempt}: {said}");
        }
        if may_move && data.join("dir/taken").is_symlink() {
            let said = tried_one(json!({"try": "read", "path": "/data/dir/taken"}), &volumes.data(MIB)).await;
            assert!(!said.starts_with("ok"), "{path}: {said}");
            fs::rename(data.join("dir/taken"), data.join(path.trim_start_matches("/data/"))).unwrap();
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_ne!(secret.metadata().unwrap().mtime(), 0);
    assert!(!volumes.0.path().join("made-outside").exists());
    assert_eq!(fs::read_dir(volumes.folder()).unwrap().count(), 1, "nothing beside the volume");
    assert_eq!(fs::read_dir(data.join("dir")).unwrap().count(), 0);
}

#[tokio::test]
async fn links_inside_are_followed_and_none_are_made() {
    let volumes = Volumes::new();
    fs::write(volumes.made().join("kept"), "kept").unwrap();
    symlink("kept", volumes.made().join("link")).unwrap();
    let data = volumes.data(MIB);
    let said = tried(
        json!([
            {"try": "read", "path": "/data/link"},
            {"try": "readlink", "path": "/data/link"},
            {"try": "symlink", "path": "/data/new", "to": "kept"},
            {"try": "symlink", "path": "/data/new", "to": "/etc/passwd"},
            {"try": "link", "path": "/data/kept", "to": "/data/new"},
            {"try": "remove", "path": "/data/link"},
            {"try": "read", "path": "/data/kept"},
        ]),
        &data,
    )
    .await;
    let refused = "PermissionDenied";
    assert_eq!(said, ["ok kept", "ok kept", refused, refused, refused, "ok done", "ok kept"]);
}

/// What a guest could not make itself. No attempt may wait: a thread that opens a pipe never comes back.
#[tokio::test]
async fn things_that_are_no_files_are_left_alone() {
    let volumes = Volumes::new();
    let data = volumes.made();
    let outside = volumes.0.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    fs::hard_link(&outside, data.join("hard")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(data.join("pipe")).status().unwrap();
    assert!(pipe.success());
    let _socket = std::os::unix::net::UnixListener::bind(data.join("socket")).unwrap();
    symlink("pipe", data.join("link")).unwrap();
    let mut specials = vec!["link", "hard", "pipe", "socket"];
    // Making a device takes root.
    let device =
        std::process::Command::new("mknod").arg(data.join("device")).args(["c", "1", "3"]).output().unwrap();
    if device.status.success() {
        specials.push("device");
    }
    for special in specials {
        let path = format!("/data/{special}");
        let said = tried(
            json!([
                {"try": "read", "path": path},
                {"try": "write", "path": path, "bytes": 1},
                {"try": "append", "path": path, "bytes": 1},
                {"try": "write_at", "path": path, "offset": 0, "bytes": 1},
                {"try": "set_len", "path": path, "bytes": 0},
                {"try": "truncate", "path": path},
                {"try": "touch", "path": path},
                {"try": "list", "path": path},
            ]),
            &volumes.data(MIB),
        )
        .await;
        assert!(said.iter().all(|said| said == "PermissionDenied"), "{special}: {said:?}");
        let removed = tried_one(json!({"try": "remove", "path": path}), &volumes.data(MIB)).await;
        assert_eq!(removed, "ok done", "{special}: its name in the volume may go");
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
}

#[tokio::test]
async fn the_quota_holds_whatever_way_a_file_grows() {
    let volumes = Volumes::new();
    let data = volumes.data(1000);
    let said = tried(
        json!([
            {"try": "write", "path": "/data/a", "bytes": 600},
            {"try": "write", "path": "/data/b", "bytes": 401},
            {"try": "remove", "path": "/data/b"},
            {"try": "append", "path": "/data/a", "bytes": 401},
            {"try": "write_at", "path": "/data/a", "offset": 999, "bytes": 2},
            {"try": "write_at", "path": "/data/a", "offset": 9_000_000_000_000_000_000_u64, "bytes": 1},
            {"try": "set_len", "path": "/data/a", "bytes": 1001},
            {"try": "set_len", "path": "/data/a", "bytes": u64::MAX >> 1},
            {"try": "append", "path": "/data/a", "bytes": 400},
            {"try": "append", "path": "/data/a", "bytes": 1},
            {"try": "write_at", "path": "/data/a", "offset": 0, "bytes": 1000},
            {"try": "stat", "path": "/data/a"},
        ]),
        &data,
    )
    .await;
    let done = "ok done";
    let full = FULL_WRITE;
    assert_eq!(said, [done, full, done, full, full, full, FULL, FULL, done, full, done, "ok 1000"]);
}

#[tokio::test]
async fn room_comes_back_in_every_way() {
    let volumes = Volumes::new();
    let data = volumes.data(1000);
    let fits = json!({"try": "write", "path": "/data/probe", "bytes": 1000});
    let clear = json!({"try": "remove", "path": "/data/probe"});
    let ways = [
        json!([{"try": "truncate", "path": "/data/a"}]),
        json!([{"try": "set_len", "path": "/data/a", "bytes": 0}]),
        json!([{"try": "remove", "path": "/data/a"}]),
        json!([{"try": "write", "path": "/data/a", "bytes": 0}]),
        json!([{"try": "write", "path": "/data/b", "bytes": 0}, {"try": "rename", "path": "/data/b", "to": "/data/a"}]),
    ];
    for way in ways {
        let said = tried(json!([{"try": "write", "path": "/data/a", "bytes": 1000}, fits]), &data).await;
        assert_eq!(said, ["ok done", FULL_WRITE], "{way}");
        let said = tried(way.clone(), &data).await;
        assert!(said.iter().all(|said| said == "ok done"), "{way}: {said:?}");
        assert_eq!(tried(json!([fits, clear]), &data).await, ["ok done", "ok done"], "{way}");
    }
    // A file moved over itself, or away, is still there.
    let said = tried(
        json!([
            {"try": "write", "path": "/data/a", "bytes": 1000},
            {"try": "rename", "path": "/data/a", "to": "/data/a"},
            {"try": "rename", "path": "/data/a", "to": "/data/b"},
            fits,
        ]),
        &data,
    )
    .await;
    assert_eq!(said, ["ok done", "ok done", "ok done", FULL_WRITE]);
}

#[tokio::test]
async fn a_file_without_a_name_takes_its_room_until_it_is_closed() {
    let volumes = Volumes::new();
    let data = volumes.data(1000);
    let other = json!({"try": "write", "path": "/data/b", "bytes": 1000});
    let unlinked = json!({"try": "unlinked", "path": "/data/a", "bytes": 1000, "other": other});
    assert_eq!(tried_one(unlinked, &data).await, format!("ok {FULL_WRITE}"));
    // It is closed by another thread; room comes back a moment after the guest has closed it.
    for _ in 0..500 {
        if tried_one(other.clone(), &data).await == "ok done" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the room of a file that was removed while open did not come back");
}

#[tokio::test]
async fn the_count_is_made_anew_where_the_folder_is_another() {
    let volumes = Volumes::new();
    let data = volumes.data(1000);
    let write = json!({"try": "write", "path": "/data/a", "bytes": 1000});
    assert_eq!(tried_one(write.clone(), &data).await, "ok done");
    fs::rename(volumes.volume("data"), volumes.0.path().join("backup")).unwrap();
    assert_eq!(tried_one(write, &data).await, "ok done");
    // A second host that starts on the same folder counts what it finds.
    let second = crate::guests::runtime(ringfence_runtime::RuntimeConfig { slots: 2, ..Default::default() });
    let said = with(&second, json!([{"try": "append", "path": "/data/b", "bytes": 1}]), &data).await;
    assert_eq!(said, [FULL_WRITE]);
}

async fn with(runtime: &Runtime, tries: Value, directories: &[Directory]) -> Vec<String> {
    let call = BotCall {
        input: tries.to_string(),
        capabilities: Arc::new(Capabilities { directories: directories.to_vec(), ..Capabilities::default() }),
        ..prepared(runtime, built("hostile/escape")).await
    };
    serde_json::from_str(&runtime.call_bot(call).await.unwrap().output.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_calls_share_one_quota() {
    let volumes = Volumes::new();
    let data = volumes.data(100_000);
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..8 {
        let data = data.clone();
        calls.spawn(async move {
            let appends: Vec<_> = (0..10)
                .flat_map(|_| {
                    [
                        json!({"try": "append", "path": "/data/shared", "bytes": 3000}),
                        json!({"try": "append", "path": format!("/data/{call}"), "bytes": 3000}),
                    ]
                })
                .collect();
            tried(json!(appends), &data).await
        });
    }
    let said: Vec<String> = calls.join_all().await.into_iter().flatten().collect();
    assert!(said.iter().all(|said| said == "ok done" || said == FULL_WRITE), "{said:?}");
    assert!(said.iter().any(|said| said == FULL_WRITE));
    let taken: u64 = fs::read_dir(volumes.volume("data"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(taken <= 100_000, "{taken}");
    // Exact to the byte: what is left is what can be written, and no more.
    let left = 100_000 - taken;
    let said = tried(
        json!([
            {"try": "append", "path": "/data/rest", "bytes": left + 1},
            {"try": "append", "path": "/data/shared", "bytes": 0},
        ]),
        &data,
    )
    .await;
    assert_eq!(said, [FULL_WRITE, "ok done"]);
    let rest = fs::metadata(volumes.volume("data").join("rest")).unwrap().len();
    let said = tried_one(json!({"try": "append", "path": "/data/rest", "bytes": left - rest}), &data).await;
    assert_eq!(said, "ok done");
}

#[tokio::test]
async fn entries_and_open_files_are_bounded() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    for number in 0..MAX_ENTRIES - 3 {
        fs::write(volumes.made().join(format!("old-{number}")), "").unwrap();
    }
    let said = tried(
        json!([
            {"try": "make_many", "path": "/data", "times": 10},
            {"try": "mkdir", "path": "/data/folder"},
            {"try": "remove", "path": "/data/0"},
            {"try": "mkdir", "path": "/data/folder"},
            {"try": "write", "path": "/data/one-more", "bytes": 1},
            {"try": "rmdir", "path": "/data/folder"},
            {"try": "write", "path": "/data/one-more", "bytes": 1},
            {"try": "open_many", "path": "/data/one-more", "times": 1000},
        ]),
        &data,
    )
    .await;
    let full = FULL;
    let open = format!("ok {MAX_OPEN} then OutOfMemory");
    assert_eq!(
        said,
        ["ok 3 then StorageFull", full, "ok done", "ok done", full, "ok done", "ok done", open.as_str()]
    );
}

#[tokio::test]
async fn a_deep_tree_harms_nobody_and_can_be_removed() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    let said = tried_one(json!({"try": "deep", "path": "/data", "levels": 3000}), &data).await;
    assert_eq!(said, "ok 3000");
    let again = crate::guests::runtime(ringfence_runtime::RuntimeConfig { slots: 2, ..Default::default() });
    assert_eq!(with(&again, json!([{"try": "list", "path": "/data"}]), &data).await, ["ok down"]);
    assert!(RUNTIME.remove_volumes(&volumes.folder()).unwrap());
    assert_eq!(fs::read_dir(volumes.0.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn two_directories_are_two_volumes() {
    let volumes = Volumes::new();
    let both = [
        volumes.directory("data", Access::ReadWrite, 100),
        volumes.directory("other", Access::ReadWrite, 1000),
    ];
    let said = tried(
        json!([
            {"try": "write", "path": "/other/a", "bytes": 1000},
            {"try": "rename", "path": "/other/a", "to": "/data/a"},
            {"try": "read", "path": "/data/../other/a"},
            {"try": "write", "path": "/data/a", "bytes": 101},
            {"try": "write", "path": "/data/a", "bytes": 100},
        ]),
        &both,
    )
    .await;
    assert_eq!(said[0], "ok done");
    assert_eq!(said[1], "CrossesDevices");
    assert!(!said[2].starts_with("ok"), "{said:?}");
    assert_eq!(said[3..], [FULL_WRITE, "ok done"]);
}

#[tokio::test]
async fn calls_that_end_amid_file_work_end_in_time_and_leave_nothing_in_the_way() {
    let volumes = Volumes::new();
    let data = volumes.data(1 << 30);
    let limits =
        Limits { wall_time_ms: 200, host_calls: 1_000_000, fuel: 50_000_000_000, ..Limits::default() };
    let flood = json!([{"try": "flood", "path": "/data/a", "times": 1_000_000, "bytes": 60_000}]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..2 * MAX_FILE_WORK {
        calls.spawn(call_within("hostile/escape", flood.clone(), data.clone(), limits.clone()));
    }
    for ended in calls.join_all().await {
        assert_eq!(ended.outcome, Outcome::TimedOut, "{ended:?}");
    }
    // Nothing of theirs is left in the way of the next.
    let said = tried_one(json!({"try": "write", "path": "/data/a", "bytes": 10}), &data).await;
    assert_eq!(said, "ok done");
}

#[tokio::test]
async fn host_calls_are_counted_and_limited() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    let few = Limits { host_calls: 200, ..Limits::default() };
    let flood = json!([{"try": "flood", "path": "/data/a", "times": 1000, "bytes": 10}]);
    let ended = call_within("hostile/escape", flood, data, few).await;
    assert_eq!((ended.outcome, ended.usage.host_calls), (Outcome::HostCallLimit, 200));
}

#[tokio::test]
async fn volumes_are_removed_when_nobody_uses_them() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    tried_one(json!({"try": "write", "path": "/data/a", "bytes": 10}), &data).await;
    assert!(RUNTIME.remove_volumes(&volumes.folder()).unwrap());
    assert!(!volumes.folder().exists());
    assert!(RUNTIME.remove_volumes(&volumes.folder()).unwrap(), "what is not there is gone");
    // One that a crash left behind, under the name that it had been given.
    fs::create_dir_all(volumes.0.path().join(".removed-bot/data/more")).unwrap();
    tried_one(json!({"try": "write", "path": "/data/a", "bytes": 10}), &data).await;
    while !RUNTIME.remove_volumes(&volumes.folder()).unwrap() {}
    assert_eq!(fs::read_dir(volumes.0.path()).unwrap().count(), 0);
    let said = tried_one(json!({"try": "list", "path": "/data"}), &data).await;
    assert_eq!(said, "ok ", "a new one, empty");
}

#[tokio::test]
async fn a_volume_in_use_stays() {
    let volumes = Volumes::new();
    let data = volumes.data(MIB);
    let busy = json!([{"try": "flood", "path": "/data/a", "times": 1_000_000, "bytes": 10}]);
    let limits = Limits { wall_time_ms: 60_000, host_calls: 1_000_000, ..Limits::default() };
    let call = tokio::spawn(call_within("hostile/escape", busy, data, limits));
    while !volumes.volume("data").join("a").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!RUNTIME.remove_volumes(&volumes.folder()).unwrap());
    assert!(volumes.volume("data").join("a").exists());
    call.abort();
    let _ = call.await;
    for _ in 0..1000 {
        if RUNTIME.remove_volumes(&volumes.folder()).unwrap() {
            assert!(!volumes.folder().exists());
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the volume was still in use after its call");
}

#[tokio::test]
async fn a_volume_that_cannot_be_opened_is_the_hosts_matter() {
    let volumes = Volumes::new();
    fs::create_dir_all(volumes.folder()).unwrap();
    symlink(Path::new("/etc"), volumes.volume("data")).unwrap();
    let call = BotCall {
        capabilities: Arc::new(Capabilities { directories: volumes.data(MIB), ..Capabilities::default() }),
        ..prepared(&RUNTIME, built("files")).await
    };
    let refused = RUNTIME.call_bot(call).await.unwrap_err();
    assert_eq!(refused.code(), "internal", "{refused}");
}
