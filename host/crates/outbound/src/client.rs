//! The client: one request, one connection.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ringfence_model::OrgId;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::body::{Failure, LimitedBody, RequestBody, ResponseBody, full};
use crate::config::{Limits, OutboundConfig};
use crate::connect::{self, Connection};
use crate::error::{OutboundError, Phase, SetupError};
use crate::grant::AllowedHosts;
use crate::headers;
use crate::permits::{Permit, Permits};
use crate::policy::{AddressPolicy, Admitted};
use crate::resolve::Resolver;
use crate::target::Target;
use crate::traffic::Traffic;

/// The least that hyper reads into.
const MIN_BUFFER_BYTES: usize = 8 * 1024;

/// Who asks, and what is theirs: given with each request.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Whose requests this one is counted among.
    pub org: OrgId,
    /// The hosts that were granted.
    pub hosts: Arc<AllowedHosts>,
    /// What the request may take, where that is less than the client's own limits.
    pub limits: Option<Limits>,
    /// Where its bytes are counted.
    pub traffic: Arc<Traffic>,
}

impl Origin {
    /// An org that may ask these hosts, within the client's limits.
    pub fn new(org: OrgId, hosts: AllowedHosts) -> Self {
        Self { org, hosts: Arc::new(hosts), limits: None, traffic: Arc::default() }
    }
}

/// The one HTTP client that leaves the house. Clones are the same client.
///
/// It follows no redirects, knows no proxies and no cookies, and keeps no connections: each request is resolved, judged and
/// connected by itself.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    policy: AddressPolicy,
    resolver: Resolver,
    tls: TlsConnector,
    permits: Arc<Permits>,
    limits: Limits,
}

impl Outbound {
    /// A client of this configuration. Does nothing on the network yet.
    ///
    /// # Errors
    /// [`SetupError`] if the certificates, or the system's resolver configuration, cannot be read.
    pub fn new(config: &OutboundConfig) -> Result<Self, SetupError> {
        Ok(Self(Arc::new(Inner {
            policy: AddressPolicy::new(config.allow_networks.clone()),
            resolver: Resolver::new(&config.name_servers)?,
            tls: connect::tls(&config.extra_roots_pem)?,
            permits: Arc::new(Permits::new(config.max_requests, config.max_requests_per_org)),
            limits: config.limits.clone(),
        })))
    }

    /// Sends a request, and answers when the response's status and headers are there. Its body comes while it is read.
    ///
    /// Headers that belong to a connection are taken out on both ways, `Host` is what the URL says, and the response is what
    /// the server said, redirects and errors included. A GET or HEAD request has a body only if its length is known. Dropping the future, or the body, ends the request.
    ///
    /// # Errors
    /// [`OutboundError`], before anything was sent if the URL, the grant, the policy or the limits are against it.
    pub async fn send(
        &self,
        origin: &Origin,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, OutboundError> {
        let own = &self.0.limits;
        let limits = origin.limits.as_ref().map_or_else(|| own.clone(), |limits| own.at_most(limits));
        let target = Target::of(request.uri())?;
        let (request, failure) = prepare(request, &target, &limits)?;
        origin.hosts.permit(&target)?;
        let permit = self.0.permits.take(&origin.org)?;
        let deadline = Instant::now() + limits.total_timeout;
        let host = target.authority();
        let exchange = Exchange { client: &self.0, origin, target, host, limits, failure, deadline };
        match timeout_at(deadline, exchange.run(request, permit)).await {
            Ok(response) => response,
            Err(_) => Err(exchange.timed_out(Phase::Whole, exchange.limits.total_timeout)),
        }
    }

    /// Whether a request to this URL would be let through now: for a URL that is used later, such as a webhook's. Asks
    /// name servers and connects to nothing.
    ///
    /// # Errors
    /// As [`Outbound::send`], up to the connection.
    pub async fn check(&self, hosts: &AllowedHosts, uri: &Uri) -> Result<(), OutboundError> {
        let target = Target::of(uri)?;
        hosts.permit(&target)?;
        let limit = self.0.limits.connect_timeout;
        let addresses = self.0.addresses(&target);
        timeout_at(Instant::now() + limit, addresses)
            .await
            .map_err(|_| OutboundError::TimedOut {
                host: target.authority(),
                phase: Phase::Connecting,
                limit,
            })?
            .map(drop)
    }
}

impl Inner {
    /// The addresses of a host. If one of them must not be connected to, none may: a name that points at an internal
    /// address beside its public ones was made to do so.
    async fn addresses(&self, target: &Target) -> Result<Vec<Admitted>, OutboundError> {
        let found = match target.literal() {
            Some(address) => vec![address],
            None => self.resolver.addresses(&target.host.to_string()).await?,
        };
        let refused = |class| {
            let host = target.authority();
            tracing::debug!(host, class = %class, "an address was refused");
            OutboundError::AddressRefused { host, class }
        };
        found
            .into_iter()
            .map(|address| self.policy.admit((address, target.port).into()).map_err(refused))
            .collect()
    }
}

/// One request, from the permit to the response's headers.
struct Exchange<'a> {
    client: &'a Inner,
    origin: &'a Origin,
    target: Target,
    /// The target's, for errors.
    host: String,
    limits: Limits,
    failure: Arc<Failure>,
    deadline: Instant,
}

