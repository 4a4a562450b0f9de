//! The main job, from nothing to paid: run by `./run`.
//!
//! Starts a host on an embedded database and then is, in turn, its operator, a buyer and two workers, over HTTP like
//! anyone else. The buyer wants a messy CSV of orders cleaned and summed. One worker's bot is wrong and is refused,
//! the other's is right and is paid.

#![allow(clippy::print_stdout, reason = "it says what happens")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

type Failure = Box<dyn Error>;

const PRICE: &str = "25.00";

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe main job did not come to its end: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [binary, data_dir] = args.as_slice() else {
        return Err("usage: main_job <ringfence binary> <data folder>".into());
    };
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let guests = root.join("target/guests");
    let data = root.join("guest-examples/data");

    let host = Host::start(Path::new(binary), Path::new(data_dir)).await?;
    let api = Api { client: Client::new(), base: host.base.clone() };
    let operator = std::fs::read_to_string(host.key_file())
        .map_err(|_| format!("{} is missing; remove {data_dir} to begin anew", host.key_file().display()))?;
    let operator = operator.trim();

    say("1", "Who takes part");
    let buyer = api.register("Buyer").await?;
    let hasty = api.register("Hasty worker").await?;
    let careful = api.register("Careful worker").await?;
    let reference = format!("bank-transfer-{}", buyer.id);
    let deposit = json!({ "agent_id": buyer.id, "amount": "100.00", "external_reference": reference });
    api.send(Method::POST, "/admin/ledger/deposits", operator, Some(deposit)).await?;
    println!(
        "    a buyer and two workers have registered; the operator has booked a deposit of 100 USDC for the buyer"
    );
    let fees_before = api.balance(operator).await?;
    api.print_money(
        "before",
        &[("buyer", &buyer.key), ("hasty worker", &hasty.key), ("careful worker", &careful.key)],
    )
    .await?;

    say("2", "What they upload: WebAssembly components, checked and compiled before they are stored");
    let oracle = api.deploy(&buyer, "orders-oracle", &guests).await?;
    let naive = api.deploy(&hasty, "orders-report-naive", &guests).await?;
    let right = api.deploy(&careful, "orders-report", &guests).await?;

    let csv = std::fs::read_to_string(data.join("orders.csv"))?;
    let rubric = std::fs::read_to_string(data.join("rubric.md"))?;
    say(
        "3",
        &format!(
            "The job: {} lines of messy orders, to be cleaned and summed per customer and month",
            csv.lines().count()
        ),
    );
    for line in csv.lines().skip(1).filter(|line| line.contains('€') || line.contains('"')).take(3) {
        println!("      {line}");
    }
    let offer = json!({
        "title": "Clean these orders and sum them per customer and month",
        "description": "The orders were exported from three shops. The rubric says how to read them.",
        "rubric": rubric,
        "artifact_type": "json",
        "price": PRICE,
        "oracle": oracle,
        "input": { "csv": csv },
    });
    let job = api.send(Method::POST, "/jobs", &buyer.key, Some(offer.clone())).await?;
    let task = text(&job, "task_id")?.to_owned();
    let funded = api.send(Method::POST, &format!("/jobs/{task}/fund"), &buyer.key, None).await?;
    println!(
        "    {task} is {}: {} USDC are in escrow, {} of them for the worker whose result passes",
        text(&funded, "status")?,
        text(&funded, "deposit_amount")?,
        text(&funded, "payout")?
    );
    println!("    its oracle is pinned to {}", short(funded.pointer("/oracles/0/component")));

    say("4", "The hasty worker's bot works in the sandbox, and the oracle judges its result in the sandbox");
    let refused = api.attempt(&hasty, &naive, &task).await?;
    if text(&refused, "status")? != "failed" {
        return Err("the wrong bot was not refused".into());
    }

    say("5", "The careful worker's bot does the same job");
    let passed = api.attempt(&careful, &right, &task).await?;
    if text(&passed, "status")? != "passed" {
        return Err("the right bot was refused".into());
    }

    say("6", "The payout: moved in the same transaction as the verdict");
    let job = api.send(Method::GET, &format!("/jobs/{task}"), &buyer.key, None).await?;
    println!("    {task} is {}, payout {}", text(&job, "status")?, text(&job, "payout_status")?);
    api.print_money(
        "after",
        &[("buyer", &buyer.key), ("hasty worker", &hasty.key), ("careful worker", &careful.key)],
    )
    .await?;
    let fees_after = api.balance(operator).await?;
    println!("    platform fees: {fees_before} → {fees_after} USDC");
    for (who, key, expected) in [
        ("buyer", &buyer.key, "75.000000"),
        ("hasty worker", &hasty.key, "0.000000"),
        ("careful worker", &careful.key, "20.000000"),
    ] {
        let has = api.balance(key).await?;
        if has != expected {
            return Err(format!("the {who} has {has} USDC and should have {expected}").into());
        }
    }

    say("7", "What can be checked later: the judgement's record, a receipt once it is signed");
    print_evaluation(&passed)?;

    say(
        "8",
        "The same job once more: the careful worker's bot is granted the market, and nobody calls anything",
    );
    let market = json!({ "agent_id": careful.id, "artifact_types": ["json"], "max_attempts_per_day": 10,
        "max_fuel_per_day": 10_000_000_000_u64 });
    let grants = json!({ "grants": { "market": market } });
    api.send(Method::PATCH, &format!("/bots/{right}"), &careful.key, Some(grants)).await?;
    let again = api.send(Method::POST, "/jobs", &buyer.key, Some(offer)).await?;
    let task = text(&again, "task_id")?;
    api.send(Method::POST, &format!("/jobs/{task}/fund"), &buyer.key, None).await?;
    let begun = Instant::now();
    while text(&api.send(Method::GET, &format!("/jobs/{task}"), &buyer.key, None).await?, "status")?
        != "resolved"
    {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err("the bot has not done the job within a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("    {task} is resolved {} ms after it was funded", begun.elapsed().as_millis());
    let has = api.balance(&careful.key).await?;
    println!("    careful worker: 20.000000 → {has} USDC");
    if has != "40.000000" {
        return Err("the bot was not paid".into());
    }
    // Or it would do the job of the next run on this data.
    api.send(Method::PATCH, &format!("/bots/{right}"), &careful.key, Some(json!({ "grants": {} }))).await?;

    host.stop().await?;
    println!(
        "\nDone. The host is stopped; all of this is kept in {data_dir}.\n\n\
         To keep a host serving on the same data:\n    {binary} serve --data-dir {data_dir}\n\
         API documents:   http://127.0.0.1:8080/docs   (OpenAPI: http://127.0.0.1:8080/openapi.json)\n\
         With curl, as the careful worker:\n    \
         curl -H 'Authorization: Bearer {}' http://127.0.0.1:8080/api/v1/submissions/{}\n\
         As the operator:\n    \
         curl -H \"Authorization: Bearer $(cat {}/operator.key)\" http://127.0.0.1:8080/api/v1/ledger/balance",
        careful.key,
        text(&passed, "submission_id")?,
        data_dir
    );
    Ok(())
}

/// A host in a process of its own. It is stopped when this goes away.
struct Host {
    process: Child,
    base: String,
    data_dir: PathBuf,
}

impl Host {
    async fn start(binary: &Path, data_dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(data_dir)?;
        let log = std::fs::File::create(data_dir.join("host.log"))?;
        // A port that is free now. Whoever takes it first makes the host fail, which is noticed below.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = Command::new(binary)
            .arg("serve")
            // It asks for verdicts more often than people do.
            .args(["--reads-per-minute", "6000", "--writes-per-minute", "600"])
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--listen")
            .arg(address.to_string())
            .arg("--operator-key-file")
            .arg(data_dir.join("operator.key"))
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut host = Self { process, base: format!("http://{address}"), data_dir: data_dir.to_owned() };
        let begun = Instant::now();
        loop {
            if let Some(status) = host.process.try_wait()? {
                let log = std::fs::read_to_string(data_dir.join("host.log")).unwrap_or_default();
                return Err(format!("the host ended at once ({status}):\n{log}").into());
            }
            if reqwest::get(format!("{}/health", host.base))
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                break;
            }
            if begun.elapsed() > Duration::from_secs(30) {
                return Err(
                    format!("the host does not answer; see {}", data_dir.join("host.log").display()).into()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("A host serves {} on an embedded database in {}.", host.base, data_dir.display());
        Ok(host)
    }

    fn key_file(&self) -> PathBuf {
        self.data_dir.join("operator.key")
    }

    /// Asks the host to stop, as a supervisor would, and waits for it.
    async fn stop(mut self) -> Result<(), Failure> {
        let asked = Command::new("kill").arg(self.process.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            self.process.kill()?;
        }
        for _ in 0..600 {
            if self.process.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the host does not stop".into())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already unless something went wrong.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Agent {
    id: String,
    key: String,
}

struct Api {
    client: Client,
    base: String,
}

impl Api {
    async fn send(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut request = self.client.request(method.clone(), format!("{}/api/v1{path}", self.base));
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Self::answer(&method, path, request).await
    }

    async fn answer(method: &Method, path: &str, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("{method} {path} → {status} {}: {}", text(&body, "code")?, text(&body, "detail")?)
                .into())
        }
    }

    async fn register(&self, name: &str) -> Result<Agent, Failure> {
        let agent = self.send(Method::POST, "/agents", "", Some(json!({ "name": name }))).await?;
        Ok(Agent { id: text(&agent, "agent_id")?.to_owned(), key: text(&agent, "api_key")?.to_owned() })
    }

    async fn balance(&self, key: &str) -> Result<String, Failure> {
        let balance = self.send(Method::GET, "/ledger/balance", key, None).await?;
        Ok(text(&balance, "available")?.to_owned())
    }

    async fn print_money(&self, when: &str, who: &[(&str, &String)]) -> Result<(), Failure> {
        println!("    money {when}:");
        for (name, key) in who {
            println!("      {name:<16} {:>12} USDC", self.balance(key).await?);
        }
        Ok(())
    }

    /// Uploads a component and deploys it under its own name.
    async fn deploy(&self, owner: &Agent, name: &str, guests: &Path) -> Result<String, Failure> {
        let file = guests.join(format!("{name}.wasm"));
        let wasm = std::fs::read(&file)
            .map_err(|_| format!("{} is missing; run scripts/build-guests.sh", file.display()))?;
        let begun = Instant::now();
        let upload = self
            .client
            .post(format!("{}/api/v1/components", self.base))
            .bearer_auth(&owner.key)
            .header("content-type", "application/wasm")
            .body(wasm);
        let component = Self::answer(&Method::POST, "/components", upload).await?;
        let deployment = json!({ "name": name, "component": component.get("digest") });
        let bot = self.send(Method::POST, "/bots", &owner.key, Some(deployment)).await?;
        println!(
            "    {name:<20} {:<6} {:>4} KiB  {}  ({} ms)",
            text(&component, "kind")?,
            component.get("size_bytes").and_then(Value::as_u64).unwrap_or(0) / 1024,
            short(component.get("digest")),
            begun.elapsed().as_millis()
        );
        Ok(text(&bot, "bot_id")?.to_owned())
    }

    /// A worker's whole way: claim, read the input, let the bot work, submit, wait for the verdict.
    async fn attempt(&self, worker: &Agent, bot: &str, task: &str) -> Result<Value, Failure> {
        self.send(Method::POST, &format!("/jobs/{task}/claim"), &worker.key, None).await?;
        let input = self.send(Method::GET, &format!("/jobs/{task}/input"), &worker.key, None).await?;
        let call = json!({ "input": input });
        let call = self.send(Method::POST, &format!("/bots/{bot}/invoke"), &worker.key, Some(call)).await?;
        let outcome = text(&call, "outcome")?;
        print!("    the bot {outcome}");
        print_usage(call.get("usage"));
        let output = call.get("output").filter(|output| !output.is_null());
        let output = output.ok_or_else(|| format!("the bot ended with {outcome}"))?;
        if let Some(first) = output.pointer("/rows/0") {
            println!(
                "      first of {} rows: {first}",
                output.get("rows").and_then(Value::as_array).map_or(0, Vec::len)
            );
        }
        let submission = self
            .send(
                Method::POST,
                &format!("/jobs/{task}/submit"),
                &worker.key,
                Some(json!({ "content": output })),
            )
            .await?;
        let path = format!("/submissions/{}", text(&submission, "submission_id")?);
        let begun = Instant::now();
        loop {
            let submission = self.send(Method::GET, &path, &worker.key, None).await?;
            if text(&submission, "status")? != "judging" {
                print_verdict(&submission)?;
                return Ok(submission);
            }
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("no verdict within a minute".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn say(number: &str, what: &str) {
    println!("\n{number}. {what}");
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, Failure> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| format!("no `{field}` in {value}").into())
}

/// A digest, as far as people compare it.
fn short(digest: Option<&Value>) -> String {
    digest.and_then(Value::as_str).unwrap_or("-").chars().take(19).chain("…".chars()).collect()
}

fn print_usage(usage: Option<&Value>) {
    let number = |field: &str| usage.and_then(|usage| usage.get(field)).and_then(Value::as_u64).unwrap_or(0);
    println!(
        ": fuel {}, memory {} KiB, {}.{:01} ms",
        number("fuel"),
        number("peak_memory_bytes") / 1024,
        number("wall_us") / 1000,
        number("wall_us") % 1000 / 100
    );
}

fn print_verdict(submission: &Value) -> Result<(), Failure> {
    let status = text(submission, "status")?.to_uppercase();
    let score = submission
        .get("score")
        .and_then(Value::as_u64)
        .map_or("no score".to_owned(), |score| format!("{score}/100"));
    println!(
        "    verdict: {status}, {score}: {}",
        submission.get("reason").and_then(Value::as_str).unwrap_or("-")
    );
    for step in submission.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let mark = if step.get("passed").and_then(Value::as_bool) == Some(true) { "✓" } else { "✗" };
        println!("      {mark} {}: {}", text(step, "name")?, text(step, "detail")?);
    }
    Ok(())
}

fn print_evaluation(submission: &Value) -> Result<(), Failure> {
    let evaluation = submission.get("evaluation").ok_or("the verdict has no record")?;
    println!("    oracle     {}", text(evaluation, "component")?);
    println!("    given      {}", text(evaluation, "input_digest")?);
    println!("    said       {}", text(evaluation, "output_digest")?);
    println!("    engine     {}", text(evaluation, "engine")?);
    print!("    used      ");
    print_usage(evaluation.get("usage"));
    Ok(())
}
