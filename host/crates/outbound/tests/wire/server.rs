//! Listeners on loopback that count who comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Accepts at this address, and gives each connection to `serve`.
    pub(crate) async fn at<F, Fut>(address: &str, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, connections }
    }

    /// Accepts on loopback, reads a request, and says this.
    pub(crate) async fn saying(response: impl Into<String>) -> Self {
        Self::saying_at("127.0.0.1:0", response).await
    }

    pub(crate) async fn saying_at(address: &str, response: impl Into<String>) -> Self {
        let response: Arc<str> = response.into().into();
        Self::at(address, move |mut stream| {
            let response = Arc::clone(&response);
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(response.as_bytes()).await;
            }
        })
        .await
    }

    /// Reads a request, says `first`, and then `again` for as long as somebody listens.
    pub(crate) async fn endless(first: &'static str, again: &'static str) -> Self {
        Self::at("127.0.0.1:0", move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(again.as_bytes()).await.is_ok() {}
        })
        .await
    }

    /// Reads a request, says this, and then nothing, without hanging up.
    pub(crate) async fn stalling(first: &'static str) -> Self {
        Self::at("127.0.0.1:0", move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            wait_for_end(&mut stream).await;
        })
        .await
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads up to the empty line, and answers what was read.
pub(crate) async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads until the other side hangs up.
pub(crate) async fn wait_for_end(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}
