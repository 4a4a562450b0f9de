use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{
    AuthenticationError, Denied, Login, PasswordChange, SessionError, TokensView, WhoAmI,
};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, NEXT_TO_NOTHING, OptionalBody};
use crate::detached::detached;
use crate::guard::{Asked, Authenticated};
use crate::{ApiConfig, App, Problem, RETRY_AFTER};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login).layer(config.small(FEW_FIELDS)))
        .routes(routes!(refresh).layer(config.small(FEW_FIELDS)))
        .routes(routes!(logout).layer(config.small(NEXT_TO_NOTHING)))
        .routes(routes!(password).layer(config.small(FEW_FIELDS)))
        .routes(routes!(me))
        .routes(routes!(rotate_signing_key).layer(config.small(NEXT_TO_NOTHING)))
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Invalid(invalid) => invalid.into(),
            SessionError::WrongCredentials => Self::new(
                StatusCode::UNAUTHORIZED,
                "wrong_credentials",
                "The address or the password is wrong, or the account cannot log in.",
            ),
            SessionError::BadRefreshToken => Self::new(
                StatusCode::UNAUTHORIZED,
                "invalid_refresh_token",
                "The refresh token is not valid: it has expired, or its session has ended. Log in again.",
            ),
            SessionError::Reused => Self::new(
                StatusCode::UNAUTHORIZED,
                "refresh_token_reused",
                "This refresh token was exchanged before. Somebody else may have it, so the session has been ended. Log \
                 in again.",
            ),
            SessionError::Limited(limited) => limited.into(),
            SessionError::Crowded => crowded(),
            SessionError::NotAUser => Self::new(
                StatusCode::FORBIDDEN,
                "users_only",
                "Only a user who has logged in has a session and a password. A key is revoked with DELETE /api/v1/keys/{key_id}.",
            ),
            SessionError::Denied(denied) => denied.into(),
            SessionError::Internal(error) => error.into(),
        }
    }
}

pub(super) fn crowded() -> Problem {
    let detail = "Too many passwords are being tested at this moment. Try again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "logins_busy", detail).retry_after(RETRY_AFTER)
}

/// Log in
///
/// A wrong password, an unknown address and a disabled account get the same answer, after the same time. An address and
/// an account each have a limit of logins a minute.
#[utoipa::path(post, path = "/auth/login", tag = "accounts", request_body = Login, responses(
    (status = 200, description = "Logged in", body = TokensView),
    (status = 401, description = "`wrong_credentials`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn login(
    State(app): State<App>,
    Asked(origin): Asked,
    JsonBody(login): JsonBody<Login>,
) -> Result<Json<TokensView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.log_in(login, &origin).await }).await?))
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Refresh {
    /// The token.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// Exchange a refresh token for a new pair of tokens
///
/// A refresh token can be exchanged once. If it comes a second time, the session is ended for whoever has it.
#[utoipa::path(post, path = "/auth/refresh", tag = "accounts", request_body = Refresh, responses(
    (status = 200, description = "A new pair", body = TokensView),
    (status = 401, description = "`invalid_refresh_token`, `refresh_token_reused`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn refresh(
    State(app): State<App>,
    Asked(origin): Asked,
    JsonBody(Refresh { refresh_token }): JsonBody<Refresh>,
) -> Result<Json<TokensView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.refresh(&refresh_token, &origin).await }).await?))
}

/// What to log out of.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Logout {
    /// All sessions of the user, not this one alone.
    #[serde(default)]
    everywhere: bool,
}

/// Log out
///
/// When this answers, the session's tokens are good nowhere.
#[utoipa::path(post, path = "/auth/logout", tag = "accounts", security(("token" = [])), request_body = Option<Logout>,
    responses(
    (status = 204, description = "Logged out"),
    (status = 403, description = "`users_only`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn logout(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OptionalBody(Logout { everywhere }): OptionalBody<Logout>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.log_out(&caller, everywhere).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change one's own password
///
/// All sessions of the user are ended, and a new one begins: the answer has its tokens.
#[utoipa::path(post, path = "/auth/password", tag = "accounts", security(("token" = [])), request_body = PasswordChange,
    responses(
    (status = 200, description = "Changed", body = TokensView),
    (status = 401, description = "`wrong_credentials`", body = Problem),
    (status = 403, description = "`users_only`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn password(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<Json<TokensView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.change_password(&caller, change).await }).await?))
}

/// Ask who one is
///
/// For every key and token: the agent, the service key or the user, with its org, role and scopes.
#[utoipa::path(get, path = "/auth/me", tag = "accounts", security(("token" = [])), responses(
    (status = 200, body = WhoAmI)
))]
async fn me(State(app): State<App>, Authenticated(caller): Authenticated) -> Result<Json<WhoAmI>, Problem> {
    Ok(Json(app.control.who_am_i(&caller).await?))
}

/// How the signing key is replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateSigningKey {
    /// Also forget the keys so far: what they have signed is good no more, and everybody has to log in again.
    #[serde(default)]
    forget_old: bool,
}

/// Sign tokens with a new key
///
/// For the operators' admins. Tokens that were signed before stay good. When this answers, every host signs with the new key.
#[utoipa::path(post, path = "/admin/signing-keys", tag = "accounts", security(("token" = [])),
    request_body = Option<RotateSigningKey>, responses(
    (status = 204, description = "Tokens are signed with a new key"),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn rotate_signing_key(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OptionalBody(RotateSigningKey { forget_old }): OptionalBody<RotateSigningKey>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.rotate_signing_key(&caller, forget_old).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let forbidden = |code, detail| Self::new(StatusCode::FORBIDDEN, code, detail);
        match denied {
            Denied::Gone => AuthenticationError::Unknown.into(),
            Denied::Scope { action, scope } => forbidden(
                "scope_missing",
                format!("This key lacks the scope `{scope}`, which `{action}` needs. Use a key that has it."),
            ),
            Denied::Role { action, platform_only: true, .. } => forbidden(
                "operator_only",
                format!(
                    "`{action}` is for the operators of this installation. Use an operator's key or login."
                ),
            ),
            Denied::Role { action, role, platform_only: false } => forbidden(
                "forbidden",
                format!("Your role, `{role}`, does not have `{action}` here. Ask an admin of your org."),
            ),
            Denied::Policy { action, policy } => forbidden(
                "forbidden_by_policy",
                format!("The policy `{policy}` of this installation's operators forbids `{action}` here."),
            ),
            Denied::Internal(error) => error.into(),
        }
    }
}
