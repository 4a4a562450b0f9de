//! Compilers that are processes of their own, and misbehave: shells stand in for them. That a real one works, and what
//! it may do, is in the black-box tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence_runtime::{CompileLimits, Compiler, PrepareError, Runtime, RuntimeConfig};

use crate::guests::{built, runtime, tenant};

/// A host whose compiler is this script.
fn host(script: &str, limits: CompileLimits) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let host = runtime(RuntimeConfig {
        cache_dir: Some(folder.path().to_owned()),
        slots: 1,
        compiler: Compiler::Child {
            program: PathBuf::from("/bin/sh"),
            arguments: vec![OsString::from("-c"), OsString::from(script)],
        },
        compile_limits: limits,
        compile_concurrency: 1,
        compile_queue_timeout_ms: 300,
        ..RuntimeConfig::default()
    });
    (host, folder)
}

async fn refused(script: &str, limits: CompileLimits) -> String {
    let (host, folder) = host(script, limits);
    let error = host.prepare(built("echo"), &tenant()).await.unwrap_err();
    let PrepareError::Invalid(error) = error else { panic!("{error}") };
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the key is kept");
    format!("{}: {error}", error.code())
}

#[tokio::test]
async fn a_child_that_gives_no_answer() {
    for script in ["exit 0", "exit 101", "echo junk", "echo RFCOD", "printf RFCODE01; exit 1"] {
        let answer = refused(script, CompileLimits::default()).await;
        assert!(answer.starts_with("compile_failed: "), "{script}: {answer}");
    }
    // Read to the end first, so that it is not only a broken pipe.
    let answer = refused("head -c 100 >/dev/null; exit 3", CompileLimits::default()).await;
    assert!(answer.starts_with("compile_failed: "), "{answer}");
}

#[tokio::test]
async fn what_the_compiler_says_comes_through_and_not_all_of_it() {
    let script = "printf 'RFERROR1unexpected end (at offset 0x9)'";
    let answer = refused(script, CompileLimits::default()).await;
    assert!(answer.starts_with("component_malformed: ") && answer.contains("0x9"), "{answer}");
    let answer = refused("printf RFERROR1; head -c 1000000 /dev/zero | tr '\\0' x", CompileLimits::default());
    assert!(answer.await.len() < 20_000);
}

#[tokio::test]
async fn a_child_that_writes_too_much() {
    let limits = CompileLimits { code_bytes: 100_000, ..CompileLimits::default() };
    let answer = refused("printf RFCODE01; exec cat /dev/zero", limits).await;
    assert!(answer.starts_with("compilation_limit: ") && answer.contains("100000 bytes of code"), "{answer}");
}

#[tokio::test]
async fn a_child_that_takes_too_long() {
    let limits = CompileLimits { wall_time_ms: 200, ..CompileLimits::default() };
    for script in ["exec sleep 60", "exec <&-; exec sleep 60", "exec >&-; exec sleep 60"] {
        let answer = refused(script, limits.clone()).await;
        assert!(answer.starts_with("compilation_limit: ") && answer.contains("200 ms"), "{script}: {answer}");
    }
}

#[tokio::test]
async fn a_child_that_is_ended_by_a_signal() {
    for (signal, part) in
        [("XCPU", "60 s of processor time"), ("ABRT", "bytes of memory"), ("KILL", "signal 9")]
    {
        let answer = refused(&format!("kill -{signal} $$"), CompileLimits::default()).await;
        assert!(answer.starts_with("compilation_limit: ") && answer.contains(part), "{answer}");
    }
}

#[tokio::test]
async fn a_child_that_cannot_be_started_is_no_fault_of_the_component() {
    let missing = Compiler::Child { program: PathBuf::from("/nowhere/ringfence"), arguments: Vec::new() };
    let host = runtime(RuntimeConfig { compiler: missing, slots: 1, ..RuntimeConfig::default() });
    let error = host.prepare(built("echo"), &tenant()).await.unwrap_err();
    assert!(matches!(error, PrepareError::Failed(_)), "{error}");
}

#[tokio::test]
async fn a_child_has_an_empty_environment_and_the_root_folder() {
    let script = "read -r none; printf RFERROR1; env; pwd; ls -l /proc/$$/fd/2";
    let answer = refused(script, CompileLimits::default()).await;
    // What a shell sets for itself.
    let own = ["PWD=/", "OLDPWD=/", "SHLVL=0", "SHLVL=1", "_=/usr/bin/env", "_=/bin/env"];
    let variables: Vec<_> =
        answer.lines().skip(1).filter(|line| line.contains('=') && !own.contains(line)).collect();
    assert!(variables.is_empty(), "{answer}");
    assert!(answer.lines().any(|line| line == "/") && answer.contains("/dev/null"), "{answer}");
}

fn started(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok()?.strip_suffix('\n').map(str::to_owned)
}

/// Also: a second one does not wait for ever, and whoever leaves makes room for the next.
#[tokio::test]
async fn who_leaves_takes_the_compiler_along() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let (host, _cache) =
        host(&format!("echo $$ >{}; exec sleep 60", file.display()), CompileLimits::default());
    let first = tokio::spawn({
        let host = host.clone();
        async move { host.prepare(built("echo"), &tenant()).await }
    });
    let begun = Instant::now();
    let pid = loop {
        if let Some(pid) = started(&file) {
            break pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no child");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    for wasm in [built("notes"), built("echo")] {
        let error = host.prepare(wasm, &tenant()).await.unwrap_err();
        assert!(matches!(error, PrepareError::Busy { retry_after_ms: 1000.. }), "{error}");
    }
    first.abort();
    let process = PathBuf::from(format!("/proc/{pid}"));
    while process.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the child lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::remove_file(&file).unwrap();
    let tenant = tenant();
    let next = tokio::time::timeout(Duration::from_secs(5), host.prepare(built("notes"), &tenant));
    assert!(next.await.is_err() && started(&file).is_some(), "the next one has begun");
}
