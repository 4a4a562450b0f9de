use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{KeyError, KeyLimits, KeyView, MadeKey, NewKey, RotateKey};
use ringfence_model::{AgentId, ApiKeyId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, NEXT_TO_NOTHING, OptionalBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::list::{Slice, list_answer};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list).layer(config.small(FEW_FIELDS)))
        .routes(routes!(get, revoke).layer(config.small(NEXT_TO_NOTHING)))
        .routes(routes!(rotate).layer(config.small(NEXT_TO_NOTHING)))
        .routes(routes!(limit).layer(config.small(NEXT_TO_NOTHING)))
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(invalid) => invalid.into(),
            KeyError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "key_not_found", "Your org has no key with this id.")
            }
            KeyError::NoSuchAgent => {
                Self::new(StatusCode::NOT_FOUND, "agent_not_found", "Your org has no agent with this id.")
            }
            KeyError::NotYours => Self::new(
                StatusCode::FORBIDDEN,
                "not_your_agent",
                "An agent has to do with its own keys only. Use the API key of the agent that is meant.",
            ),
            KeyError::MoreThanYours => Self::new(
                StatusCode::FORBIDDEN,
                "more_than_yours",
                "The new key would have a role or a scope that you do not have yourself, or outlive yours. Ask for less, or ask an \
                 admin.",
            ),
            KeyError::TooMany => Self::new(
                StatusCode::CONFLICT,
                "too_many_keys",
                "The org has as many keys as it can. Revoke those that are not used any more.",
            ),
            KeyError::Denied(denied) => denied.into(),
            KeyError::Internal(error) => error.into(),
        }
    }
}

list_answer!(
    /// Keys, newest first.
    KeyList { keys: KeyView }
);

/// A new key, with its secret.
#[derive(Serialize, ToSchema)]
struct WithSecret {
    #[serde(flatten)]
    key: KeyView,
    /// The key. It is shown this once and cannot be had again: keep it.
    #[schema(example = "rf_live_…")]
    api_key: String,
}

impl From<MadeKey> for WithSecret {
    fn from(made: MadeKey) -> Self {
        Self { key: made.key, api_key: made.api_key.reveal().to_owned() }
    }
}

/// Make a key
///
/// A service key for a machine, with a role; or a further key of an agent, for example with fewer scopes. It is shown
/// this once.
#[utoipa::path(post, path = "/keys", tag = "keys", security(("token" = [])), request_body = NewKey, responses(
    (status = 201, description = "Made", body = WithSecret),
    (status = 403, description = "`not_your_agent`, `more_than_yours`", body = Problem),
    (status = 404, description = "`agent_not_found`", body = Problem),
    (status = 409, description = "`too_many_keys`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<(StatusCode, Json<WithSecret>), Problem> {
    let control = app.control.clone();
    let made = detached(async move { control.create_key(&caller, new).await }).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// List the org's keys
///
/// For an agent, its own.
#[utoipa::path(get, path = "/keys", tag = "keys", security(("token" = [])), params(Slice), responses(
    (status = 200, body = KeyList),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(slice): QueryOf<Slice>,
) -> Result<Json<KeyList>, Problem> {
    let slice = slice.checked()?;
    Ok(KeyList::new(app.control.keys(&caller, slice.limit, slice.offset).await?, slice))
}

/// Read about a key
#[utoipa::path(get, path = "/keys/{key_id}", tag = "keys", security(("token" = [])),
    params(("key_id" = String, Path, description = "`key_…`")), responses(
    (status = 200, body = KeyView),
    (status = 403, description = "`not_your_agent`", body = Problem),
    (status = 404, description = "`key_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<ApiKeyId>,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(app.control.key(&caller, &id).await?))
}

/// Revoke a key
///
/// When this answers, no host takes the key any more.
#[utoipa::path(delete, path = "/keys/{key_id}", tag = "keys", security(("token" = [])),
    params(("key_id" = String, Path, description = "`key_…`")), responses(
    (status = 204, description = "Revoked"),
    (status = 403, description = "`not_your_agent`", body = Problem),
    (status = 404, description = "`key_not_found`, `no_such_id`", body = Problem)
))]
async fn revoke(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.revoke_key(&caller, &id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replace an agent's key
///
/// The key that the call is made with; all keys of the agent if an admin of its org asks. The new one may be used for the
/// same. When this answers, no host takes the old one any more, unless it was given a grace.
#[utoipa::path(post, path = "/agents/{agent_id}/rotate-key", tag = "keys", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), request_body = Option<RotateKey>, responses(
    (status = 200, description = "The new key", body = WithSecret),
    (status = 403, description = "`not_your_agent`, `more_than_yours`", body = Problem),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn rotate(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
    OptionalBody(how): OptionalBody<RotateKey>,
) -> Result<Json<WithSecret>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.rotate_key(&caller, &id, how).await }).await?.into()))
}

/// Set a key's own rate limits
///
/// For operators: requests a minute that read, and that change something; `null` is the host's default.
#[utoipa::path(put, path = "/admin/keys/{key_id}/limits", tag = "keys", security(("token" = [])),
    params(("key_id" = String, Path, description = "`key_…`")), request_body = KeyLimits, responses(
    (status = 200, description = "The key", body = KeyView),
    (status = 404, description = "`key_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn limit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<ApiKeyId>,
    JsonBody(limits): JsonBody<KeyLimits>,
) -> Result<Json<KeyView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.limit_key(&caller, &id, limits).await }).await?))
}
