//! Outbound HTTP, through the guest `fetch`, the host's real client and real listeners on loopback.

use std::sync::Arc;
use std::time::Duration;

use ringfence_model::OrgId;
use ringfence_outbound::{Limits as RequestLimits, Outbound, OutboundConfig};
use ringfence_runtime::{BotCall, Capabilities, HttpGrant, Invocation, Limits, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::guests::{RUNTIME, built, prepared, tenant};

/// Reads a request whose body says its length, and answers its text and this.
async fn exchange(stream: &mut TcpStream, response: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break;
            }
        }
        match stream.read(&mut buffer).await.unwrap() {
            0 => break,
            length => text.push_str(std::str::from_utf8(&buffer[..length]).unwrap()),
        }
    }
    stream.write_all(response.as_bytes()).await.unwrap();
    text
}

/// A server that says this to everyone; its URL, and what it hears.
async fn server(response: impl Into<String>) -> (String, mpsc::UnboundedReceiver<String>) {
    let response = response.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path?a=b", listener.local_addr().unwrap());
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = exchange(&mut stream, &response).await;
            let _ = heard.send(text);
        }
    });
    (url, hears)
}

fn granted(networks: &[&str], hosts: &[&str], limits: RequestLimits) -> Arc<Capabilities> {
    let client = Outbound::new(&OutboundConfig {
        allow_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        limits,
        ..OutboundConfig::default()
    });
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    let grant = HttpGrant {
        client: client.unwrap(),
        org: OrgId::platform(),
        hosts: Arc::new(ringfence_outbound::AllowedHosts::new(hosts)),
    };
    Arc::new(Capabilities { http: Some(grant), ..Capabilities::default() })
}

/// Everything on loopback.
fn local() -> Arc<Capabilities> {
    granted(&["127.0.0.0/8"], &["127.0.0.1:*"], RequestLimits::default())
}

async fn fetch(capabilities: &Arc<Capabilities>, input: &str) -> Invocation<String> {
    fetch_within(capabilities, input, Limits::default()).await
}

async fn fetch_within(capabilities: &Arc<Capabilities>, input: &str, limits: Limits) -> Invocation<String> {
    let call = BotCall {
        input: input.to_owned(),
        capabilities: Arc::clone(capabilities),
        limits,
        ..prepared(&RUNTIME, built("fetch")).await
    };
    RUNTIME.call_bot(call).await.unwrap()
}

/// The failure's code, and what the host wrote into the guest's log.
fn refusal(invocation: Invocation<String>) -> (String, String) {
    let said = invocation.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>().join("\n");
    (invocation.failure.unwrap_or_else(|| panic!("{:?}", invocation.outcome)).code, said)
}

