//! The folder of compiled code over starts and engines: what is there is not made again, what another engine left is made
//! anew ahead of the calls, and what nobody uses goes.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ringfence_runtime::{
    BotCall, CallError, Compiler, ComponentSource, Digest, Outcome, Precompiled, Runtime, RuntimeConfig,
};

use crate::guests::{bot, built, prepared, runtime, tenant};

fn config(folder: &Path) -> RuntimeConfig {
    RuntimeConfig { cache_dir: Some(folder.to_owned()), slots: 2, ..RuntimeConfig::default() }
}

/// A few bots, all different.
fn bots() -> Vec<Bytes> {
    (0..4).map(|number| bot(&format!("(global i32 (i32.const {number}))"), "(i32.const 16)")).collect()
}

struct Bots(Vec<Bytes>);

#[async_trait]
impl ComponentSource for Bots {
    async fn load(&self, digest: &Digest) -> Result<Option<Bytes>, String> {
        Ok(self.0.iter().find(|wasm| Digest::of(wasm) == *digest).cloned())
    }
}

fn with_source(config: RuntimeConfig) -> Runtime {
    Runtime::new(config, Arc::new(Bots(bots()))).unwrap()
}

async fn all_prepared(host: &Runtime) -> Vec<BotCall> {
    let mut calls = Vec::new();
    for wasm in bots() {
        calls.push(prepared(host, wasm).await);
    }
    calls
}

fn digests(calls: &[BotCall]) -> Vec<Digest> {
    calls.iter().map(|call| call.digest).collect()
}

fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

const ANOTHER: &str = "0123456789abcdef";

/// Makes what lies there another engine's.
fn as_if_by_another_engine(folder: &Path) {
    for file in files(folder, ".cwasm") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (digest, _) = name.split_once('-').unwrap();
        fs::rename(&file, folder.join(format!("{digest}-{ANOTHER}.cwasm"))).unwrap();
    }
}

fn not_used_for(days: u64, file: &Path) {
    let age = Duration::from_secs(days * 24 * 3600);
    let file = fs::File::options().append(true).open(file).unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    file.set_modified(now - age).unwrap();
}

#[tokio::test]
async fn a_start_compiles_nothing_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let host = runtime(config(folder.path()));
    let calls = all_prepared(&host).await;
    let load = host.load();
    assert_eq!((load.compilations, load.loaded_from_disk), (4, 0));

    let again = with_source(config(folder.path()));
    assert_eq!(again.not_compiled(digests(&calls)).await.unwrap(), []);
    for (call, number) in calls.iter().zip(1..) {
        for _ in 0..2 {
            assert_eq!(again.call_bot(call.clone()).await.unwrap().outcome, Outcome::Completed);
        }
        let load = again.load();
        assert_eq!((load.compilations, load.loaded_from_disk), (0, number));
        assert_eq!(again.precompile(call.digest).await.unwrap(), Precompiled::Kept);
    }
}

#[tokio::test]
async fn another_engines_code_is_made_anew_ahead_of_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let calls = all_prepared(&runtime(config(folder.path()))).await;
    as_if_by_another_engine(folder.path());

    let host = with_source(config(folder.path()));
    let missing = host.not_compiled(digests(&calls)).await.unwrap();
    assert_eq!(missing, digests(&calls));
    for digest in &missing {
        assert_eq!(host.precompile(*digest).await.unwrap(), Precompiled::Compiled);
    }
    assert_eq!(host.not_compiled(missing.clone()).await.unwrap(), []);
    assert_eq!(host.load().loaded_components, 0, "compiled, and not loaded");
    assert_eq!(files(folder.path(), ".cwasm").len(), 8, "the other engine's code stays");

    // A file that does not hold what its name says is made again.
    let own =
        files(folder.path(), ".cwasm").into_iter().find(|file| !file.to_string_lossy().contains(ANOTHER));
    fs::write(own.unwrap(), "junk").unwrap();
    let mut again = Vec::new();
    for digest in &missing {
        again.push(host.precompile(*digest).await.unwrap());
    }
    assert_eq!(again.iter().filter(|done| **done == Precompiled::Compiled).count(), 1);

    let host = runtime(config(folder.path()));
    for call in calls {
        assert_eq!(host.call_bot(call).await.unwrap().outcome, Outcome::Completed);
    }
    assert_eq!(host.load().compilations, 0);
    let unknown = Digest::of(b"nothing");
    assert_eq!(host.precompile(unknown).await, Err(CallError::UnknownComponent(unknown)));
}

