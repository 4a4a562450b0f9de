//! The HTTP interface: routes, problem responses, OpenAPI.
//!
//! A file an aggregate under `v1`, and in it what its endpoints take and give. What a use case may and does
//! stands in `control`; here is only how it looks over HTTP. This crate knows neither the database nor the sandbox.

mod body;
mod detached;
mod docs;
mod guard;
mod idempotency;
mod linger;
mod list;
mod problem;
mod serve;
mod upload;
mod v1;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use ringfence_control::Control;
use serve::Answers;
use tower::ServiceBuilder;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

pub use docs::openapi;
pub use problem::Problem;
pub use serve::{ConnectionLimits, listen};

/// How the API is served.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Development: every answer says so, and internal errors are shown to the client.
    pub dev_mode: bool,
    /// The largest component that is taken, in bytes.
    pub max_component_bytes: usize,
    /// The largest JSON body that is taken, in bytes. Routes that need little take less.
    pub max_body_bytes: usize,
    /// The networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How many connections there may be, and how slow they may be.
    pub connections: ConnectionLimits,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            dev_mode: false,
            max_component_bytes: 64 << 20,
            max_body_bytes: 4 << 20,
            trusted_proxies: Vec::new(),
            connections: ConnectionLimits::default(),
        }
    }
}

impl ApiConfig {
    /// The layer of a route that takes little: never more than any JSON body may have.
    fn small(&self, bytes: usize) -> body::BodyLayer {
        body::at_most(bytes.min(self.max_body_bytes))
    }
}

/// What every handler may use.
#[derive(Clone)]
struct App(Arc<Inner>);

struct Inner {
    control: Control,
    config: ApiConfig,
    uploads: upload::Uploads,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// All routes, and what every request passes on the way to them. This lies around the router and not in its layers, which
/// would be boxed, and cloned with each request, one by one.
fn service(control: Control, config: ApiConfig) -> impl Answers {
    let app = App(Arc::new(Inner { control, config, uploads: upload::Uploads::default() }));
    let (routes, document) = docs::routes(&app.config).split_for_parts();
    let router = routes
        .merge(docs::pages(document))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "no_such_route", "There is nothing at this path.")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path does not take this method.",
            )
        })
        .with_state(app.clone());
    let id = HeaderName::from_static("x-request-id");
    ServiceBuilder::new()
        .map_request(short_request_id)
        .layer(SetRequestIdLayer::new(id.clone(), NewRequestId(app.control.clone())))
        .layer(PropagateRequestIdLayer::new(id))
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(middleware::from_fn_with_state(app, pass))
        .service(router)
}

/// Serves the API until `stop` is done, then ends what has begun. [`listen`] makes the listener.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    control: Control,
    config: ApiConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let limits = config.connections;
    let following = control.clone();
    let stop = async move {
        stop.await;
        // They would go on for an hour.
        following.stop_following();
    };
    serve::serve(listener, service(control, config), limits, stop).await
}

/// What every request passes, and what every answer carries: the request id inside a problem, and the warning of development
/// mode.
async fn pass(State(app): State<App>, request: Request, next: Next) -> Response {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok().map(str::to_owned));
    let mut request = linger::linger(request);
    // Routes that take less, or more, say so themselves.
    DefaultBodyLimit::max(app.config.max_body_bytes).apply(&mut request);
    let mut response = if is_too_long(request.uri()) {
        let detail = format!("The path and query are longer than {MAX_URI_BYTES} bytes.");
        Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail).into_response()
    } else {
        guard::guard(&app, request, next).await
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let headers = std::mem::take(response.headers_mut());
        response = problem.with_request_id(id).shown(app.config.dev_mode).into_response();
        // What was put on it since it was made, such as what is left of a limit.
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH && !response.headers().contains_key(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if app.config.dev_mode {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-dev-mode"), HeaderValue::from_static("true"));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether no route needs a URL of this length: it would stand in logs and be searched for parameters.
fn is_too_long(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|path| path.as_str().len() > MAX_URI_BYTES)
}

fn span(request: &Request) -> tracing::Span {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}

/// Drops a client's request id that is too long or not plain: it will stand in logs.
fn short_request_id(mut request: Request) -> Request {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let headers = request.headers_mut();
    if headers
        .get("x-request-id")
        .is_some_and(|id| id.len() > 64 || id.is_empty() || !id.as_bytes().iter().all(plain))
    {
        headers.remove("x-request-id");
    }
    request
}

/// Request ids that are made here: 128 random bits.
#[derive(Clone)]
struct NewRequestId(Control);

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&self.0.request_id()).ok().map(RequestId::new)
    }
}

/// The longest path with its query.
const MAX_URI_BYTES: usize = 8 << 10;

/// How long a client is told to wait where nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);
