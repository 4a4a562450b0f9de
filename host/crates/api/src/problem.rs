use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringfence_control::{FieldError, IdempotencyError, Internal, Invalid, Limited};
use serde::Serialize;
use utoipa::ToSchema;

use crate::RETRY_AFTER;

/// What went wrong, as RFC 9457 has it, with a `code` for programs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`, or where the code is explained.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// Short and stable, for programs.
    #[schema(example = "job_not_funded")]
    code: &'static str,
    /// What happened, why, and what to do.
    detail: String,
    /// Names this request in the host's log.
    request_id: Option<String>,
    /// The fields that were not as they must be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// What happened inside: in development mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<String>,
    #[serde(skip)]
    retry_after: Option<std::time::Duration>,
}

impl Problem {
    /// A problem of this status, code and explanation.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            request_id: None,
            errors: Vec::new(),
            debug: None,
            retry_after: None,
        }
    }

    /// Says when trying again makes sense.
    #[must_use]
    pub(crate) fn retry_after(mut self, after: std::time::Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub(crate) fn with_request_id(mut self, id: Option<String>) -> Self {
        self.request_id = id;
        self
    }

    /// Leaves what is internal out, unless it may be shown.
    pub(crate) fn shown(mut self, dev_mode: bool) -> Self {
        if !dev_mode {
            self.debug = None;
        }
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ringfence\""));
        }
        if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
            // The rest of the body is not read, so the connection cannot be used again.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        // The outermost layer puts the request's id in.
        if self.request_id.is_none() {
            response.extensions_mut().insert(self);
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(Invalid(errors): Invalid) -> Self {
        let fields: Vec<_> =
            errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
        let detail = format!("The request has wrong values: {}.", fields.join("; "));
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", detail) }
    }
}

impl From<Internal> for Problem {
    fn from(error: Internal) -> Self {
        let mut chain = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(error = chain, "a use case failed");
        let mut problem = match error {
            Internal::Busy(_) | Internal::Unavailable => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database_busy",
                "The database was busy for too long; nothing was changed. Try again.",
            )
            .retry_after(RETRY_AFTER),
            Internal::Store(_)
            | Internal::Sandbox(_)
            | Internal::Invariant(_)
            | Internal::Policy(_)
            | Internal::Secret(_)
            | Internal::Document(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong on the host. Look whether it took effect before you repeat it, or repeat it under \
                 the same Idempotency-Key. The host's log has it under this request id.",
            ),
        };
        problem.debug = Some(chain);
        problem
    }
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        let (limit, group) = (limited.state.limit, limited.state.group.as_str());
        let detail = format!(
            "More than {limit} requests a minute of the kind `{group}`. Wait as Retry-After says, and ask less often."
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).retry_after(limited.retry_after)
    }
}

impl From<IdempotencyError> for Problem {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Mismatch => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used for a different request within the last 24 hours. Use a new key for \
                 a new request, or send the same request again.",
            ),
            IdempotencyError::Running => Self::new(
                StatusCode::CONFLICT,
                "idempotency_key_in_use",
                "A request with this Idempotency-Key is still running. Try again in a moment.",
            )
            .retry_after(RETRY_AFTER),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_body",
                format!("The body has not the shape that is expected: {}.", reason(&error)),
            ),
            JsonRejection::JsonSyntaxError(error) => Self::new(
                StatusCode::BAD_REQUEST,
                "malformed_json",
                format!("The body is not JSON: {}.", reason(&error)),
            ),
            JsonRejection::MissingJsonContentType(_) => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send the body with `Content-Type: application/json`.",
            ),
            other => Self::new(StatusCode::BAD_REQUEST, "unreadable_body", other.body_text()),
        }
    }
}

impl Problem {
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("The body is larger than the {limit} bytes that this host takes here."),
        )
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The body came too slowly, so nothing was done. Send the request again, on a new connection.",
        )
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let detail = format!("The query has a parameter that cannot be used: {}.", reason(&rejection));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", detail)
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_such_id",
            format!(
                "There is nothing under this path, because it has no proper id in it: {}.",
                reason(&rejection)
            ),
        )
    }
}

/// The innermost cause: the outer ones only say that something could not be read.
fn reason(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
