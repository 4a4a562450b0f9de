//! What deployed bots cost a host that nobody calls: its resident memory on an empty database, and on one with so many bots.
//!
//! ```text
//! cargo build --release && cargo run --release --example idle_bots -- target/release/ringfence 10000 100
//! ```
//!
//! makes a hundred components, deploys ten thousand bots on them over HTTP, and starts the host again: their code is
//! on disk and none of it is loaded. Linux only: it reads `/proc`.

#![allow(clippy::print_stdout, reason = "it says what it finds")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// Requests at a time.
const CALLERS: usize = 8;
/// How long a host is left alone before it is looked at.
const REST: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [binary, bots, components] = arguments.as_slice() else {
        return Err("usage: idle_bots <ringfence binary> <bots> <components>".into());
    };
    let (bots, components): (usize, usize) = (bots.parse()?, components.parse()?);
    let folder = tempfile::tempdir()?;

    let host = Host::start(Path::new(binary), folder.path()).await?;
    tokio::time::sleep(REST).await;
    let empty = host.resident_kib()?;
    println!("empty:                 {empty} KiB resident");

    let client = Client::new();
    let agent = post(&client, &host, "agents", "", json!({ "name": "Owner" })).await?;
    let key = text(&agent, "api_key")?;
    let mut digests = Vec::new();
    for number in 0..components {
        let upload = client.post(host.url("components")).bearer_auth(&key).body(component(number)?);
        let answer: Value = upload.header("content-type", "application/wasm").send().await?.json().await?;
        digests.push(text(&answer, "digest")?);
    }
    deploy(&client, &host, &key, Arc::new(digests), bots).await?;
    println!("after the deployments: {} KiB resident", host.resident_kib()?);
    host.stop()?;

    let host = Host::start(Path::new(binary), folder.path()).await?;
    tokio::time::sleep(REST).await;
    let full = host.resident_kib()?;
    println!("started again:         {full} KiB resident with {bots} bots of {components} components");
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = (full as f64 - empty as f64) / bots as f64;
    println!("for each bot:          {each:.3} KiB");
    let listed: Value = client.get(host.url("bots?limit=1")).bearer_auth(&key).send().await?.json().await?;
    println!("it has them all:       total {}", listed.get("total").unwrap_or(&Value::Null));
    host.stop()
}

async fn deploy(
    client: &Client,
    host: &Host,
    key: &str,
    digests: Arc<Vec<String>>,
    bots: usize,
) -> Result<(), Failure> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (client, url, key) = (client.clone(), host.url("bots"), key.to_owned());
        let (next, digests) = (Arc::clone(&next), Arc::clone(&digests));
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= bots {
                    return Ok::<(), Failure>(());
                }
                let digest = digests.get(number % digests.len()).ok_or("no component")?;
                let bot = json!({ "name": format!("bot-{number}"), "component": digest });
                // On a machine with other work the database may be busy for too long; then nothing was changed.
                let answer = loop {
                    let answer = client.post(&url).bearer_auth(&key).json(&bot).send().await?;
                    if answer.status() != 503 {
                        break answer;
                    }
                };
                if answer.status() != 201 {
                    return Err(answer.text().await?.into());
                }
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

/// A bot that answers `{}`, different from all others.
fn component(number: usize) -> Result<Vec<u8>, Failure> {
    Ok(wat::parse_str(format!(
        r#"(component
            (import "ringfence:guest/types@0.1.0" (instance $types
                (type $task (record (field "id" string) (field "input" string)))
                (export "task" (type (eq $task)))
                (type $failure (record (field "code" string) (field "message" string)))
                (export "failure" (type (eq $failure)))))
            (alias export $types "task" (type $task))
            (alias export $types "failure" (type $failure))
            (core module $main
                (global i32 (i32.const {number}))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (memory $memory (export "memory") 1)
                (data (memory $memory) (i32.const 16) "\00\00\00\00\20\00\00\00\02\00\00\00")
                (data (memory $memory) (i32.const 32) "{{}}")
                (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 16)))
            (core instance $main (instantiate $main))
            (func (export "handle") (param "task" $task) (result (result string (error $failure)))
                (canon lift (core func $main "handle") (memory (core memory $main "memory"))
                    (realloc (core func $main "realloc")))))"#
    ))?)
}

async fn post(client: &Client, host: &Host, path: &str, key: &str, body: Value) -> Result<Value, Failure> {
    let mut request = client.post(host.url(path)).json(&body);
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    Ok(request.send().await?.error_for_status()?.json().await?)
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let found = answer.get(name).and_then(Value::as_str);
    Ok(found.ok_or_else(|| format!("no {name} in {answer}"))?.to_owned())
}

struct Host {
    process: Child,
    base: String,
}

impl Host {
    async fn start(binary: &Path, folder: &Path) -> Result<Self, Failure> {
        let address: PathBuf = folder.join("address");
        let _ = std::fs::remove_file(&address);
        let process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--writes-per-minute", "1000000"])
            .args(["--reads-per-minute", "1000000", "--log", "warn", "--data-dir"])
            .arg(folder)
            .arg("--address-file")
            .arg(&address)
            .arg("--operator-key-file")
            .arg(folder.join("operator.key"))
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut host = Self { process, base: String::new() };
        let begun = Instant::now();
        while host.base.is_empty() {
            if begun.elapsed() > Duration::from_secs(60) || host.process.try_wait()?.is_some() {
                return Err("the host does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let address = std::fs::read_to_string(&address).unwrap_or_default();
            if address.ends_with('\n') {
                host.base = format!("http://{}/api/v1", address.trim());
            }
        }
        Ok(host)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn resident_kib(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.trim().parse()?)
    }

    /// As a supervisor would.
    fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").arg(self.process.id().to_string()).status()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already unless something went wrong.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
