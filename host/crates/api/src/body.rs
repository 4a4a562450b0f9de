//! What is read from a request: JSON, paths and queries, each refused with a problem that says why.

use std::error::Error as _;

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use ringfence_control::Idempotency;
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutError;

use crate::{App, Problem, idempotency};

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

/// No body is needed; there may be an `Idempotency-Key`, and a body of `{}` or nothing.
pub(crate) struct Once(pub(crate) Option<Idempotency>);

impl FromRequest<App> for Once {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let key = idempotency::key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let body = bytes(request, app).await?;
        Ok(Self(key.map(|key| idempotency::of(key, &method, &path, &body))))
    }
}

/// A JSON body that may be missing.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let body = bytes(request, app).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        Ok(Self(Json::from_bytes(&body).map_err(Problem::from)?.0))
    }
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
    Ok((Json::from_bytes(&body).map_err(Problem::from)?.0, body))
}

pub(crate) async fn bytes(request: Request, app: &App) -> Result<Bytes, Problem> {
    Bytes::from_request(request, app).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(),
        _ if timed_out(&rejection) => Problem::too_slow(),
        status => Problem::new(status, "unreadable_body", "The body could not be read to its end."),
    })
}

fn timed_out(rejection: &BytesRejection) -> bool {
    std::iter::successors(rejection.source(), |&error| error.source()).any(|error| error.is::<TimeoutError>())
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
