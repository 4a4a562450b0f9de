//! Bots that ask the web: the grant, the operator's networks, and what is counted.

use ringfence_testkit::{Client, Engine, HostOptions, Market, on_both_engines};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::{host, host_with};

on_both_engines!(
    a_bot_asks_what_it_was_granted_and_nothing_else,
    no_grant_opens_what_the_operator_has_not_allowed
);

/// A server on loopback that says `hello` to everyone; its port.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        }
    });
    port
}

async fn fetch(client: &Client, key: &str, bot: &str, url: &str) -> Value {
    let input = json!({ "input": { "url": url } });
    client.post(&format!("/bots/{bot}/invoke"), key, &input).await.expect(200)
}

/// What was logged in a call.
async fn log(client: &Client, key: &str, bot: &str, invoked: &Value) -> String {
    let id = invoked["invocation_id"].as_str().unwrap();
    client.get(&format!("/bots/{bot}/invocations/{id}/logs"), key).await.expect(200)["lines"].to_string()
}

async fn a_bot_asks_what_it_was_granted_and_nothing_else(engine: Engine) {
    let args = vec!["--outbound-allow-networks".to_owned(), "127.0.0.1/32,10.0.0.0/8".to_owned()];
    let host = host_with(engine, HostOptions { args, ..HostOptions::default() }).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let port = server().await;
    let url = format!("http://127.0.0.1:{port}/");

    let bot = Market::deploy(&client, &ada, "fetch", json!({})).await;
    let denied = fetch(&client, &ada.key, &bot, &url).await;
    assert_eq!((&denied["outcome"], &denied["failure_code"]), (&json!("failed"), &json!("http_denied")));
    assert!(log(&client, &ada.key, &bot, &denied).await.contains("`http` was not granted"));

    let grants = json!({ "grants": { "http": { "hosts": [format!("127.0.0.1:{port}"), "127.0.0.2:*"] } } });
    let changed = client.patch(&format!("/bots/{bot}"), &ada.key, &grants).await.expect(200);
    assert_eq!(changed["grants"], grants["grants"]);
    let fetched = fetch(&client, &ada.key, &bot, &url).await;
    assert_eq!((&fetched["output"]["status"], &fetched["output"]["text"]), (&json!(200), &json!("hello")));
    assert!(fetched["usage"]["egress_sent_bytes"].as_u64().unwrap() > 0, "{fetched}");
    assert_eq!(fetched["usage"]["egress_received_bytes"], 43, "{fetched}");

    // Allowed by the operator and not granted; granted and not allowed.
    for (url, why) in [
        ("http://10.0.0.1/".to_owned(), "is not among the hosts that were granted"),
        (format!("http://127.0.0.2:{port}/"), "is at a loopback address"),
    ] {
        let refused = fetch(&client, &ada.key, &bot, &url).await;
        assert_eq!(refused["failure_code"], "http_denied", "{refused}");
        assert!(log(&client, &ada.key, &bot, &refused).await.contains(why), "{refused}");
    }
}

async fn no_grant_opens_what_the_operator_has_not_allowed(engine: Engine) {
    let host = host(engine).await;
    let client = host.client();
    let ada = Market::register(&client, "Ada").await;
    let grants = json!({ "grants": { "http": { "hosts": ["*:*"] } } });
    let bot = Market::deploy(&client, &ada, "fetch", grants).await;
    let port = server().await;
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        // The host's own API.
        format!("http://{}/health", host.address()),
    ] {
        let refused = fetch(&client, &ada.key, &bot, &url).await;
        assert_eq!(refused["failure_code"], "http_denied", "{url}: {refused}");
        assert_eq!(refused["usage"]["egress_sent_bytes"], 0, "{url}");
    }
}
