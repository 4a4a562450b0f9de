//! Compilation in processes of its own: what an upload makes of the compiler ends there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringfence_testkit::{
    Agent, Answer, Client, Engine, Host, HostOptions, Market, expect_problem, guest, on_both_engines,
};
use serde_json::json;

use crate::{host, host_with};

on_both_engines!(
    an_upload_is_compiled_by_a_child,
    a_bomb_is_defused_while_others_are_served,
    a_bomb_of_memory_is_defused,
    a_killed_child_is_no_end_of_the_host,
    a_child_has_nothing_of_its_host_and_goes_with_its_client,
    a_child_goes_with_its_host
);

/// Number in the format of WebAssembly.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(content.len()).as_slice(), content].concat()
}

/// A component whose one function is this many empty loops: small to send, valid, and far more than linear work.
fn bomb(loops: usize) -> Vec<u8> {
    let body = [&[0], b"\x03\x40\x0b".repeat(loops).as_slice(), &[0x0b]].concat();
    let code = [&[1], leb(body.len()).as_slice(), &body].concat();
    let sections = [section(1, b"\x01\x60\0\0"), section(3, b"\x01\0"), section(10, &code)].concat();
    let module = [b"\0asm\x01\0\0\0", sections.as_slice()].concat();
    [b"\0asm\x0d\0\x01\0", section(1, &module).as_slice()].concat()
}

fn options(args: &[&str]) -> HostOptions {
    HostOptions { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..HostOptions::default() }
}

/// Uploads in the background.
fn upload(client: &Client, agent: &Agent, wasm: Vec<u8>) -> tokio::task::JoinHandle<Answer> {
    let (client, key) = (client.clone(), agent.key.clone());
    tokio::spawn(async move { client.upload(&key, wasm).await })
}

/// The compilers that are children of this process.
fn compilers(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let of_task = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(of_task.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    // Only once it has become the program, and not when it has ended and was not waited for yet.
    children.retain(|child| {
        std::fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|line| line.windows(17).any(|part| part == b"compile-component"))
    });
    children
}

async fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn compiler(host: &Host) -> u32 {
    until("a compiler", || compilers(host.pid()).first().copied()).await
}