#[tokio::test]
async fn a_granted_host_is_asked_and_its_answer_comes_back() {
    let response = "HTTP/1.1 203 Fine\r\nContent-Length: 5\r\nX-Said: by them\r\n\r\nhello";
    let (url, mut heard) = server(response).await;
    let body = "b".repeat(100_000);
    let input = format!(
        r#"{{"url": "{url}", "method": "PUT", "headers": {{"x-asked": "by us"}}, "body": "{body}"}}"#
    );
    let invocation = fetch(&local(), &input).await;
    assert_eq!(
        invocation.output.as_deref(),
        Some(r#"{"status":203,"headers":[["content-length","5"],["x-said","by them"]],"text":"hello"}"#),
        "{invocation:?}"
    );
    let heard = heard.recv().await.unwrap();
    assert!(heard.starts_with("PUT /path?a=b HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("x-asked: by us\r\n") && heard.ends_with(&body), "{heard}");
    // What the host counted is what went over the wire.
    assert_eq!(invocation.usage.egress_sent_bytes, heard.len() as u64);
    assert_eq!(invocation.usage.egress_received_bytes, response.len() as u64);
}

#[tokio::test]
async fn without_the_grant_a_request_is_denied_and_the_log_names_it() {
    let (url, mut heard) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(RUNTIME.prepare(built("fetch"), &tenant()).await.unwrap().capabilities, ["http"]);
    let invocation = fetch(&Arc::default(), &format!(r#"{{"url": "{url}"}}"#)).await;
    assert_eq!(invocation.outcome, Outcome::Failed);
    assert_eq!(invocation.usage.egress_sent_bytes, 0);
    let (code, log) = refusal(invocation);
    assert_eq!(code, "http_denied");
    assert_eq!(log, "the request to `127.0.0.1` was denied: `http` was not granted");
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn hosts_and_addresses_are_refused_with_a_reason() {
    let (url, mut heard) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    let input = format!(r#"{{"url": "{url}"}}"#);
    let limits = RequestLimits::default;

    let other = granted(&["127.0.0.0/8"], &["api.example.com"], limits());
    let (code, log) = refusal(fetch(&other, &input).await);
    assert_eq!(code, "http_denied");
    assert!(log.contains("is not among the hosts that were granted"), "{log}");

    let closed = granted(&[], &["*:*"], limits());
    let (code, log) = refusal(fetch(&closed, &input).await);
    assert_eq!(code, "http_denied");
    assert!(log.contains("is at a loopback address"), "{log}");
    for url in ["http://2130706433/", "http://0x7f.1/", "http://[::ffff:169.254.169.254]/"] {
        let (code, log) = refusal(fetch(&closed, &format!(r#"{{"url": "{url}"}}"#)).await);
        assert_eq!(code, "http_denied", "{url}: {log}");
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn redirects_are_answers() {
    let (url, _) =
        server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n").await;
    let output = fetch(&local(), &format!(r#"{{"url": "{url}"}}"#)).await.output.unwrap();
    assert!(output.starts_with(r#"{"status":302,"#) && output.contains("http://127.0.0.2/"), "{output}");
}

#[tokio::test]
async fn what_belongs_to_the_connection_cannot_be_set() {
    let (url, mut heard) = server("HTTP/1.1 200 OK\r\n\r\n").await;
    for header in ["host", "connection", "transfer-encoding", "proxy-authorization", "te", "upgrade"] {
        let input = format!(r#"{{"url": "{url}", "headers": {{"{header}": "x"}}}}"#);
        let (code, _) = refusal(fetch(&local(), &input).await);
        assert_eq!(code, "http_invalid_request", "{header}");
    }
    let input = format!(r#"{{"url": "{url}", "headers": {{"x": "a\r\nb: c"}}}}"#);
    assert_eq!(refusal(fetch(&local(), &input).await).0, "http_invalid_request");
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn too_much_ends_the_request_and_not_the_guest() {
    let limits =
        RequestLimits { response_body_bytes: 1000, request_body_bytes: 1000, ..RequestLimits::default() };
    let capabilities = granted(&["127.0.0.0/8"], &["127.0.0.1:*"], limits);
    let (url, _heard) = server(format!("HTTP/1.1 200 OK\r\n\r\n{}", "a".repeat(1001))).await;
    let (code, log) = refusal(fetch(&capabilities, &format!(r#"{{"url": "{url}"}}"#)).await);
    assert_eq!(code, "http_failed");
    assert!(log.contains("too large: at most 1000 bytes are read"), "{log}");

    let (url, _heard) = server(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(40_000))).await;
    let (code, log) = refusal(fetch(&capabilities, &format!(r#"{{"url": "{url}"}}"#)).await);
    assert_eq!(code, "http_failed");
    assert!(log.contains("the headers of the response"), "{log}");
}

/// A guest that waits for an answer is at the end of its wall time like any other, and its request with it.
#[tokio::test]
async fn the_wall_time_ends_a_guest_that_waits_and_its_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let input = format!(r#"{{"url": "http://{}/"}}"#, listener.local_addr().unwrap());
    let hung_up = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    let limits = Limits { wall_time_ms: 3000, ..Limits::default() };
    let invocation = fetch_within(&local(), &input, limits).await;
    assert_eq!(invocation.outcome, Outcome::TimedOut, "{invocation:?}");
    assert!(invocation.usage.egress_sent_bytes > 0);
    tokio::time::timeout(Duration::from_secs(20), hung_up).await.expect("the connection is closed").unwrap();
}

/// Dropping the call drops its request.
#[tokio::test]
async fn a_caller_that_leaves_takes_the_request_along() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let input = format!(r#"{{"url": "http://{}/"}}"#, listener.local_addr().unwrap());
    let call = tokio::spawn(async move { fetch(&local(), &input).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    call.abort();
    let mut buffer = [0; 1024];
    let closed = async { while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {} };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the connection is closed");
}
