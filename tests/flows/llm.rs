//! Language models, behind an endpoint that answers as it should, and behind ones that do not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence_testkit::{Agent, Client, Engine, Host, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::host_with;

on_both_engines!(a_bot_asks_a_model_and_nothing_of_it_is_kept);

const PROMPT: &str = "prompt-sentinel-7f3a";
const ANSWER: &str = "answer-sentinel-91cc";
const KEY: &str = "endpoint-key-sentinel-5d20";
const MODELS: &str = "good,silent,liar,busy,broken,refusing,forbidden,junk,textless,redirect,huge,hanging";

/// An endpoint on loopback. How it answers, the model's name says.
struct Endpoint {
    base_url: String,
    /// What it was asked, heads and bodies.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&all)));
            }
        });
        Self { base_url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads one request to its end.
async fn read(stream: &mut TcpStream) -> (String, Value) {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut part).await.unwrap();
        bytes.extend(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return (head.to_owned(), body);
        }
        assert!(read > 0, "a request that ends early: {text}");
    }
}

async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let (head, body) = read(&mut stream).await;
    asked.lock().unwrap().push(format!("{head}\n{body}"));
    let said = json!({ "choices": [{ "message": { "role": "assistant", "content": ANSWER }, "finish_reason": "stop" }] });
    let with = |usage: Value| {
        let mut said = said.clone();
        said["usage"] = usage;
        said.to_string()
    };
    let echo = json!({ "error": { "message": format!("{KEY} {}", body["messages"]) } }).to_string();
    let (status, more, text) = match body["model"].as_str().unwrap() {
        "good" => {
            ("200 OK", "", with(json!({ "prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26 })))
        }
        "silent" => ("200 OK", "", said.to_string()),
        "liar" => ("200 OK", "", with(json!({ "prompt_tokens": u64::MAX, "completion_tokens": u64::MAX }))),
        "busy" => ("429 Too Many Requests", "retry-after: 1\r\n", echo),
        "broken" => ("500 Internal Server Error", "", echo),
        "refusing" => ("400 Bad Request", "", echo),
        "forbidden" => ("401 Unauthorized", "", echo),
        "junk" => ("200 OK", "", format!("{{\"choices\": {ANSWER}")),
        "textless" => ("200 OK", "", json!({ "choices": [{ "message": { "content": null } }] }).to_string()),
        "redirect" => ("307 Temporary Redirect", "location: /v1/elsewhere\r\n", String::new()),
        "huge" => ("200 OK", "", said.to_string().replace(ANSWER, &ANSWER.repeat(300_000))),
        "hanging" => return tokio::time::sleep(Duration::from_secs(120)).await,
        other => panic!("{other}"),
    };
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\n{more}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    // Whoever is asked for too much hangs up.
    let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn start(engine: Engine, endpoint: &Endpoint, networks: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let mut args = vec![
        format!("--llm-base-url={}", endpoint.base_url),
        format!("--llm-api-key-file={}", key.display()),
        format!("--llm-allow-models={MODELS}"),
    ];
    if !networks.is_empty() {
        args.push(format!("--outbound-allow-networks={networks}"));
    }
    let env = vec![("RINGFENCE_LOG".to_owned(), "trace".to_owned())];
    host_with(engine, HostOptions { args, env }).await
}

/// Has a bot of this model sum up a text.
async fn sum_up(client: &Client, owner: &Agent, model: &str) -> Value {
    let bot = json!({
        "name": format!("with-{model}"),
        "config": { "model": model },
        "grants": { "llm": { "models": [model], "max_tokens_per_call": 2000 } },
        "limits": { "wall_time_ms": if model == "hanging" { 8000 } else { 60_000 } },
    });
    let bot = Market::deploy(client, owner, "summary", bot).await;
    let input = json!({ "input": { "text": PROMPT } });
    client.post(&format!("/bots/{bot}/invoke"), &owner.key, &input).await.expect(200)
}

async fn a_bot_asks_a_model_and_nothing_of_it_is_kept(engine: Engine) {
    let endpoint = Endpoint::start().await;
    let host = start(engine, &endpoint, "127.0.0.0/8").await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;

    let good = sum_up(&client, &ada, "good").await;
    assert_eq!(
        good["output"],
        json!({ "summary": ANSWER, "whole": true, "input_tokens": 21, "output_tokens": 5 })
    );
    assert_eq!(
        (&good["usage"]["llm_input_tokens"], &good["usage"]["llm_output_tokens"]),
        (&json!(21), &json!(5))
    );
    let asked = endpoint.asked().pop().unwrap();
    assert!(asked.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("Bearer {KEY}")) && asked.contains(PROMPT), "{asked}");
    assert!(asked.contains(r#""max_tokens":240"#) && asked.contains(r#""stream":false"#), "{asked}");

    // What is not told, or cannot be, is estimated or bounded.
    let silent = sum_up(&client, &ada, "silent").await;
    let input = silent["usage"]["llm_input_tokens"].as_u64().unwrap();
    assert!((30..200).contains(&input), "{silent}");
    assert_eq!(silent["usage"]["llm_output_tokens"], ANSWER.len().div_ceil(3));
    let liar = sum_up(&client, &ada, "liar").await;
    assert_eq!(liar["usage"]["llm_input_tokens"], u32::MAX);

    for (model, code) in [
        ("busy", "llm_unavailable"),
        ("broken", "llm_unavailable"),
        ("forbidden", "llm_unavailable"),
        ("junk", "llm_unavailable"),
        ("textless", "llm_unavailable"),
        ("redirect", "llm_unavailable"),
        ("huge", "llm_unavailable"),
        ("refusing", "llm_invalid"),
        // Granted, and not among those that the operator offers.
        ("unheard-of", "llm_unavailable"),
    ] {
        let failed = sum_up(&client, &ada, model).await;
        assert_eq!(failed["failure_code"], code, "{model}: {failed}");
        for sentinel in [PROMPT, ANSWER, KEY] {
            assert!(!failed.to_string().contains(sentinel), "{model}: {failed}");
        }
    }
    let hanging = sum_up(&client, &ada, "hanging").await;
    assert_eq!(hanging["outcome"], "timed_out", "{hanging}");
    assert!(hanging["usage"]["llm_input_tokens"].as_u64().unwrap() > 0, "what was sent counts: {hanging}");
    assert!(endpoint.asked().iter().all(|asked| !asked.contains("elsewhere")), "a redirect is not followed");
    assert_eq!(endpoint.asked().len(), MODELS.split(',').count(), "each was asked once");

    for sentinel in [PROMPT, ANSWER, KEY] {
        assert_eq!(host.database().tables_with(sentinel).await, [""; 0], "{sentinel}");
        assert!(!host.log().contains(sentinel), "{sentinel} in the log");
    }
    assert!(host.log().contains("TRACE") || host.log().contains("DEBUG"), "it is a log that could tell");
}

/// What is internal is asked only if the operator says so, also where the operator named it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_internal_endpoint_needs_its_network_allowed() {
    let endpoint = Endpoint::start().await;
    let host = start(Engine::Sqlite, &endpoint, "").await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let refused = sum_up(&client, &ada, "good").await;
    assert_eq!(refused["failure_code"], "llm_unavailable", "{refused}");
    assert_eq!(endpoint.asked().len(), 0);
    assert!(host.log().contains("the language models cannot be asked"), "{}", host.log());
}
