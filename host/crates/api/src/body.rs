//! What is read from a request: JSON, paths and queries, each refused with a problem that says why.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::{Extension, Json};
use bytes::Bytes;
use ringfence_control::Idempotency;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutError;

use crate::{App, Problem, idempotency};

/// The largest body of a route that takes a few fields.
pub(crate) const FEW_FIELDS: usize = 64 << 10;
/// The largest body of a route that takes a bot, with its configuration.
pub(crate) const ONE_BOT: usize = 256 << 10;
/// The largest body of a route that takes next to nothing.
pub(crate) const NEXT_TO_NOTHING: usize = 1 << 10;

/// How many bytes a route's body may have.
#[derive(Clone, Copy)]
pub(crate) struct BodyLimit(usize);

/// Holds the body of a route to a number of bytes: it ends reading there, and its problem says the limit.
pub(crate) type BodyLayer = (Extension<BodyLimit>, DefaultBodyLimit);

/// The layer of a route whose body may have this many bytes.
pub(crate) fn at_most(bytes: usize) -> BodyLayer {
    (Extension(BodyLimit(bytes)), DefaultBodyLimit::max(bytes))
}

/// A JSON body.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (value, _) = read::<T>(request, app).await?;
        Ok(Self(value))
    }
}

/// A JSON body that may come with an `Idempotency-Key`.
pub(crate) struct OnceBody<T>(pub(crate) T, pub(crate) Option<Idempotency>);

impl<T: DeserializeOwned> FromRequest<App> for OnceBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let key = idempotency::key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (value, body) = read::<T>(request, app).await?;
        Ok(Self(value, key.map(|key| idempotency::of(key, &method, &path, &body))))
    }
}

/// An object without fields.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// No body is needed; there may be an `Idempotency-Key`, and a body of `{}` or nothing.
pub(crate) struct Once(pub(crate) Option<Idempotency>);

impl FromRequest<App> for Once {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let OptionalOnceBody(NoFields {}, once) = OptionalOnceBody::from_request(request, app).await?;
        Ok(Self(once))
    }
}

/// A JSON body that may be missing and may come with an `Idempotency-Key`.
pub(crate) struct OptionalOnceBody<T>(pub(crate) T, pub(crate) Option<Idempotency>);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalOnceBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let key = idempotency::key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = bytes(request, app).await?;
        let value = optional(&body)?;
        Ok(Self(value, key.map(|key| idempotency::of(key, &method, &path, &body))))
    }
}

/// A JSON body that may be missing.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let body = bytes(request, app).await?;
        Ok(Self(optional(&body)?))
    }
}

fn optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { parse(body) }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // The types would take an array, too: their fields in a row, without their names.
    if body.trim_ascii_start().starts_with(b"[") {
        let detail = "The body has not the shape that is expected: it is an array, not an object.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail));
    }
    Ok(Json::from_bytes(body).map_err(Problem::from)?.0)
}

async fn read<T: DeserializeOwned>(request: Request, app: &App) -> Result<(T, Bytes), Problem> {
    let json = request.headers().get(axum::http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let json = json.is_some_and(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    });
    if !json {
        return Err(JsonRejection::MissingJsonContentType(Default::default()).into());
    }
    let body = bytes(request, app).await?;
    Ok((parse(&body)?, body))
}

pub(crate) async fn bytes(request: Request, app: &App) -> Result<Bytes, Problem> {
    let limit = request.extensions().get().map_or(app.config.max_body_bytes, |&BodyLimit(bytes)| bytes);
    Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(limit),
        _ => unreadable(&rejection),
    })
}

/// A body that did not come to its end.
pub(crate) fn unreadable(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    if causes.any(|error| error.is::<TimeoutError>()) {
        return Problem::too_slow();
    }
    let detail = "The body could not be read to its end.";
    Problem::new(StatusCode::BAD_REQUEST, "unreadable_body", detail)
}

/// What stands in the path: ids. What is no id is 404, as is an id that does not exist.
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, app).await;
        Ok(Self(path?.0))
    }
}

/// What stands in the query.
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<App> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // PostgreSQL stores no U+0000, so nothing can be found by it.
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            let detail = "The query contains the character U+0000, which no value has.";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", detail));
        }
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, app).await;
        Ok(Self(query?.0))
    }
}