impl Exchange<'_> {
    async fn run(
        &self,
        request: Request<LimitedBody>,
        permit: Permit,
    ) -> Result<Response<ResponseBody>, OutboundError> {
        let limit = self.limits.connect_timeout;
        let connected_by = Instant::now() + limit;
        let connection = timeout_at(connected_by, self.connect(connected_by))
            .await
            .map_err(|_| self.timed_out(Phase::Connecting, limit))??;

        let limit = self.limits.first_byte_timeout;
        let talking = talk(connection, request, &self.limits);
        let (response, connection) = timeout_at(Instant::now() + limit, talking)
            .await
            .map_err(|_| self.timed_out(Phase::FirstByte, limit))?
            .map_err(|error| self.failed(&error))?;

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.invalid("it switches to another protocol"));
        }
        let (mut parts, incoming) = response.into_parts();
        headers::strip(&mut parts.headers);
        parts.extensions.clear();
        let (host, failure) = (self.host.clone(), Arc::clone(&self.failure));
        let body =
            ResponseBody::new(incoming, host, &self.limits, self.deadline, failure, (connection, permit))?;
        Ok(Response::from_parts(parts, body))
    }

    async fn connect(&self, deadline: Instant) -> Result<Box<dyn Connection>, OutboundError> {
        let addresses = self.client.addresses(&self.target).await?;
        let traffic = Arc::clone(&self.origin.traffic);
        connect::connect(&self.target, &addresses, deadline, traffic, &self.client.tls).await
    }

    fn failed(&self, error: &hyper::Error) -> OutboundError {
        if let Some(first) = self.failure.get() {
            return first.clone();
        }
        let host = self.host.clone();
        tracing::debug!(host, error = %error, "a request had no response");
        if error.is_parse_too_large() {
            let (max_bytes, max_count) = (self.limits.response_header_bytes, self.limits.headers);
            OutboundError::ResponseHeadersTooLarge { host, max_bytes, max_count }
        } else if error.is_parse() {
            self.invalid("it is not HTTP/1.1")
        } else {
            OutboundError::ConnectionLost { host }
        }
    }

    fn timed_out(&self, phase: Phase, limit: Duration) -> OutboundError {
        OutboundError::TimedOut { host: self.host.clone(), phase, limit }
    }

    fn invalid(&self, reason: &'static str) -> OutboundError {
        OutboundError::InvalidResponse { host: self.host.clone(), reason }
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

/// A request whose body is JSON.
///
/// # Errors
/// [`OutboundError::RequestBodyFailed`] if the value cannot be written as JSON.
pub fn json_request(
    method: Method,
    uri: Uri,
    value: &impl Serialize,
) -> Result<Request<RequestBody>, OutboundError> {
    let json = serde_json::to_vec(value).map_err(|_| OutboundError::RequestBodyFailed)?;
    let mut request = Request::new(full(json));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// The request as it goes over the wire: in origin form, its headers and its body bounded.
fn prepare(
    request: Request<RequestBody>,
    target: &Target,
    limits: &Limits,
) -> Result<(Request<LimitedBody>, Arc<Failure>), OutboundError> {
    let (mut parts, inner) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(OutboundError::ConnectMethod);
    }
    let path = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    headers::bound(path.len(), &parts.headers, limits)?;
    parts.uri = path.parse().map_err(|_| OutboundError::InvalidUrl { reason: "its path is not valid" })?;
    if parts.uri.authority().is_some() {
        return Err(OutboundError::InvalidUrl { reason: "its path is not valid" });
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    headers::prepare(&mut parts.headers, target, &inner.size_hint())?;
    let max_bytes = limits.request_body_bytes;
    if inner.size_hint().lower() > max_bytes {
        return Err(OutboundError::RequestBodyTooLarge { max_bytes });
    }
    let failure = Arc::<Failure>::default();
    let body = LimitedBody { inner, left: max_bytes, max_bytes, failure: Arc::clone(&failure) };
    Ok((Request::from_parts(parts, body), failure))
}

/// HTTP/1.1 over the connection, up to the response's headers. The task drives the connection until it is dropped.
async fn talk(
    connection: Box<dyn Connection>,
    request: Request<LimitedBody>,
    limits: &Limits,
) -> Result<(Response<hyper::body::Incoming>, AbortOnDropHandle<()>), hyper::Error> {
    let mut http = http1::Builder::new();
    http.max_buf_size(limits.response_header_bytes.max(MIN_BUFFER_BYTES))
        .max_header_size(limits.response_header_bytes)
        .max_headers(limits.headers);
    let (mut sender, connection) = http.handshake(TokioIo::new(connection)).await?;
    // How it ends, the sender and the body are told.
    let connection = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
    let response = sender.send_request(request).await?;
    Ok((response, connection))
}
