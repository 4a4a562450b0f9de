use std::time::{Duration, Instant};

use reqwest::Method;
use ringfence_testkit::{
    Answer, Client, Engine, Host, HostOptions, Market, expect_problem, guest, on_both_engines, send,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::refuses_without_a_key;
use crate::{host, host_with};

on_both_engines!(
    upload_get_list,
    what_is_no_component_is_refused,
    what_is_too_large_is_refused,
    a_check_tells_what_an_upload_would,
);

async fn upload_get_list(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let bob = Market::register(&client, "Bob").await;
    refuses_without_a_key(&client, Method::GET, "/components").await;

    let echo = client.upload(&ada.key, guest("echo")).await.expect(201);
    assert_eq!(echo["kind"], "bot");
    assert_eq!(echo["capabilities"], serde_json::json!([]));
    assert_eq!(echo["size_bytes"], guest("echo").len());
    assert!(!echo["imports"].as_array().unwrap().is_empty());
    let notes = client.upload(&ada.key, guest("notes")).await.expect(201);
    assert!(notes["capabilities"].as_array().unwrap().contains(&"kv".into()), "{notes}");
    let oracle = client.upload(&ada.key, guest("hostile/oracle-accept")).await.expect(201);
    assert_eq!(oracle["kind"], "oracle");

    let again = client.upload(&ada.key, guest("echo")).await;
    assert_eq!(again.expect(200), echo, "the same bytes are the same component");

    let path = format!("/components/{}", echo["digest"].as_str().unwrap());
    assert_eq!(client.get(&path, &ada.key).await.expect(200), echo);
    expect_problem(&client.get(&path, &bob.key).await, 404, "component_not_found");
    expect_problem(&client.get("/components/sha256:12", &ada.key).await, 404, "no_such_id");

    let list = client.get("/components?limit=2", &ada.key).await.expect(200);
    assert_eq!((list["total"].as_u64(), list["components"].as_array().unwrap().len()), (Some(3), 2));
    assert_eq!(list["components"][0]["digest"], oracle["digest"], "newest first");
    assert_eq!(client.get("/components", &bob.key).await.expect(200)["total"], 0);
    for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "offset=-1"] {
        let answer = client.get(&format!("/components?{query}"), &ada.key).await;
        assert_eq!(answer.status, 422, "{query}: {}", answer.text);
    }
    let theirs = client.upload(&bob.key, guest("echo")).await.expect(201);
    assert_eq!(theirs["digest"], echo["digest"], "another org has the same under the same name");
}

async fn check(client: &Client, key: &str, bot: &str, wasm: Vec<u8>) -> Answer {
    let path = format!("/components/check{bot}");
    let request = client.request(Method::POST, &path, key);
    send(request.header("content-type", "application/wasm").body(wasm)).await
}

async fn a_check_tells_what_an_upload_would(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let checked = check(&client, &ada.key, "", guest("notes")).await.expect(200);
    assert_eq!((&checked["kind"], &checked["uploaded"]), (&json!("bot"), &json!(false)));
    assert_eq!((&checked["capabilities"], &checked["grants"]), (&json!(["config", "kv"]), &json!({})));
    assert_eq!(checked["missing"].as_array().unwrap().len(), 1, "{checked}");
    assert_eq!(checked["missing"][0]["capability"], "kv");
    assert_eq!(client.get("/components", &ada.key).await.expect(200)["total"], 0, "nothing is stored");
    let kept = std::fs::read_dir(host.folder().join("compiled")).unwrap();
    let compiled = kept.filter(|file| file.as_ref().unwrap().path().extension() == Some("cwasm".as_ref()));
    assert_eq!(compiled.count(), 0, "nothing is kept");

    // What the upload then says is the same, and what the check proposes is enough.
    let uploaded = client.upload(&ada.key, guest("notes")).await.expect(201);
    for field in ["digest", "kind", "size_bytes", "imports", "capabilities"] {
        assert_eq!(checked[field], uploaded[field], "{field}");
    }
    let grants = &checked["missing"][0]["example"];
    let bot = json!({ "name": "notes", "component": uploaded["digest"] });
    let without = client.post("/bots", &ada.key, &bot).await;
    expect_problem(&without, 422, "grant_missing");
    let detail = without.text_at("/detail");
    assert!(detail.contains(&format!("`kv`, for example by \"grants\": {grants}")), "{detail}");
    let mut with = bot;
    with["grants"] = grants.clone();
    let notes =
        client.post("/bots", &ada.key, &with).await.expect(201)["bot_id"].as_str().unwrap().to_owned();
    let again = check(&client, &ada.key, "", guest("notes")).await.expect(200);
    assert_eq!((&again["uploaded"], &again["missing"]), (&json!(true), &checked["missing"]));

    // Compared with what is deployed.
    let named = check(&client, &ada.key, &format!("?bot_id={notes}"), guest("notes")).await.expect(200);
    assert_eq!((&named["grants"], &named["missing"]), (grants, &json!([])));
    let echo = Market::deploy(&client, &ada, "echo", json!({})).await;
    let echo = format!("?bot_id={echo}");
    let named = check(&client, &ada.key, &echo, guest("notes")).await.expect(200);
    assert_eq!((&named["grants"], &named["missing"]), (&json!({}), &checked["missing"]));
    let oracle = guest("hostile/oracle-accept");
    expect_problem(&check(&client, &ada.key, &echo, oracle).await, 422, "other_kind");
    expect_problem(&check(&client, &bob.key, &echo, guest("echo")).await, 404, "bot_not_found");
    expect_problem(&check(&client, &ada.key, "?bot_id=x", guest("echo")).await, 422, "invalid_query");
    expect_problem(&check(&client, &ada.key, "", unknown_import()).await, 422, "unknown_imports");
    expect_problem(&check(&client, &ada.key, "", Vec::new()).await, 422, "component_empty");
    let json = client.request(Method::POST, "/components/check", &ada.key).json(&1);
    expect_problem(&send(json).await, 415, "unsupported_media_type");
}

