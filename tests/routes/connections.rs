//! Connections themselves, below the routes: slow ones, many, and what is no proper HTTP.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ringfence_testkit::{Engine, Host, HostOptions, expect_problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::{host, host_with};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: here\r\n\r\n";
const REGISTER: &str = "POST /api/v1/agents HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n";

async fn host_held_to(args: &[&str]) -> Host {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    host_with(Engine::Sqlite, HostOptions { args, ..HostOptions::default() }).await
}

async fn connect(host: &Host) -> TcpStream {
    TcpStream::connect(host.address()).await.unwrap()
}

/// All that comes until the host closes the connection, which it must.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) => return,
                Ok(read) => all.extend_from_slice(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(Duration::from_secs(20), read).await.expect("the host closes the connection");
    String::from_utf8(all).unwrap()
}

/// Sends something and reads all that comes until the host closes the connection.
async fn converse(host: &Host, sent: &str) -> String {
    let mut stream = connect(host).await;
    stream.write_all(sent.as_bytes()).await.unwrap();
    until_closed(&mut stream).await
}

/// Asks for the health on a connection that stays open.
async fn is_served(stream: &mut TcpStream) -> bool {
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with('}') {
        let mut bytes = [0; 4096];
        match timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.expect("an answer") {
            Ok(read) if read > 0 => answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap()),
            _ => return false,
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    true
}

/// Sends a byte every 50 ms for ever; what the host answered until it closed the connection, and after how long.
async fn drip(host: &Host, begin: &str) -> (String, Duration) {
    let mut stream = connect(host).await;
    stream.write_all(begin.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut write) = stream.split();
    let drops = async {
        while write.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        answer = until_closed(&mut read) => (answer, begun.elapsed()),
        never = drops => never,
    }
}

fn assert_refused(answer: &str, status: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "nothing more is answered: {answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn headers_that_drip_are_cut_off_and_so_is_who_says_nothing() {
    let host = host_held_to(&["--request-header-timeout-seconds", "1"]).await;
    let (answer, after) = drip(&host, "GET /health HTTP/1.1\r\nX-Long: ").await;
    assert_eq!(answer, "");
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(5), "{after:?}");

    assert_eq!(until_closed(&mut connect(&host).await).await, "", "a connection without a request");
    let mut idle = connect(&host).await;
    assert!(is_served(&mut idle).await);
    let begun = Instant::now();
    assert_eq!(until_closed(&mut idle).await, "", "a connection without a second request");
    let after = begun.elapsed();
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(5), "{after:?}");
}

