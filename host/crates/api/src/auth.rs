use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use ringfence_control::{AuthenticationError, Caller};

use crate::{App, Problem};

/// The caller of a request, proved by `Authorization: Bearer <API key>`.
pub(crate) struct Authenticated(pub(crate) Caller);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let value = parts.headers.get(header::AUTHORIZATION);
        let value = value
            .ok_or_else(|| unauthorized("This needs an API key: send `Authorization: Bearer rf_live_…`."))?;
        let key = value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let key =
            key.ok_or_else(|| unauthorized("The Authorization header must be `Bearer` and an API key."))?;
        match app.control.authenticate(key).await {
            Ok(caller) => Ok(Self(caller)),
            Err(AuthenticationError::Malformed | AuthenticationError::Unknown) => Err(unauthorized(
                "This API key is not valid. Check it for a typing error; it may have been revoked.",
            )),
            Err(AuthenticationError::Internal(error)) => Err(error.into()),
        }
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}
