//! How large a body may be: each route has its own limit.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::Method;
use ringfence_testkit::{Answer, Client, Engine, Host, HostOptions, Market, expect_problem, send};

use super::bodies::{Route, routes};
use crate::host_with;

/// What the operator of these tests sets, more than any limit that is built in.
const JSON: usize = 300_000;
const COMPONENT: usize = 2_000_000;

async fn host() -> Host {
    let args = [format!("--max-body-bytes={JSON}"), format!("--max-component-bytes={COMPONENT}")];
    host_with(Engine::Sqlite, HostOptions { args: args.to_vec(), ..HostOptions::default() }).await
}

/// The route's own body, made longer by spaces, which JSON may have anywhere.
async fn sized(client: &Client, route: &Route, bytes: usize) -> Answer {
    let mut body = route.body.to_string();
    body.extend(std::iter::repeat_n(' ', bytes - body.len()));
    let request = client.request(route.method.clone(), &route.path, &route.key);
    send(request.header("content-type", "application/json").body(body)).await
}

#[track_caller]
fn expect_too_large(answer: &Answer, limit: usize) {
    expect_problem(answer, 413, "body_too_large");
    let detail = answer.text_at("/detail");
    assert!(detail.contains(&format!("{limit} bytes")), "{detail}");
    // What was not read of the body must not be taken for the next request.
    assert_eq!(answer.headers["connection"], "close");
}

#[tokio::test]
async fn every_route_has_its_limit() {
    let host = host().await;
    let client = host.client();
    for route in routes(&host).await {
        let limit = route.limit.unwrap_or(JSON);
        expect_too_large(&sized(&client, &route, limit + 1).await, limit);
        assert_eq!(client.get("//health", "").await.status, 200, "{}: the host goes on", route.template);
        let whole = sized(&client, &route, limit).await;
        assert_eq!(whole.status, route.status, "{}: {}", route.template, whole.text);
    }
}

#[tokio::test]
async fn a_component_has_its_own() {
    let host = host().await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    expect_too_large(&client.upload(&ada.key, vec![0; COMPONENT + 1]).await, COMPONENT);
    expect_problem(&client.upload(&ada.key, vec![0; COMPONENT]).await, 422, "not_wasm");
}

/// Sends bytes and reads until the host closes the connection.
fn raw(host: &Host, bytes: &[u8]) -> String {
    let address = std::fs::read_to_string(host.folder().join("address")).unwrap();
    let mut stream = TcpStream::connect(address.trim()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    // The host may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn what_follows_a_body_that_is_too_large_is_no_request() {
    let host = host().await;
    let limit = 65_536;
    let head =
        format!("{} /api/v1/agents HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n", Method::POST);
    let next = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let spaces = " ".repeat(limit + 1);
    let told = format!("{head}content-length: {}\r\n\r\n{spaces}{next}", limit + 1);
    // A body that does not tell its length is counted as it comes.
    let chunked =
        format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{spaces}\r\n0\r\n\r\n{next}", limit + 1);
    for request in [told, chunked] {
        let answer = raw(&host, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("body_too_large"), "{answer}");
    }
}
