//! `wasi:http/outgoing-handler`: requests to the hosts that were granted, through the host's one outbound client.
//!
//! The interfaces link for every bot, for standard tool chains import them whether they are used or not. Without the grant
//! a request is denied when it is made.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use ringfence_model::OrgId;
use ringfence_outbound::{
    AllowedHosts, Limits, Outbound, OutboundError, Phase, Requester, ResponseBody, Traffic,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::bail;
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::{self, http::types};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::capability::Capabilities;
use crate::logs::{Level, Logs};
use crate::state::State;

/// The most requests that one call may have under way, of those that its org may have.
const MAX_REQUESTS: usize = 8;

/// The most that a guest's headers may take in the host's memory, for each `fields`.
const MAX_FIELDS_BYTES: usize = 32 << 10;

/// What a guest may write to a request's body at once. Two of these are kept for each body.
const BODY_CHUNK_BYTES: usize = 32 << 10;

/// Requests whose failure is logged. A guest that goes on is not to use up its log by it.
const MAX_LOGGED_FAILURES: u32 = 20;

/// Outbound HTTP, as it was granted.
#[derive(Clone, Debug)]
pub struct HttpGrant {
    /// The client of this host.
    pub client: Outbound,
    /// Among whose requests the guest's are counted.
    pub org: OrgId,
    /// Which hosts may be asked.
    pub hosts: Arc<AllowedHosts>,
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// For oracles: what the interfaces compute is there, and sending ends the guest. A request that fails would do so at a time
/// of its own, and the same submission would no longer cost the same fuel everywhere.
pub(crate) fn link_without_network(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let options = bindings::LinkOptions::default();
    types::add_to_linker::<_, WasiHttp>(linker, &(&options).into(), State::http)?;
    // The interface's only function; its types are those of the other one.
    linker.instance("wasi:http/outgoing-handler@0.2.12")?.func_new("handle", |_, _, _, _| {
        bail!(
            "`wasi:http/outgoing-handler#handle` was called, which is not granted: an oracle has no network"
        )
    })
}

/// One call's part: its grant, what it has under way and what went over the wire.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    capabilities: Arc<Capabilities>,
    traffic: Arc<Traffic>,
    under_way: Arc<Semaphore>,
    failures: Failures,
}

impl Http {
    pub(crate) fn new(capabilities: &Arc<Capabilities>, logs: &Logs) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELDS_BYTES);
        let hooks = Hooks {
            capabilities: Arc::clone(capabilities),
            traffic: Arc::default(),
            under_way: Arc::new(Semaphore::new(MAX_REQUESTS)),
            failures: Failures { logs: logs.clone(), logged: Arc::default() },
        };
        Self { context, hooks }
    }

    /// What went over the wire so far.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.hooks.traffic
    }
}

/// Every host function of `wasi:http` asks for its context exactly once, as those of WASI do.
impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.meter.count_host_call();
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    /// Also what the client would take out: a guest is told by an error, and not by its absence.
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| {
            DEFAULT_FORBIDDEN_HEADERS.contains(name)
                || [HeaderName::from_static("te"), HeaderName::from_static("trailer")].contains(name)
        })
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let Some(grant) = self.capabilities.http.clone() else {
            let host: String = request.uri().host().unwrap_or_default().chars().take(253).collect();
            self.failures.log(&format!("the request to `{host}` was denied: `http` was not granted"));
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else {
            self.failures.log(&format!("one call may have {MAX_REQUESTS} requests under way"));
            return Box::new(async { Err(Error::ConnectionLimitReached) });
        };
        let requester = Requester {
            org: grant.org,
            hosts: grant.hosts,
            limits: options.map(limits),
            traffic: Arc::clone(&self.traffic),
        };
        let failures = self.failures.clone();
        Box::new(async move {
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let response =
                grant.client.send(&requester, request).await.map_err(|error| failures.tell(&error))?;
            let body = response.map(|inner| GuestBody { inner, failures, _permit: permit }.boxed_unsync());
            let done: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
            Ok((body, done))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// What the guest itself asked for; the client lowers it to what the operator allows.
fn limits(options: RequestOptions) -> Limits {
    let lowest = Limits::unlimited();
    Limits {
        connect_timeout: options.connect_timeout.unwrap_or(lowest.connect_timeout),
        first_byte_timeout: options.first_byte_timeout.unwrap_or(lowest.first_byte_timeout),
        idle_timeout: options.between_bytes_timeout.unwrap_or(lowest.idle_timeout),
        ..lowest
    }
}

/// A response's body, with the guest's kind of errors.
struct GuestBody {
    inner: ResponseBody,
    failures: Failures,
    _permit: OwnedSemaphorePermit,
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(|error| self.failures.tell(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Says in the log why a request failed: the codes of `wasi:http` have no room for it.
#[derive(Clone)]
struct Failures {
    logs: Logs,
    logged: Arc<AtomicU32>,
}

impl Failures {
    fn log(&self, message: &str) {
        if self.logged.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED_FAILURES {
            // A log that is full ends the guest by itself.
            let _ = self.logs.write(Level::Warn, message.to_owned(), Vec::new());
        }
    }

    fn tell(&self, error: &OutboundError) -> Error {
        self.log(&error.to_string());
        code(error)
    }
}

/// The code of `wasi:http` that comes closest.
fn code(error: &OutboundError) -> Error {
    let bytes = |bytes: usize| u32::try_from(bytes).ok();
    match error {
        OutboundError::InvalidUrl { .. } => Error::HttpRequestUriInvalid,
        OutboundError::ConnectMethod => Error::HttpRequestMethodInvalid,
        OutboundError::HostNotGranted { .. } => Error::HttpRequestDenied,
        OutboundError::AddressRefused { .. } => Error::DestinationIpProhibited,
        OutboundError::TooMany { .. } => Error::ConnectionLimitReached,
        OutboundError::ResolveFailed { reason, .. } => {
            Error::DnsError { rcode: Some((*reason).to_owned()), info_code: None }
        }
        OutboundError::ConnectFailed { reason: std::io::ErrorKind::ConnectionRefused, .. } => {
            Error::ConnectionRefused
        }
        OutboundError::ConnectFailed { .. } => Error::DestinationUnavailable,
        OutboundError::Tls { .. } => Error::TlsCertificateError,
        OutboundError::TimedOut { phase: Phase::Connecting, .. } => Error::ConnectionTimeout,
        OutboundError::TimedOut { phase: Phase::FirstByte | Phase::Whole, .. } => Error::HttpResponseTimeout,
        OutboundError::TimedOut { phase: Phase::NextBytes, .. } => Error::ConnectionReadTimeout,
        OutboundError::RequestHeadersTooLarge { max_bytes, .. } => {
            Error::HttpRequestHeaderSectionSize(bytes(*max_bytes))
        }
        OutboundError::RequestBodyTooLarge { max_bytes } => Error::HttpRequestBodySize(Some(*max_bytes)),
        OutboundError::ResponseHeadersTooLarge { max_bytes, .. } => {
            Error::HttpResponseHeaderSectionSize(bytes(*max_bytes))
        }
        OutboundError::ResponseTooLarge { max_bytes, .. } => Error::HttpResponseBodySize(Some(*max_bytes)),
        OutboundError::ConnectionLost { .. } => Error::HttpResponseIncomplete,
        OutboundError::RequestBodyFailed | OutboundError::InvalidResponse { .. } => Error::HttpProtocolError,
    }
}