#[tokio::test]
async fn a_body_that_drips_is_refused() {
    let host = host_held_to(&["--request-body-timeout-seconds", "1"]).await;
    let (answer, after) = drip(&host, &format!("{REGISTER}Content-Length: 1000\r\n\r\n")).await;
    assert_refused(&answer, "408");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    assert!(after > Duration::from_millis(900) && after < Duration::from_secs(5), "{after:?}");
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off() {
    let host = host_held_to(&["--response-write-timeout-seconds", "1"]).await;
    let whole = host.client().get("//docs/swagger-ui-bundle.js", "").await.text.len();
    // More than the buffers of both sides hold.
    let requests = (12 << 20) / whole;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(host.address().parse().unwrap()).await.unwrap();
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: here\r\n\r\n";
    stream.write_all(request.repeat(requests).as_bytes()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let begun = until_closed(&mut stream).await;
    assert!(begun.starts_with("HTTP/1.1 200 OK"));
    assert!(begun.len() < whole * requests, "{} of {requests} × {whole}", begun.len());
}

#[tokio::test]
async fn who_reads_slowly_but_reads_gets_the_whole_answer() {
    let host = host_held_to(&["--response-write-timeout-seconds", "1"]).await;
    let whole = host.client().get("//docs/swagger-ui-bundle.js", "").await.text.len();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(host.address().parse().unwrap()).await.unwrap();
    let requests = (4 << 20) / whole;
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: here\r\n\r\n";
    stream.write_all(request.repeat(requests).as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut bytes, mut read) = (vec![0; 1 << 20], 0);
    while read < whole * requests {
        let some = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(some, 0, "cut off after {read} bytes and {:?}", begun.elapsed());
        read += some;
        if begun.elapsed() < Duration::from_secs(3) {
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "slower than the timeout");
}

#[tokio::test]
async fn one_client_has_so_many_connections_and_no_more() {
    let host = host_held_to(&["--max-connections-per-address", "2"]).await;
    let [mut first, mut second] = [connect(&host).await, connect(&host).await];
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    assert_eq!(until_closed(&mut connect(&host).await).await, "", "one too many");
    assert!(is_served(&mut first).await, "the others are not disturbed");
    drop(second);
    for _ in 0..100 {
        let mut third = connect(&host).await;
        if third.write_all(HEALTH.as_bytes()).await.is_ok()
            && third.read(&mut [0; 1]).await.is_ok_and(|read| read > 0)
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the place of a connection that has ended is free");
}

#[tokio::test]
async fn connections_beyond_the_most_wait_their_turn() {
    let host = host_held_to(&["--max-connections", "1"]).await;
    let mut first = connect(&host).await;
    assert!(is_served(&mut first).await);
    let mut second = connect(&host).await;
    let waiting = timeout(Duration::from_millis(300), is_served(&mut second)).await;
    assert!(waiting.is_err(), "there is one place");
    drop(first);
    assert!(is_served(&mut second).await);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let host = host(Engine::Sqlite).await;
    let mut stream = connect(&host).await;
    assert!(is_served(&mut stream).await && is_served(&mut stream).await);
    let closing = HEALTH.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answers = converse(&host, &format!("{HEALTH}{HEALTH}{closing}")).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "pipelined: {answers}");
}

#[tokio::test]
async fn a_long_url_is_refused() {
    let host = host(Engine::Sqlite).await;
    let client = host.client();
    let path = |bytes: usize| format!("//health?{}", "x".repeat(bytes - "/health?".len()));
    assert_eq!(client.get(&path(8192), "").await.status, 200);
    expect_problem(&client.get(&path(8193), "").await, 414, "uri_too_long");
    expect_problem(&client.get(&path(20_000), "").await, 414, "uri_too_long");
    let too_long_for_all = HEALTH.replace("/health", &format!("/{}", "x".repeat(100_000)));
    assert_refused(&converse(&host, &too_long_for_all).await, "431");
}

#[tokio::test]
async fn large_and_many_headers_are_refused() {
    let host = host(Engine::Sqlite).await;
    let with = |headers: &str| HEALTH.replace("Host: here\r\n", &format!("Host: here\r\n{headers}"));
    let large = with(&format!("X-Large: {}\r\n", "x".repeat(40_000)));
    assert_refused(&converse(&host, &large).await, "431");
    // Far more than is read before it is refused: the refusal arrives all the same.
    let larger = with(&format!("X-Large: {}\r\n", "x".repeat(400_000)));
    assert_refused(&converse(&host, &larger).await, "431");
    assert_refused(&converse(&host, &with(&"X-Many: 1\r\n".repeat(64))).await, "431");
    let as_many_as_may_be = with(&format!("{}Connection: close\r\n", "X-Many: 1\r\n".repeat(62)));
    assert!(converse(&host, &as_many_as_may_be).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_body_that_is_refused_half_way_does_not_lose_the_refusal() {
    let host = host_held_to(&["--max-body-bytes", "2000"]).await;
    let body = "x".repeat(2_000_000);
    let answer = converse(&host, &format!("{REGISTER}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_refused(&answer, "413");
    assert!(answer.contains("\"code\":\"body_too_large\""), "{answer}");
}

#[tokio::test]
async fn a_connection_outlives_the_refusal_of_a_large_body() {
    let host = host(Engine::Sqlite).await;
    let mut stream = connect(&host).await;
    for _ in 0..3 {
        // Without a key it is refused before any of the body is there.
        let head = "POST /api/v1/components HTTP/1.1\r\nHost: here\r\nContent-Type: application/wasm\r\nContent-Length: 300000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        stream.write_all(&[0; 300_000]).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
        assert!(is_served(&mut stream).await);
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let host = host(Engine::Sqlite).await;
    for garbage in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "GET\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        "GET /he alth HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nno header\r\n\r\n",
        "GET /health HTTP/1.1\r\n: no name\r\n\r\n",
        "GET /health HTTP/1.1\r\nX : space\r\n\r\n",
        "GET /health HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n",
    ] {
        assert_refused(&converse(&host, garbage).await, "400");
    }
    let after_a_request = converse(&host, &format!("{HEALTH}garbage\r\n\r\n")).await;
    assert!(after_a_request.starts_with("HTTP/1.1 200 OK"), "{after_a_request}");
    let (_, second) = after_a_request.split_once('}').unwrap();
    assert_refused(second, "400");
    assert_eq!(converse(&host, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "", "HTTP/2 is not spoken here");
}

/// A proxy and this host must never see different requests in the same bytes.
#[tokio::test]
async fn a_body_has_one_length() {
    let host = host(Engine::Sqlite).await;
    let body = r#"{"name":"Ada"}"#;
    for headers in [
        "Content-Length: 14\r\nContent-Length: 15\r\n",
        "Content-Length: 14, 14\r\n",
        "Content-Length: +14\r\n",
        "Content-Length: 0x0e\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: 14\r\nTransfer-Encoding: identity\r\n",
    ] {
        assert_refused(&converse(&host, &format!("{REGISTER}{headers}\r\n{body}")).await, "400");
    }
    let old = REGISTER.replace("HTTP/1.1", "HTTP/1.0");
    let answer =
        converse(&host, &format!("{old}Transfer-Encoding: chunked\r\n\r\ne\r\n{body}\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{answer}");

    // The same length twice is one length (RFC 9112, 6.3).
    let twice = "Content-Length: 14\r\nContent-Length: 14\r\nConnection: close\r\n";
    let answer = converse(&host, &format!("{REGISTER}{twice}\r\n{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");

    // With both, the chunks count and the connection ends: what follows is never taken for a request (RFC 9112, 6.1).
    let chunks = format!("e\r\n{body}\r\n0\r\n\r\n{HEALTH}");
    for both in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        assert_refused(&converse(&host, &format!("{REGISTER}{both}\r\n{chunks}")).await, "201");
    }
}