/// A compiler that is past its preparations: its limits hold.
async fn limited_compiler(host: &Host) -> (u32, String) {
    let pid = compiler(host).await;
    let limits = until("limits", || {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        limits.lines().any(|line| words(line).starts_with("Max open files 3 3")).then_some(limits)
    });
    (pid, limits.await)
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn nothing_is_stored(client: &Client, agent: &Agent) {
    assert_eq!(client.get("/components", &agent.key).await.expect(200)["total"], 0);
}

async fn an_upload_is_compiled_by_a_child(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let sent = upload(&client, &ada, guest("orders-report"));
    compiler(&host).await;
    let stored = sent.await.unwrap().expect(201);
    let bot = Market::deploy(&client, &ada, "echo", json!({})).await;

    // Without what was kept it is compiled again, in the same way.
    host.kill();
    let kept = std::fs::read_dir(host.folder().join("compiled")).unwrap().flatten().map(|entry| entry.path());
    let kept: Vec<PathBuf> = kept.filter(|path| path.extension().is_some_and(|end| end == "cwasm")).collect();
    assert_eq!(kept.len(), 2);
    kept.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    host.restart().await;
    let client = host.client();
    let called = client.post(&format!("/bots/{bot}/invoke"), &ada.key, &json!({ "input": { "a": 1 } })).await;
    assert_eq!(called.expect(200)["outcome"], "completed");
    let again = client.upload(&ada.key, guest("orders-report")).await;
    assert_eq!(again.expect(200)["digest"], stored["digest"]);
}

async fn a_bomb_is_defused_while_others_are_served(engine: Engine) {
    let host = host_with(engine, options(&["--compile-cpu-seconds", "2"])).await;
    let client = host.client();
    let (ada, eve) = (Market::register(&client, "Ada").await, Market::register(&client, "Eve").await);
    let bot = Market::deploy(&client, &ada, "echo", json!({})).await;
    let sent = upload(&client, &eve, bomb(500_000));
    compiler(&host).await;
    let mut answered = 0;
    while !compilers(host.pid()).is_empty() {
        let called = client.post(&format!("/bots/{bot}/invoke"), &ada.key, &json!({ "input": 1 })).await;
        assert_eq!(called.expect(200)["outcome"], "completed");
        answered += 1;
    }
    assert!(answered > 3, "{answered} calls were answered while it was compiled");
    let refused = sent.await.unwrap();
    expect_problem(&refused, 422, "compilation_limit");
    assert!(refused.text.contains("2 s of processor time"), "{}", refused.text);
    nothing_is_stored(&client, &eve).await;

    // Whoever sends the same again is told the same, and no compiler works for it.
    let compilers_before = host.log().matches("was not compiled").count();
    for client in [&ada, &eve] {
        let again = host.client().upload(&client.key, bomb(500_000)).await;
        expect_problem(&again, 422, "compilation_limit");
    }
    assert_eq!(host.log().matches("was not compiled").count(), compilers_before);
}

async fn a_bomb_of_memory_is_defused(engine: Engine) {
    let host = host_with(engine, options(&["--compile-memory-bytes", "268435456"])).await;
    let client = host.client();
    let eve = Market::register(&client, "Eve").await;
    let refused = client.upload(&eve.key, bomb(500_000)).await;
    expect_problem(&refused, 422, "compilation_limit");
    assert!(refused.text.contains("268435456 bytes of memory"), "{}", refused.text);
    nothing_is_stored(&client, &eve).await;
    let _ = client.upload(&eve.key, guest("echo")).await.expect(201);
}

async fn a_killed_child_is_no_end_of_the_host(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let eve = Market::register(&client, "Eve").await;
    let sent = upload(&client, &eve, bomb(500_000));
    let (pid, _) = limited_compiler(&host).await;
    signal(pid, rustix::process::Signal::KILL);
    let refused = sent.await.unwrap();
    expect_problem(&refused, 422, "compilation_limit");
    assert!(refused.text.contains("signal 9"), "{}", refused.text);
    nothing_is_stored(&client, &eve).await;
    let _ = client.upload(&eve.key, guest("echo")).await.expect(201);
}

async fn a_child_has_nothing_of_its_host_and_goes_with_its_client(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let eve = Market::register(&client, "Eve").await;
    let sent = upload(&client, &eve, bomb(500_000));
    let (pid, limits) = limited_compiler(&host).await;
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(std::fs::read(process.join("environ")).unwrap(), b"");
    assert_eq!(std::fs::read_link(process.join("cwd")).unwrap(), PathBuf::from("/"));
    let status = until("its filter", || {
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        status.lines().any(|line| words(line) == "Seccomp: 2").then_some(status)
    });
    assert!(status.await.lines().any(|line| words(line) == "NoNewPrivs: 1"));
    let open = std::fs::read_dir(process.join("fd")).unwrap().flatten();
    let open: BTreeSet<String> = open
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap().display().to_string();
            format!("{} {}", entry.file_name().display(), target.split(':').next().unwrap())
        })
        .collect();
    assert_eq!(open, ["0 pipe", "1 pipe", "2 /dev/null"].map(str::to_owned).into());
    for limit in [
        "Max address space 4294967296 4294967296 bytes",
        "Max cpu time 60 61 seconds",
        "Max core file size 0 0 bytes",
        "Max file size 0 0 bytes",
    ] {
        assert!(limits.lines().any(|line| words(line) == limit), "{limit}:\n{limits}");
    }

    // Another that waits meanwhile has its turn then.
    let next = upload(&client, &eve, guest("echo"));
    sent.abort();
    until("the child's end", || (!compilers(host.pid()).contains(&pid)).then_some(())).await;
    let _ = next.await.unwrap().expect(201);
    assert_eq!(client.get("/components", &eve.key).await.expect(200)["total"], 1);
}

async fn a_child_goes_with_its_host(engine: Engine) {
    let mut host = host(engine).await;
    let client = host.client();
    let eve = Market::register(&client, "Eve").await;
    let sent = upload(&client, &eve, bomb(500_000));
    let (pid, _) = limited_compiler(&host).await;
    host.kill();
    let alive = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    until("the child's end", || (!alive()).then_some(())).await;
    assert!(sent.await.is_err(), "nobody answers");
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
