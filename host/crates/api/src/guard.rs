//! What every request passes first: who asks, from where, and whether it is one too many. Nothing that costs much comes
//! before this.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use ringfence_control::{AuthenticationError, Caller, Counted, LimitGroup, LimitState, Limited, Origin};
use tower_http::request_id::RequestId;

use crate::serve::PeerAddress;
use crate::{App, Problem};

/// The caller of a request, proved by `Authorization: Bearer` and an API key or an access token.
pub(crate) struct Authenticated(pub(crate) Caller);

/// Where a request came from, whoever made it.
pub(crate) struct Asked(pub(crate) Origin);

/// Who made the request, in its extensions.
#[derive(Clone)]
struct Proved(Option<Arc<Caller>>);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = <Self as OptionalFromRequestParts<App>>::from_request_parts(parts, app).await?;
        caller.ok_or_else(|| {
            unauthorized("This needs a key or a token: send `Authorization: Bearer rf_live_…`, or log in.")
        })
    }
}

impl OptionalFromRequestParts<App> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Option<Self>, Problem> {
        let Some(Proved(caller)) = parts.extensions.get() else { return Ok(None) };
        Ok(caller.as_deref().cloned().map(Self))
    }
}

impl FromRequestParts<App> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<Origin>().cloned().unwrap_or_default()))
    }
}

/// Finds out who asks and counts the request.
pub(crate) async fn guard(app: &App, request: Request, next: Next) -> Response {
    // Whoever watches the host asks often and must always get an answer; it costs next to nothing.
    if request.uri().path() == "/health" {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let address = client_address(&parts, &app.config.trusted_proxies);
    let id = parts.extensions.get::<RequestId>();
    let request_id = id.and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
    let origin = Origin { request_id, address };
    match admit(app, &parts, &origin).await {
        Ok((caller, state)) => {
            parts.extensions.insert(origin);
            parts.extensions.insert(Proved(caller.map(Arc::new)));
            let mut response = next.run(Request::from_parts(parts, body)).await;
            if let Some(state) = state {
                tell(response.headers_mut(), &state);
            }
            response
        }
        Err(Refused::Limited(limited)) => {
            let mut response = Problem::from(limited).into_response();
            tell(response.headers_mut(), &limited.state);
            response
        }
        Err(Refused::Problem(problem)) => problem.into_response(),
    }
}

enum Refused {
    Limited(Limited),
    Problem(Problem),
}

impl From<Limited> for Refused {
    fn from(limited: Limited) -> Self {
        Self::Limited(limited)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn admit(
    app: &App,
    request: &Parts,
    origin: &Origin,
) -> Result<(Option<Caller>, Option<LimitState>), Refused> {
    let credential = match credential(&request.headers) {
        Ok(credential) => credential,
        Err(problem) => return Err(refuse(app, origin, problem).await),
    };
    let logs_in = matches!(request.uri.path(), "/api/v1/auth/login" | "/api/v1/auth/refresh");
    let Some(credential) = credential else {
        let group = if logs_in { LimitGroup::Logins } else { LimitGroup::Anonymous };
        return Ok((None, count(app, origin, group).await?));
    };
    // Whoever tries out keys is let to the database for few of them at a time.
    let known = app.control.remembers(credential);
    let failures = |address| app.control.exhausted(Counted::Address(address), LimitGroup::Failures);
    let turn = match origin.address.filter(|_| !known).and_then(failures) {
        Some(limited) => Some(app.control.suspects_turn().await.ok_or(limited)?),
        None => None,
    };
    let caller = app.control.authenticate(credential, origin.clone()).await;
    drop(turn);
    let caller = match caller {
        Ok(caller) => caller,
        Err(AuthenticationError::Internal(error)) => return Err(Problem::from(error).into()),
        Err(error) => return Err(refuse(app, origin, error.into()).await),
    };
    if logs_in {
        return Ok((Some(caller), count(app, origin, LimitGroup::Logins).await?));
    }
    let reads = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
    let group = if reads { LimitGroup::Reads } else { LimitGroup::Writes };
    let state = app.control.limit(Counted::Caller(&caller), group).await?;
    Ok((Some(caller), Some(state)))
}

/// What answers a credential that is not good: why, or, where too many came from, that.
async fn refuse(app: &App, origin: &Origin, problem: Problem) -> Refused {
    let Some(address) = origin.address else { return problem.into() };
    app.control.count_failure(address).await.map_or_else(Refused::from, |()| problem.into())
}

/// Counts a request by its address. Without one (in a test without a socket) there is nothing to count by.
async fn count(app: &App, origin: &Origin, group: LimitGroup) -> Result<Option<LimitState>, Limited> {
    match origin.address {
        Some(address) => app.control.limit(Counted::Address(address), group).await.map(Some),
        None => Ok(None),
    }
}

/// What stands behind `Authorization: Bearer`, if there is such a header.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthorized("There is more than one Authorization header. Send one."));
    }
    let credential = value.to_str().ok().and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
    });
    let wrong = || unauthorized("The Authorization header must be `Bearer` and a key or a token.");
    credential.map(Some).ok_or_else(wrong)
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

impl From<AuthenticationError> for Problem {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::Unknown => unauthorized(
                "This key or token is not valid. Check it for a typing error; a key may have been revoked or have \
                 expired, a session may have ended.",
            ),
            AuthenticationError::Expired => Self::new(
                StatusCode::UNAUTHORIZED,
                "token_expired",
                "The access token has expired. Get a new one with POST /api/v1/auth/refresh.",
            ),
            AuthenticationError::Internal(error) => error.into(),
        }
    }
}

/// The client's address: the socket's, unless that is a proxy's that the operator trusts. Then it is the last one that a
/// trusted proxy has written into `X-Forwarded-For`; what stands before that, anyone can have written.
fn client_address(request: &Parts, trusted: &[IpNet]) -> Option<IpAddr> {
    let PeerAddress(peer) = request.extensions.get()?;
    Some(behind_proxies(peer.ip().to_canonical(), &request.headers, trusted))
}

fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let hops = lines.iter().rev().flat_map(|line| {
        let hops: Vec<_> = line.to_str().unwrap_or_default().split(',').map(str::trim).collect();
        hops.into_iter().rev().map(str::to_owned).collect::<Vec<_>>()
    });
    let mut client = peer;
    for hop in hops {
        if !is_trusted(&client) {
            break;
        }
        let Some(address) = address(&hop) else { break };
        client = address;
    }
    client
}

/// An address as proxies write it: alone, with a port, in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let parsed =
        text.parse().ok().or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    parsed.or_else(bare).map(|address: IpAddr| address.to_canonical())
}

/// `RateLimit-Policy` and `RateLimit`, as the IETF's draft of RateLimit header fields for HTTP (10) has them.
fn tell(headers: &mut HeaderMap, state: &LimitState) {
    let (name, limit) = (state.group.as_str(), state.limit);
    let policy = format!("\"{name}\";q={limit};w=60");
    let left = format!("\"{name}\";r={};t={}", state.remaining, seconds(state.full_after));
    for (header, text) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HeaderName::from_static(header), value);
        }
    }
}

fn seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        behind_proxies(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        // Anyone can send the header.
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        // What the client has written stands before what the proxy has.
        assert_eq!(client("10.0.0.1", &["1.2.3.4, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 10.0.0.2"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["10.9.9.9, 198.51.100.1, 10.0.0.2"]), "198.51.100.1");
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, junk"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1, junk, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:8443"]), "198.51.100.1");
        assert_eq!(client("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("fd00::1", &["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(client("10.0.0.1", &["::ffff:198.51.100.1"]), "198.51.100.1");
    }
}
