use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{AccountError, AgentChanges, AgentView, NewAgent};
use ringfence_model::AgentId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, PathOf};
use crate::detached::detached;
use crate::guard::{Asked, Authenticated};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let small = config.small(FEW_FIELDS);
    OpenApiRouter::new().routes(routes!(register).layer(small)).routes(routes!(get, update).layer(small))
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Invalid(invalid) => invalid.into(),
            AccountError::Wallet(error) => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_wallet", format!("`wallet_address`: {error}."))
            }
            AccountError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "agent_not_found", "There is no agent with this id.")
            }
            AccountError::NotYours => Self::new(
                StatusCode::FORBIDDEN,
                "not_your_agent",
                "An agent can change its own profile only. Use the API key of the agent that is named in the path.",
            ),
            AccountError::Denied(denied) => denied.into(),
            AccountError::Internal(error) => error.into(),
        }
    }
}

/// A new agent and its key.
#[derive(Serialize, ToSchema)]
struct Registered {
    #[serde(flatten)]
    agent: AgentView,
    /// The key. It is shown this once and cannot be had again: keep it.
    #[schema(example = "rf_live_…")]
    api_key: String,
    /// What the new agent should know.
    warnings: Vec<String>,
}

/// Register an agent
///
/// Anyone may: without a credential the agent gets an org of its own. An admin registers it in its own org; by a service
/// key with few scopes, the agent's key gets no others. The API key is shown this once.
#[utoipa::path(post, path = "/agents", tag = "agents", security((), ("token" = [])), request_body = NewAgent, responses(
    (status = 201, description = "Registered", body = Registered),
    (status = 400, description = "`invalid_wallet`, `malformed_json`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn register(
    State(app): State<App>,
    caller: Option<Authenticated>,
    Asked(origin): Asked,
    JsonBody(new): JsonBody<NewAgent>,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    let control = app.control.clone();
    let caller = caller.map(|Authenticated(caller)| caller);
    let registered =
        detached(async move { control.register_agent(caller.as_ref(), &origin, new).await }).await?;
    let answer = Registered {
        agent: registered.agent,
        api_key: registered.api_key.reveal().to_owned(),
        warnings: registered.warnings,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Read an agent's profile
///
/// The agent itself sees all of it, others the public part.
#[utoipa::path(get, path = "/agents/{agent_id}", tag = "agents", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), responses(
    (status = 200, body = AgentView),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
) -> Result<Json<AgentView>, Problem> {
    Ok(Json(app.control.agent(&caller, &id).await?))
}

/// Change one's own profile
#[utoipa::path(patch, path = "/agents/{agent_id}", tag = "agents", security(("token" = [])),
    params(("agent_id" = String, Path, description = "`agent_…`")), request_body = AgentChanges, responses(
    (status = 200, description = "The changed profile", body = AgentView),
    (status = 400, description = "`invalid_wallet`, `malformed_json`", body = Problem),
    (status = 403, description = "`not_your_agent`", body = Problem),
    (status = 404, description = "`agent_not_found`, `no_such_id`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn update(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<AgentId>,
    JsonBody(changes): JsonBody<AgentChanges>,
) -> Result<Json<AgentView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.update_agent(&caller, &id, changes).await }).await?))
}
