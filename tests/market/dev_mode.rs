//! `DEV_MODE`: it says so everywhere, and is refused where it would do harm.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use ringfence_testkit::{Engine, HostOptions, Market, on_both_engines};
use serde_json::json;

use crate::{host, host_with};

on_both_engines!(g23_every_answer_says_so, g23_without_it_no_answer_says_so);

async fn g23_every_answer_says_so(engine: Engine) {
    let env = vec![("DEV_MODE".to_owned(), "true".to_owned())];
    let host = host_with(engine, HostOptions { env, ..HostOptions::default() }).await;
    let log = host.log();
    let banner = log.find("DEV_MODE ENABLED").unwrap_or_else(|| panic!("{log}"));
    assert!(log.contains("⚠️"), "{log}");
    assert!(log.find("listening").is_none_or(|listening| banner < listening), "it stands first: {log}");
    let client = host.client();
    let health = client.get("//health", "").await;
    assert_eq!(health.body["dev_mode"], true, "{}", health.text);
    let market = Market::new(&host, "hostile/oracle-accept").await;
    let echo = Market::deploy(&client, &market.buyer, "echo", json!({})).await;
    let key = &market.buyer.key;
    for (status, answer) in [
        (200, health),
        (200, client.get("/jobs", key).await),
        (201, client.post("/jobs", key, &market.job(json!({}))).await),
        (401, client.get("/jobs", "").await),
        (404, client.get("/nothing/here", key).await),
        (405, client.delete("/jobs", key).await),
        (422, client.post("/jobs", key, &json!({})).await),
        (200, client.get("//openapi.json", "").await),
        (413, client.post("/jobs", key, &json!({ "title": "x".repeat(5 << 20) })).await),
        (414, client.get(&format!("/{}", "x".repeat(9 << 10)), key).await),
        // A stream of events.
        (200, client.get(&format!("/bots/{echo}/logs/follow?max_seconds=1"), key).await),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text);
        let said = answer.headers.get("x-dev-mode").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said.as_deref(), Some("true"), "{status}: {}", answer.text);
    }
    let upload = client.request(Method::POST, "/components", key).header("content-type", "application/wasm");
    let refused = ringfence_testkit::send(upload.body("nothing")).await;
    assert_eq!((refused.status, refused.headers.contains_key("x-dev-mode")), (422, true));
}

async fn g23_without_it_no_answer_says_so(engine: Engine) {
    let host = host(engine).await;
    let health = host.client().get("//health", "").await;
    assert_eq!(health.body["dev_mode"], false);
    for answer in [health, host.client().get("/jobs", "").await, host.client().get("/nothing", "").await] {
        assert!(!answer.headers.contains_key("x-dev-mode"), "{}", answer.text);
    }
    assert!(!host.log().contains("DEV_MODE"), "{}", host.log());
}

/// Starts a host that must not start; what it says.
fn refused(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    command.env_clear().args(["serve", "--dev-mode", "--data-dir"]);
    let mut host = command
        .arg(folder.path())
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..600 {
        if let Some(status) = host.try_wait().unwrap() {
            assert!(!status.success());
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has begun");
            return std::io::read_to_string(host.stderr.take().unwrap()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = host.kill();
    let _ = host.wait();
    panic!("it serves");
}

#[test]
fn g23_production_refuses_it_and_says_what_to_do() {
    let said = refused(&["--environment", "production", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("RINGFENCE_ENVIRONMENT=production"), "{said}");
    assert!(said.contains("DEV_MODE shows internal errors to clients; switch it off"), "{said}");
}

#[test]
fn g23_it_is_for_this_machine_alone() {
    for open in ["0.0.0.0:0", "[::]:0"] {
        let said = refused(&["--listen", open]);
        assert!(said.contains("DEV_MODE") && said.contains("RINGFENCE_ALLOW_OPEN_BIND=true"), "{said}");
    }
}
