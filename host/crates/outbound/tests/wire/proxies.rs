//! What the environment says about proxies is not for this client.

use tokio::process::Command;

use crate::names::Names;
use crate::server::Server;
use crate::{anyone, ask, client};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn proxies_in_the_environment_are_ignored() {
    let (proxy, server) = (Server::saying(OK).await, Server::saying(OK).await);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "proxies::asks_from_a_child_process"]).env("ASK", server.url());
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, proxy.url());
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = child.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((proxy.connections(), server.connections()), (0, 1));
}

#[tokio::test]
#[ignore = "is run by the test above, in an environment of its own"]
async fn asks_from_a_child_process() {
    let names = Names::serve(&[]).await;
    let url = std::env::var("ASK").unwrap();
    let response = ask(&client(&["127.0.0.0/8"], &names), &anyone(), &url).await.unwrap();
    assert_eq!(response.into_body().bytes(10).await.unwrap(), "ok");
}