/// A compiler that never ends keeps nobody waiting: it is ended when a call needs one, and begun again after that.
#[tokio::test]
async fn what_is_compiled_ahead_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, refusal) = (folder.path().join("begun"), "printf RFERROR1; echo busy");
    let script = format!(
        "head -c 32 >/dev/null; if [ -e {0} ]; then {refusal}; else touch {0}; exec sleep 60; fi",
        begun.display()
    );
    let host = with_source(RuntimeConfig {
        compiler: Compiler::Child { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] },
        compile_concurrency: 1,
        ..config(&folder.path().join("cache"))
    });
    let ahead = tokio::spawn({
        let host = host.clone();
        async move { host.precompile(Digest::of(&bots()[0])).await }
    });
    while !begun.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Its own minute is far from over.
    let error = host.prepare(built("echo"), &tenant()).await.unwrap_err().to_string();
    assert!(error.contains("busy"), "{error}");
    let ahead = ahead.await.unwrap().unwrap_err();
    assert!(matches!(ahead, CallError::Invalid(_)), "{ahead}");
    assert_eq!(host.load().compilations, 3);
}

#[tokio::test]
async fn what_nobody_uses_goes_after_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let calls = all_prepared(&runtime(config(folder.path()))).await;
    as_if_by_another_engine(folder.path());
    let host = runtime(config(folder.path()));
    let _ = all_prepared(&host).await;
    let stamp = folder.path().join(format!("{ANOTHER}.engine"));
    fs::write(&stamp, "").unwrap();
    fs::write(folder.path().join("left.tmp"), "half").unwrap();
    fs::write(folder.path().join("notes.txt"), "an operator's").unwrap();
    let in_use: HashSet<Digest> = digests(&calls)[..3].iter().copied().collect();
    assert_eq!(host.sweep_cache(in_use.clone()).await.unwrap().files, 0, "all of it is young");

    // The components' code is old, and another host runs the other engine.
    for file in files(folder.path(), ".cwasm").iter().chain(&files(folder.path(), ".tmp")) {
        not_used_for(8, file);
    }
    not_used_for(8, &folder.path().join("notes.txt"));
    not_used_for(8, &folder.path().join("cache.key"));
    let swept = host.sweep_cache(in_use.clone()).await.unwrap();
    assert_eq!(swept.files, 2, "of the one that is in no use, and what was half-written");
    assert!(swept.bytes > 4);
    assert!(!folder.path().join("left.tmp").exists());
    assert_eq!(host.not_compiled(digests(&calls)).await.unwrap(), digests(&calls)[3..]);

    // Nobody has run it for a week.
    not_used_for(8, &stamp);
    assert_eq!(host.sweep_cache(in_use).await.unwrap().files, 5);
    let left = files(folder.path(), "");
    let left: Vec<_> = left.iter().filter_map(|path| path.extension()?.to_str()).collect();
    assert_eq!(left.iter().filter(|end| **end == "cwasm").count(), 3);
    assert_eq!(left.len(), 6, "the key, the notes and this engine's mark: {left:?}");
}

#[tokio::test]
async fn a_call_marks_its_code_as_used() {
    let folder = tempfile::tempdir().unwrap();
    let call = prepared(&runtime(config(folder.path())), built("echo")).await;
    let file = files(folder.path(), ".cwasm").remove(0);
    not_used_for(8, &file);
    let host = runtime(config(folder.path()));
    assert_eq!(host.call_bot(call).await.unwrap().outcome, Outcome::Completed);
    assert_eq!(host.sweep_cache(HashSet::new()).await.unwrap().files, 0);
    not_used_for(8, &file);
    assert_eq!(host.sweep_cache(HashSet::new()).await.unwrap().files, 1);
}
