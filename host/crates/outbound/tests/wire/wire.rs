//! What goes over the wire, and what comes back.

use std::sync::{Arc, Mutex};

use http::{HeaderValue, Method};
use ringfence_outbound::{OutboundError, full, json_request, parse_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::names::Names;
use crate::server::{Server, read_head};
use crate::{anyone, ask, client, get};

/// Not quite JSON.
const REPLY: &str = "HTTP/1.1 201 Created\r\nContent-Length: 13\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
    Keep-Alive: timeout=9\r\nX-End: 2\r\n\r\n{\"answer\": 42";

/// Answers each request; what was read is kept as it came.
async fn recording(body_bytes: usize) -> (Server, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&heard);
    let server = Server::at("127.0.0.1:0", move |mut stream| {
        let keep = Arc::clone(&keep);
        async move {
            let mut text = read_head(&mut stream).await;
            let mut body = vec![0; body_bytes];
            stream.read_exact(&mut body).await.unwrap();
            text.push_str(std::str::from_utf8(&body).unwrap());
            *keep.lock().unwrap() = text;
            stream.write_all(REPLY.as_bytes()).await.unwrap();
        }
    })
    .await;
    (server, heard)
}

#[tokio::test]
async fn requests_arrive_as_they_should() {
    let names = Names::serve(&[("api.test", &["127.0.0.1"])]).await;
    let (server, heard) = recording(9).await;
    let client = client(&["127.0.0.0/8"], &names);
    let url = format!("http://API.test.:{}/a/../b?c=%20d", server.port());
    let mut request = get(&url).map(|_| full("some body"));
    *request.method_mut() = Method::POST;
    for (name, value) in [
        ("host", "internal.test"),
        ("connection", "x-private"),
        ("x-private", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "99"),
        ("user-agent", "test"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let origin = anyone();
    let response = client.send(&origin, request).await.unwrap();

    let heard = heard.lock().unwrap().clone();
    let mut lines: Vec<_> = heard.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /a/../b?c=%20d HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: api.test:{}", server.port());
    assert_eq!(lines, ["", "connection: close", "content-length: 9", &host, "some body", "user-agent: test"]);

    assert_eq!(response.status(), 201);
    let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["content-length", "x-end"]);
    response.into_body().bytes(13).await.unwrap();
    assert_eq!(origin.traffic.sent_bytes(), heard.len() as u64);
    assert_eq!(origin.traffic.received_bytes(), REPLY.len() as u64);
}

#[tokio::test]
async fn json_goes_and_comes() {
    let names = Names::serve(&[]).await;
    let (server, heard) = recording(7).await;
    let client = client(&["127.0.0.0/8"], &names);
    let uri = parse_url(&server.url()).unwrap();
    let request = json_request(Method::POST, uri.clone(), &serde_json::json!({"a": 1})).unwrap();
    let response = client.send(&anyone(), request).await.unwrap();
    assert!(heard.lock().unwrap().contains("content-type: application/json\r\n"));
    assert!(heard.lock().unwrap().ends_with("{\"a\":1}"));
    let error = response.into_body().json::<serde_json::Value>(100).await.unwrap_err();
    assert!(matches!(error, OutboundError::InvalidResponse { .. }), "{error}");

    let json = Server::saying("HTTP/1.1 200 OK\r\n\r\n{\"answer\": 42}").await;
    let response = ask(&client, &anyone(), &json.url()).await.unwrap();
    let answer: serde_json::Value = response.into_body().json(100).await.unwrap();
    assert_eq!(answer["answer"], 42);
}

/// A server that sends more than one response answers only the request that it got.
#[tokio::test]
async fn a_split_response_answers_nobody_else() {
    let names = Names::serve(&[]).await;
    let client = client(&["127.0.0.0/8"], &names);
    let reply = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let server = Server::saying(format!("{}{}", reply("first"), reply("smuggled"))).await;
    for _ in 0..3 {
        let response = ask(&client, &anyone(), &server.url()).await.unwrap();
        assert_eq!(response.into_body().bytes(100).await.unwrap(), "first");
    }
    assert_eq!(server.connections(), 3);
    // And a caller cannot write a second request into the first.
    assert!(HeaderValue::from_bytes(b"a\r\n\r\nGET / HTTP/1.1").is_err());
    assert!(format!("{}a HTTP/1.1\r\n\r\nGET /", server.url()).parse::<http::Uri>().is_err());
}

#[tokio::test]
async fn responses_that_are_not_http_are_refused() {
    let names = Names::serve(&[]).await;
    let client = client(&["127.0.0.0/8"], &names);
    for reply in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let server = Server::saying(reply).await;
        let error = ask(&client, &anyone(), &server.url()).await.unwrap_err();
        assert!(matches!(error, OutboundError::InvalidResponse { .. }), "{reply:?}: {error}");
    }
    for (reply, is_invalid) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", false),
    ] {
        let server = Server::saying(reply).await;
        let response = ask(&client, &anyone(), &server.url()).await.unwrap();
        let error = response.into_body().bytes(100).await.unwrap_err();
        assert_eq!(matches!(error, OutboundError::InvalidResponse { .. }), is_invalid, "{reply:?}: {error}");
        assert_eq!(matches!(error, OutboundError::ConnectionLost { .. }), !is_invalid, "{reply:?}: {error}");
    }
    let hanging_up = Server::at("127.0.0.1:0", |mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let error = ask(&client, &anyone(), &hanging_up.url()).await.unwrap_err();
    assert!(matches!(error, OutboundError::ConnectionLost { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_says_so() {
    let names = Names::serve(&[]).await;
    let error = ask(&client(&["127.0.0.0/8"], &names), &anyone(), "http://127.0.0.1:1/").await.unwrap_err();
    assert_eq!(error.to_string(), "connecting to `127.0.0.1:1` failed: connection refused");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let server = Server::saying_at("127.0.0.3:0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let names = Names::serve(&[("many.test", &["127.0.0.1", "127.0.0.2", "127.0.0.3"])]).await;
    let client = client(&["127.0.0.0/8"], &names);
    ask(&client, &anyone(), &format!("http://many.test:{}/", server.port())).await.unwrap();
}
