//! Servers and callers that want too much.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use ringfence_outbound::{
    AllowedHosts, Limits, Origin, Outbound, OutboundConfig, OutboundError, Phase, RequestBody, full,
};
use tokio::io::AsyncWriteExt;

use crate::names::Names;
use crate::server::{Server, read_head, wait_for_end};
use crate::{anyone, ask, client, config, get, limited, org};

const SHORT: Duration = Duration::from_millis(200);

async fn local() -> Outbound {
    client(&["127.0.0.0/8"], &Names::serve(&[]).await)
}

#[tokio::test]
async fn endless_headers_end() {
    let client = local().await;
    let long = Server::endless("HTTP/1.1 200 OK\r\nx: ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").await;
    let many = Server::endless("HTTP/1.1 200 OK\r\n", "a: b\r\n").await;
    let interim = Server::endless("", "HTTP/1.1 103 Early Hints\r\n\r\n").await;
    for server in [&long, &many] {
        let origin = anyone();
        let error = ask(&client, &origin, &server.url()).await.unwrap_err();
        assert!(matches!(error, OutboundError::ResponseHeadersTooLarge { .. }), "{error}");
        assert!(origin.traffic.received_bytes() <= 64 * 1024, "{}", origin.traffic.received_bytes());
    }
    // One interim response after the other never becomes a response.
    let origin = limited(Limits { first_byte_timeout: SHORT, ..Limits::default() });
    let error = ask(&client, &origin, &interim.url()).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { phase: Phase::FirstByte, .. }), "{error}");
}

#[tokio::test]
async fn headers_of_just_the_size_pass() {
    let head = |padding: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx: {}\r\n\r\n", "a".repeat(padding))
    };
    let limits = Limits { response_header_bytes: 9000, ..Limits::default() };
    let padding = 9000 - head(0).len();
    let (fits, exceeds) = (Server::saying(head(padding)).await, Server::saying(head(padding + 1)).await);
    let client = local().await;
    ask(&client, &limited(limits.clone()), &fits.url()).await.unwrap();
    let error = ask(&client, &limited(limits), &exceeds.url()).await.unwrap_err();
    assert!(matches!(error, OutboundError::ResponseHeadersTooLarge { max_bytes: 9000, .. }), "{error}");
}

#[tokio::test]
async fn endless_bodies_end() {
    const LIMIT: u64 = 300_000;
    let client = local().await;
    let text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (what, server) in [
        ("until the end of the connection", Server::endless("HTTP/1.1 200 OK\r\n\r\n", text).await),
        (
            "in small chunks",
            Server::endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n").await,
        ),
        (
            "in one huge chunk",
            Server::endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", text)
                .await,
        ),
    ] {
        let origin = limited(Limits { response_body_bytes: LIMIT, ..Limits::default() });
        let mut body = ask(&client, &origin, &server.url()).await.unwrap().into_body();
        let mut read = 0;
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => {
                    let part = frame.into_data().unwrap();
                    assert!(part.len() <= 64 * 1024, "{what}: {} bytes at once", part.len());
                    read += part.len() as u64;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, OutboundError::ResponseTooLarge { max_bytes: LIMIT, .. }), "{what}: {error}");
        assert!(read <= LIMIT, "{what}: {read} bytes");
        assert!(body.frame().await.is_none(), "{what}: goes on after its end");

        // Asked for as a whole, it is not collected past the caller's own limit either.
        let response = ask(&client, &origin, &server.url()).await.unwrap();
        let error = response.into_body().bytes(1000).await.unwrap_err();
        assert!(matches!(error, OutboundError::ResponseTooLarge { max_bytes: 1000, .. }), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_body_that_says_it_is_too_long_is_not_begun() {
    let client = local().await;
    let server = Server::stalling("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n").await;
    let origin = limited(Limits { response_body_bytes: 1000, ..Limits::default() });
    let error = ask(&client, &origin, &server.url()).await.unwrap_err();
    assert!(matches!(error, OutboundError::ResponseTooLarge { max_bytes: 1000, .. }), "{error}");
    // Its length is only said in answer to HEAD.
    let mut head = get(&server.url());
    *head.method_mut() = http::Method::HEAD;
    let response = client.send(&origin, head).await.unwrap();
    assert_eq!(response.into_body().bytes(10).await.unwrap(), "");
}

#[tokio::test]
async fn what_takes_too_long_ends() {
    let client = local().await;
    let deaf = Server::at("127.0.0.1:0", |mut stream| async move { wait_for_end(&mut stream).await }).await;
    let origin = limited(Limits { first_byte_timeout: SHORT, ..Limits::default() });
    let error = ask(&client, &origin, &deaf.url()).await.unwrap_err();
    assert!(
        matches!(error, OutboundError::TimedOut { phase: Phase::FirstByte, limit: SHORT, .. }),
        "{error}"
    );

    let stalling = Server::stalling("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin").await;
    let origin = limited(Limits { idle_timeout: SHORT, ..Limits::default() });
    let response = ask(&client, &origin, &stalling.url()).await.unwrap();
    let error = response.into_body().bytes(10).await.unwrap_err();
    assert!(
        matches!(error, OutboundError::TimedOut { phase: Phase::NextBytes, limit: SHORT, .. }),
        "{error}"
    );

    // Each byte in time, and never an end.
    let dripping = Server::at("127.0.0.1:0", |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let total_timeout = Duration::from_secs(1);
    let origin = limited(Limits { total_timeout, ..Limits::default() });
    let response = ask(&client, &origin, &dripping.url()).await.unwrap();
    let error = response.into_body().bytes(1_000_000).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { phase: Phase::Whole, .. }), "{error}");
    assert_eq!(
        error.to_string().split_once(" took").unwrap().1,
        " too long: the whole request was not done after 1000 ms"
    );
}

#[tokio::test]
async fn name_servers_that_say_nothing_are_not_waited_for() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = OutboundConfig {
        name_servers: vec![silent.local_addr().unwrap()],
        limits: Limits { connect_timeout: SHORT, ..Limits::default() },
        ..OutboundConfig::default()
    };
    let error = ask(&Outbound::new(&config).unwrap(), &anyone(), "http://a.test/").await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { phase: Phase::Connecting, .. }), "{error}");
}