async fn what_is_no_component_is_refused(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let echo = guest("echo");
    let module = b"\0asm\x01\0\0\0".to_vec();
    let mut flipped = echo.clone();
    let middle = flipped.len() / 2;
    flipped.iter_mut().skip(middle).take(64).for_each(|byte| *byte ^= 0xff);
    for (bytes, code) in [
        (Vec::new(), "component_empty"),
        (b"hello, I am a bot".to_vec(), "not_wasm"),
        (module, "core_module"),
        (echo[..echo.len() / 2].to_vec(), "component_malformed"),
        (echo[..6].to_vec(), "component_malformed"),
        (flipped, "component_malformed"),
        (unknown_import(), "unknown_imports"),
        (no_export(), "no_known_world"),
    ] {
        let answer = client.upload(&ada.key, bytes).await;
        expect_problem(&answer, 422, code);
        assert!(answer.text.contains("Nothing was stored"), "{}", answer.text);
    }
    let unknown = client.upload(&ada.key, unknown_import()).await;
    assert!(unknown.text.contains("evil:host/root"), "the import is named: {}", unknown.text);
    assert_eq!(client.get("/components", &ada.key).await.expect(200)["total"], 0, "nothing is stored");
    let json = client.request(Method::POST, "/components", &ada.key).json(&1);
    expect_problem(&ringfence_testkit::send(json).await, 415, "unsupported_media_type");
}

async fn what_is_too_large_is_refused(engine: Engine) {
    let args = ["--max-component-bytes", "100000", "--max-body-bytes", "2000"].map(str::to_owned).to_vec();
    let host = host_with(engine, HostOptions { args, ..HostOptions::default() }).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    expect_problem(&client.upload(&ada.key, vec![0; 100_001]).await, 413, "body_too_large");
    let long = serde_json::json!({ "name": "x".repeat(3000) });
    expect_problem(&client.post("/agents", "", &long).await, 413, "body_too_large");
    let _ = client.upload(&ada.key, guest("hostile/oracle-accept")).await.expect(201);
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn unknown_import() -> Vec<u8> {
    component(
        r#"(component
            (import "evil:host/root" (instance (export "run" (func))))
            (core module $m (func (export "handle")))
            (core instance $i (instantiate $m))
            (func (export "handle") (canon lift (core func $i "handle"))))"#,
    )
}

fn no_export() -> Vec<u8> {
    component("(component)")
}

/// The head of an upload of so many bytes, of which some are sent.
async fn begin(host: &Host, key: &str, bytes: usize, sent: &[u8]) -> TcpStream {
    let head = format!(
        "POST /api/v1/components HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/wasm\r\nContent-Length: {bytes}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// An upload is read as it comes: it need not come to its end to be refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_component_is_refused_by_its_first_bytes() {
    let host = host(Engine::Sqlite).await;
    let ada = Market::register(&host.client(), "Ada").await;
    for (sent, code) in [(b"#!/bin/sh", "not_wasm"), (b"\0asm\x01\0\0\0\x01", "core_module")] {
        let mut stream = begin(&host, &ada.key, 60 << 20, sent).await;
        let mut answer = vec![0; 4096];
        let read =
            timeout(Duration::from_secs(8), stream.read(&mut answer)).await.expect("an answer").unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 422") && answer.contains(code), "{answer}");
    }
}

/// What an org's uploads hold in memory is bounded, and what others upload is not their concern.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_share_the_memory() {
    let echo = guest("echo");
    let args = vec!["--max-component-bytes".to_owned(), echo.len().to_string()];
    let host = host_with(Engine::Sqlite, HostOptions { args, ..HostOptions::default() }).await;
    let client = host.client();
    let (ada, bob) = (Market::register(&client, "Ada").await, Market::register(&client, "Bob").await);
    let almost = &echo[..echo.len() - 1];
    // Until both are held: the third must not come between them.
    let begun = Instant::now();
    let (held, refused) = loop {
        let one = begin(&host, &ada.key, echo.len(), almost).await;
        let two = begin(&host, &ada.key, echo.len(), almost).await;
        sleep(Duration::from_millis(500)).await;
        let answer = client.upload(&ada.key, echo.clone()).await;
        if answer.status == 503 {
            break ((one, two), answer);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the third of Ada's is let in: {}", answer.text);
    };
    expect_problem(&refused, 503, "uploads_busy");
    assert!(refused.headers.contains_key("retry-after"));
    let _ = client.upload(&bob.key, echo.clone()).await.expect(201);
    drop(held);
    let begun = Instant::now();
    while !matches!(client.upload(&ada.key, echo.clone()).await.status, 200 | 201) {
        assert!(begun.elapsed() < Duration::from_secs(20), "what was held is given back");
    }
}
