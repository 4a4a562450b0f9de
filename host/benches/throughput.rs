//! Calls of a bot over HTTP, with key, policy, limits, metering and record, beside `wasmtime serve` with an equal component
//! and a tuned pool, a fresh instance for each request on both sides. In turns in one run, with 16 and with 128
//! connections. Each server is a process of its own on loopback; the clients of both are the same.
//!
//! Needs `scripts/build-guests.sh` and wasmtime's command line, in the path or named by `WASMTIME`:
//! `cargo install wasmtime-cli --version ^48 --no-default-features --features
//! run,serve,component-model,component-model-async,cranelift,pooling-allocator,parallel-compilation,cache`.
//! Run with `cargo bench -p ringfence --bench throughput`; ends by itself after about two minutes.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a load script says what it found"
)]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfence_testkit::{Engine, Host, HostOptions, Market};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const JSON: &str = r#"{"text":"hello","numbers":[1,2,3]}"#;
const CONNECTIONS: [usize; 2] = [16, 128];
const ORGS: usize = 8;
const ROUND: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("an executor");
    executor.block_on(compare(rounds));
}

/// Somewhere to send requests to, and what to send: each connection sends one of them.
struct Target {
    address: SocketAddr,
    requests: Vec<Arc<[u8]>>,
}

async fn compare(rounds: usize) {
    let yardstick = Wasmtime::start().await;
    let (host, ours) = ringfence().await;
    println!("requests/s, rounds of {} s in turns; ratio: ringfence / wasmtime serve", ROUND.as_secs());
    for connections in CONNECTIONS {
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let theirs = load(&yardstick.target, connections).await;
            let our = load(&ours, connections).await;
            println!("  {connections:>3} connections: wasmtime serve {theirs}, ringfence {our}");
            ratios.push(our.per_second / theirs.per_second);
        }
        ratios.sort_by(f64::total_cmp);
        let at = |quarter: usize| ratios.get((rounds - 1) * quarter / 4).copied().unwrap_or_default();
        println!("{connections:>3} connections: {:.2} (quartiles {:.2} to {:.2})", at(2), at(1), at(3));
    }
    drop(host);
}

struct Wasmtime {
    process: Child,
    target: Target,
}

impl Wasmtime {
    async fn start() -> Self {
        let program = std::env::var("WASMTIME").unwrap_or_else(|_| "wasmtime".to_owned());
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = port.expect("a free port");
        let component = ringfence_testkit::root().join("target/guests/http-echo.wasm");
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{JSON}",
            JSON.len()
        );
        let target = Target { address, requests: vec![head.into_bytes().into()] };
        let process = Command::new(&program)
            .args(["serve", "-S", "cli", "--addr", &address.to_string()])
            .args(["-O", "pooling-allocator,pooling-memory-keep-resident=2097152"])
            .args(["-O", "pooling-table-keep-resident=65536,pooling-async-stack-keep-resident=65536"])
            .args(["-O", "pooling-decommit-batch-size=16"])
            .arg(component)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("wasmtime's command line: see the head of this file");
        let server = Self { process, target };
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "wasmtime serve does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }
}

impl Drop for Wasmtime {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A host as its users have it, with as many slots as there are connections. Each of some orgs calls a bot of its own: a
/// principal can have a million requests a minute at most.
async fn ringfence() -> (Host, Target) {
    let options =
        HostOptions { args: Vec::new(), env: vec![("RINGFENCE_SLOTS".to_owned(), "256".to_owned())] };
    let engine = if std::env::var_os("POSTGRES").is_some() { Engine::Postgres } else { Engine::Sqlite };
    let host = Host::start(env!("CARGO_BIN_EXE_ringfence"), engine, options).await;
    let client = host.client();
    let address: SocketAddr = host.address().parse().expect("an address");
    let body = format!(r#"{{"input":{JSON}}}"#);
    let mut requests = Vec::new();
    for _ in 0..ORGS {
        let agent = Market::register(&client, "Author").await;
        let bot = Market::deploy(&client, &agent, "echo", json!({})).await;
        let request = format!(
            "POST /api/v1/bots/{bot}/invoke HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            agent.key,
            body.len()
        );
        requests.push(request.into_bytes().into());
    }
    (host, Target { address, requests })
}

/// What a round found.
struct Found {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s (p50 {:.1?}, p99 {:.1?})", self.per_second, self.p50, self.p99)
    }
}

/// As many clients as there are connections, each with one request at a time.
async fn load(target: &Target, connections: usize) -> Found {
    let begin = Instant::now() + WARM_UP;
    let end = begin + ROUND;
    let done = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..connections)
        .zip(target.requests.iter().cycle())
        .map(|(_, request)| {
            let (address, request, done) = (target.address, Arc::clone(request), Arc::clone(&done));
            tokio::spawn(async move { client(address, &request, (begin, end), &done).await })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.expect("a client ends well"));
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let per_second = done.load(Ordering::Relaxed) as f64 / ROUND.as_secs_f64();
    Found { per_second, p50: at(50), p99: at(99) }
}

async fn client(
    address: SocketAddr,
    request: &[u8],
    (begin, end): (Instant, Instant),
    done: &AtomicU64,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let (mut answer, mut times) = (Vec::with_capacity(4096), Vec::new());
    loop {
        let asked = Instant::now();
        if asked >= end {
            return times;
        }
        stream.write_all(request).await.expect("a request is taken");
        receive(&mut stream, &mut answer).await;
        if asked >= begin {
            done.fetch_add(1, Ordering::Relaxed);
            times.push(asked.elapsed());
        }
    }
}

/// Reads one answer, and makes sure that it is a good one with the JSON in it.
async fn receive(stream: &mut TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    loop {
        let read = stream.read_buf(answer).await.expect("an answer");
        assert!(read > 0, "the server hung up: {}", String::from_utf8_lossy(answer));
        if is_whole(answer) {
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
            assert!(contains(answer, JSON.as_bytes()), "{}", String::from_utf8_lossy(answer));
            return;
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (head, body) = answer.split_at(head + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    match length.and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => body.len() >= length,
        // Chunked: the last chunk is empty.
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}