#[tokio::test]
async fn requests_are_bounded_before_they_are_sent() {
    let server = Server::saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let client = local().await;
    let limits =
        Limits { request_header_bytes: 100, headers: 3, request_body_bytes: 10, ..Limits::default() };
    let refused = async |request| client.send(&limited(limits.clone()), request).await.unwrap_err();

    let mut request = get(&server.url());
    request.headers_mut().insert("x", "a".repeat(100).parse().unwrap());
    assert!(matches!(refused(request).await, OutboundError::RequestHeadersTooLarge { .. }));
    let request = get(&format!("{}{}", server.url(), "a".repeat(100)));
    assert!(matches!(refused(request).await, OutboundError::RequestHeadersTooLarge { .. }));
    let mut request = get(&server.url());
    for value in 0..4 {
        request.headers_mut().append("x", value.into());
    }
    assert!(matches!(refused(request).await, OutboundError::RequestHeadersTooLarge { .. }));
    let request = get(&server.url()).map(|_| full("aaaaaaaaaaa"));
    assert!(matches!(refused(request).await, OutboundError::RequestBodyTooLarge { max_bytes: 10 }));
    let mut request = get(&server.url());
    *request.method_mut() = http::Method::CONNECT;
    assert_eq!(refused(request).await, OutboundError::ConnectMethod);
    assert_eq!(server.connections(), 0);
}

/// A body of these parts, the last of which may be a failure.
fn streamed(parts: Vec<Result<&'static str, &'static str>>) -> RequestBody {
    let frames = parts.into_iter().map(|part| match part {
        Ok(data) => Ok(Frame::data(Bytes::from(data))),
        Err(error) => Err(error.into()),
    });
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

#[tokio::test]
async fn streamed_request_bodies_end_at_the_limit() {
    let server = Server::at("127.0.0.1:0", |mut stream| async move { wait_for_end(&mut stream).await }).await;
    let client = local().await;
    let origin = limited(Limits { request_body_bytes: 10, ..Limits::default() });
    let post = |parts| {
        let mut request = get(&server.url()).map(|_| streamed(parts));
        *request.method_mut() = http::Method::POST;
        request
    };
    let error = client.send(&origin, post(vec![Ok("12345"), Ok("67890"), Ok("1")])).await.unwrap_err();
    assert_eq!(error, OutboundError::RequestBodyTooLarge { max_bytes: 10 });
    let error = client.send(&origin, post(vec![Ok("12345"), Err("gave up")])).await.unwrap_err();
    assert_eq!(error, OutboundError::RequestBodyFailed);
}

#[tokio::test]
async fn requests_at_once_are_bounded_in_all_and_for_each_org() {
    let names = Names::serve(&[]).await;
    let config =
        OutboundConfig { max_requests: 3, max_requests_per_org: 2, ..config(&["127.0.0.0/8"], &names) };
    let client = Outbound::new(&config).unwrap();
    let open = Server::stalling("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
    let done = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let [one, two, three] = [1, 2, 3].map(|number| Origin::new(org(number), AllowedHosts::every()));

    let first = ask(&client, &one, &open.url()).await.unwrap();
    let second = ask(&client, &one, &open.url()).await.unwrap();
    let error = ask(&client, &one, &open.url()).await.unwrap_err();
    assert_eq!(error.to_string(), "too many requests are under way for this organization; try again in 1 s");
    let third = ask(&client, &two, &open.url()).await.unwrap();
    let error = ask(&client, &three, &done.url()).await.unwrap_err();
    assert_eq!(error.to_string(), "too many requests are under way on this host; try again in 1 s");
    assert_eq!((open.connections(), done.connections()), (3, 0));

    // Dropped, read to its end, or failed: each gives its permit back.
    drop(first);
    for _ in 0..5 {
        let response = ask(&client, &three, &done.url()).await.unwrap();
        assert_eq!(response.into_body().bytes(10).await.unwrap(), "ok");
    }
    let response = ask(&client, &three, &done.url()).await.unwrap();
    let mut body = response.into_body();
    while body.frame().await.is_some() {}
    ask(&client, &three, "http://127.0.0.1:1/").await.unwrap_err();
    ask(&client, &three, &done.url()).await.unwrap();
    drop((second, third, body));
}
