//! The listener: how many connections there are, how slow they may be, and how they end.
//!
//! Whatever a client does or leaves undone, what it holds here is bounded in number, in bytes and in time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tower::{Service, ServiceExt as _};
use tower_http::timeout::{DeadlineBody, TimeoutBody};

/// The largest request line with its headers, and what is buffered of a connection in either direction.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// What the system buffers of the answers on a connection. A socket counts as writable again when a third of its buffer is
/// free. So this says how much a client must take within the write timeout, and the system's own choice, up to some
/// megabytes, would cut off a client that reads steadily and slowly.
const SEND_BUFFER_BYTES: u32 = 128 << 10;

/// Connections that wait in the system to be accepted.
const BACKLOG: u32 = 1024;

/// How long a request's body may not get on at all.
const REQUEST_BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that has its last answer may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// How long no connection is accepted after accepting has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// What the connections of clients are held to.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections that may be open at a time. Others wait to be accepted.
    pub max_connections: usize,
    /// Connections that one client address may have open at a time. Others are closed at once.
    pub max_connections_per_address: usize,
    /// How long a request's headers may take to arrive, from when the connection is ready for them. So it is also how
    /// long a connection may be idle.
    pub request_header_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub request_body_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub response_write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_address: 256,
            request_header_timeout: Duration::from_secs(10),
            request_body_timeout: Duration::from_secs(120),
            response_write_timeout: Duration::from_secs(30),
        }
    }
}

/// The address that a request's connection comes from, in the request's extensions. Behind a proxy it is the proxy's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// Listens at an address, so that what is accepted has the buffers that [`serve`](crate::serve) counts on.
///
/// # Errors
/// If the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A host that is started again need not wait until the connections of the last one are forgotten. (Elsewhere it would
    // let another program listen at the same address.)
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What answers requests.
pub(crate) trait Answers:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Serves until `stop` is done. Then it accepts no more, closes what is idle, and returns when the rest has ended.
pub(crate) async fn serve(
    listener: TcpListener,
    service: impl Answers,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let clients = Clients::default();
    let http = http(&limits);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let (place, stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted?,
        };
        let Some(counted) = clients.count(peer, limits.max_connections_per_address) else {
            tracing::debug!(peer = %peer.0, "a connection is closed: its client has too many");
            continue;
        };
        let io = TokioIo::new(Socket::new(stream, limits.response_write_timeout));
        let service = service.clone().map_request(move |request| prepare(request, peer, &limits));
        let connection = connections.watch(http.serve_connection(io, TowerToHyperService::new(service)));
        tokio::spawn(async move {
            let _held = (place, counted);
            if let Err(error) = connection.await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(peer = %peer.0, error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

fn http(limits: &ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.request_header_timeout)
        // The buffer alone is no exact bound: it grows by doubling.
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    http
}

/// The next connection, once there is a place for one.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, PeerAddress)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // An answer is written in one piece; waiting for more to send would only delay it.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY cannot be set");
                }
                return Ok((place, stream, PeerAddress(peer)));
            }
            Err(error) if is_of_one_connection(&error) => {}
            // No file descriptors or memory are left, most likely. They come back when connections end; until then every
            // attempt would fail at once.
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether the connection that would have been accepted is over already. The listener has nothing to do with it.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says where a request comes from, and bounds the time that its body may take.
fn prepare(request: Request<Incoming>, peer: PeerAddress, limits: &ConnectionLimits) -> Request {
    let mut request = request.map(|body| {
        let steady = TimeoutBody::new(REQUEST_BODY_IDLE_TIMEOUT, body);
        Body::new(DeadlineBody::new(limits.request_body_timeout, steady))
    });
    request.extensions_mut().insert(peer);
    request
}

/// How many connections each client has.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Clients {
    /// Counts a connection until what is returned is dropped; `None` if its client has as many as it may have.
    fn count(&self, peer: PeerAddress, max_connections: usize) -> Option<Counted> {
        let client = client_of(peer.0.ip());
        let mut open = self.lock();
        let connections = open.entry(client).or_default();
        if *connections >= max_connections {
            return None;
        }
        *connections += 1;
        Some(Counted { clients: self.clone(), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    clients: Clients,
    client: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.clients.lock();
        if let Some(connections) = open.get_mut(&self.client) {
            *connections -= 1;
            if *connections == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// Whom an address counts for. Whoever has one IPv6 address has all of its /64 network.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A client's socket that does not wait for a client for ever.
///
/// Writing fails when the client takes nothing for too long. Shutting down lingers: closing a socket while something
/// unread arrives resets the connection, and a client that still sends would lose the answer that says why it is refused.
struct Socket {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs since this side was shut down.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self { stream, write_timeout, stalled: None, lingering: None }
    }

    /// What a write came to, or its timeout.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(timeout.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what the client still sends, and forgets it, until it has sent all or the time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeout = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut forgotten = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut forgotten);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client_and_an_ipv4_address_is_one_however_it_is_written() {
        let client = |address: &str| client_of(address.parse().unwrap());
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn a_client_gets_a_place_back_when_a_connection_ends() {
        let clients = Clients::default();
        let [ada, bob] = ["192.0.2.1:1", "192.0.2.2:1"].map(|peer| PeerAddress(peer.parse().unwrap()));
        let held = [clients.count(ada, 2), clients.count(ada, 2)];
        assert!(held.iter().all(Option::is_some) && clients.count(ada, 2).is_none());
        assert!(clients.count(bob, 2).is_some(), "another client has its own");
        drop(held);
        assert!(clients.count(ada, 2).is_some());
        assert!(clients.lock().is_empty(), "nothing is kept of clients that have left");
    }

    #[tokio::test]
    async fn a_handler_knows_the_peer_and_a_stop_closes_what_is_idle() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = |Extension(peer): Extension<PeerAddress>| async move { peer.0.to_string() };
        let router = Router::new().route("/", get(peer));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, router, ConnectionLimits::default(), async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap().to_string();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(&own) {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            assert_ne!(read, 0, "{answer}");
            answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        stop.send(()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "idle, so it is closed");
        drop(stream);
        tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
