use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ringfence_control::{Answer, Idempotency};
use ringfence_model::Sha256;
use serde::Serialize;

use crate::Problem;

/// The request's `Idempotency-Key`, if it has one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed_idempotency_key",
            "An Idempotency-Key has 1 to 255 visible ASCII characters. A random UUID is a good one.",
        )),
    }
}

/// The key, bound to what was asked under it.
pub(crate) fn of(key: String, method: &Method, path: &str, body: &[u8]) -> Idempotency {
    let mut request = format!("{method} {path}\n").into_bytes();
    request.extend_from_slice(body);
    Idempotency { key, request: Sha256::of(&request) }
}

/// The answer to a request that may have been replayed: the same status and body as then, and a header that says so.
pub(crate) fn answer<T: Serialize>(status: StatusCode, answer: Answer<T>) -> Response {
    match answer {
        Answer::New(value) => (status, Json(value)).into_response(),
        Answer::Replay(value) => (status, [("idempotency-replayed", "true")], Json(value)).into_response(),
    }
}
