//! Compiled code on disk and in memory: found again, never believed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use ringfence_runtime::{
    CallError, ComponentSource, Digest, NoSource, Outcome, Runtime, RuntimeConfig, StartError,
};

use crate::guests::{bot, built, prepared, runtime, tenant};

fn config(folder: &Path) -> RuntimeConfig {
    RuntimeConfig { cache_dir: Some(folder.to_owned()), slots: 2, ..RuntimeConfig::default() }
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect();
    files.sort();
    files
}

fn changed_at(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test]
async fn compiled_code_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let call = prepared(&runtime(config(folder.path())), built("echo")).await;
    let files = kept(folder.path());
    assert_eq!(files.len(), 1);
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&call.digest.to_string()["sha256:".len()..]), "{name}");
    let key = folder.path().join("cache.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing temporary is left");

    // Another start, with nothing but the cache: no source to compile from.
    let before = changed_at(&files[0]);
    let again = runtime(config(folder.path()));
    assert_eq!(again.call_bot(call).await.unwrap().outcome, Outcome::Completed);
    assert_eq!(changed_at(&files[0]), before);
    // And what is known of it is the same.
    let info = again.prepare(built("echo"), &tenant()).await.unwrap();
    assert_eq!(info.size_bytes, built("echo").len() as u64);
}

#[tokio::test]
async fn a_changed_file_is_refused_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let call = prepared(&runtime(config(folder.path())), built("echo")).await;
    let file = kept(folder.path()).remove(0);
    let good = fs::read(&file).unwrap();

    let mut code = good.clone();
    let last = code.len() - 1;
    code[last / 2] ^= 1;
    let mut tag = good.clone();
    tag[0] ^= 1;
    let bad = [code, tag, good[..last].to_vec(), Vec::new(), b"short".to_vec(), vec![0; good.len()]];
    for bytes in bad {
        fs::write(&file, &bytes).unwrap();
        let without_source = runtime(config(folder.path()));
        assert_eq!(
            without_source.call_bot(call.clone()).await,
            Err(CallError::UnknownComponent(call.digest)),
            "the file must not be used"
        );
        let again = runtime(config(folder.path()));
        again.prepare(built("echo"), &tenant()).await.unwrap();
        assert_eq!(again.call_bot(call.clone()).await.unwrap().outcome, Outcome::Completed);
        assert_eq!(fs::read(&file).unwrap().len(), good.len(), "compiled and kept again");
    }
}

#[tokio::test]
async fn a_file_of_another_component_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let host = runtime(config(folder.path()));
    let echo = prepared(&host, built("echo")).await;
    let echo_file = kept(folder.path()).remove(0);
    let other = prepared(&host, bot("", "(i32.const 16)")).await;
    let other_file = kept(folder.path()).into_iter().find(|file| *file != echo_file).unwrap();
    // Authentic, and under the wrong name.
    fs::copy(&other_file, &echo_file).unwrap();
    let again = runtime(config(folder.path()));
    assert_eq!(again.call_bot(echo.clone()).await, Err(CallError::UnknownComponent(echo.digest)));
    assert_eq!(again.call_bot(other).await.unwrap().outcome, Outcome::Completed);
}

#[tokio::test]
async fn another_hosts_file_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let call = prepared(&runtime(config(theirs.path())), built("echo")).await;
    let file = kept(theirs.path()).remove(0);
    let host = runtime(config(ours.path()));
    fs::copy(&file, ours.path().join(file.file_name().unwrap())).unwrap();
    assert_eq!(host.call_bot(call.clone()).await, Err(CallError::UnknownComponent(call.digest)));
}

#[tokio::test]
async fn a_broken_key_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cache.key"), "short").unwrap();
    let error = Runtime::new(config(folder.path()), Arc::new(NoSource)).err().unwrap();
    assert!(matches!(&error, StartError::Cache { .. }) && error.to_string().contains("cache.key"), "{error}");
}

struct Counting {
    wasm: Bytes,
    asked: AtomicUsize,
}

#[async_trait]
impl ComponentSource for Counting {
    async fn load(&self, _: &Digest) -> Result<Option<Bytes>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok(Some(self.wasm.clone()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_calls_compile_once() {
    let source = Arc::new(Counting { wasm: built("echo"), asked: AtomicUsize::new(0) });
    let host = Runtime::new(RuntimeConfig { slots: 8, ..RuntimeConfig::default() }, source.clone()).unwrap();
    let call = prepared(&crate::guests::RUNTIME, built("echo")).await;
    let calls = (0..8).map(|_| {
        let (host, call) = (host.clone(), call.clone());
        tokio::spawn(async move { host.call_bot(call).await.unwrap().outcome })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), Outcome::Completed);
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_source_is_not_believed_either() {
    let source = Arc::new(Counting { wasm: bot("", "(i32.const 16)"), asked: AtomicUsize::new(0) });
    let host = Runtime::new(RuntimeConfig { slots: 1, ..RuntimeConfig::default() }, source).unwrap();
    let call = prepared(&crate::guests::RUNTIME, built("echo")).await;
    let error = host.call_bot(call).await.unwrap_err();
    assert!(matches!(error, CallError::SourceFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn memory_holds_so_many_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let host = runtime(RuntimeConfig { loaded_cache_bytes: 1, ..config(folder.path()) });
    let first = prepared(&host, bot("", "(i32.const 16)")).await;
    let second = prepared(&host, bot("(global i32 (i32.const 1))", "(i32.const 16)")).await;
    assert_eq!(host.load().loaded_components, 1);
    assert!(host.load().loaded_bytes > 0);
    // What was dropped comes back from the disk.
    for call in [first, second] {
        assert_eq!(host.call_bot(call).await.unwrap().outcome, Outcome::Completed);
    }
    assert_eq!(host.load().loaded_components, 1);
}
