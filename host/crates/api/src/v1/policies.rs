use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ringfence_control::{BadPolicy, NewPolicy, PolicyChanges, PolicyError, PolicyView, policy_schema};
use ringfence_model::PolicyId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, PathOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list).layer(config.small(FEW_FIELDS)))
        .routes(routes!(get, update, delete).layer(config.small(FEW_FIELDS)))
        .routes(routes!(schema))
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Invalid(invalid) => invalid.into(),
            PolicyError::Bad(BadPolicy(reason)) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_policy",
                format!(
                    "Nothing was changed: {reason}. What policies can speak of is at GET /api/v1/admin/policy-schema."
                ),
            ),
            PolicyError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "policy_not_found", "There is no policy with this id.")
            }
            PolicyError::NameTaken => Self::new(
                StatusCode::CONFLICT,
                "policy_name_taken",
                "There is a policy of this name. Choose another one, or change that policy.",
            ),
            PolicyError::TooMany => Self::new(
                StatusCode::CONFLICT,
                "too_many_policies",
                "There are as many policies as there can be. Remove or join some.",
            ),
            PolicyError::Denied(denied) => denied.into(),
            PolicyError::Internal(error) => error.into(),
        }
    }
}

/// The policies, by name.
#[derive(Serialize, ToSchema)]
struct PolicyList {
    /// All of them.
    policies: Vec<PolicyView>,
}

/// Add a policy
///
/// For the operators' admins. The text is validated before it counts; when this answers, every host goes by it. It can
/// forbid what the permission matrix permits, and permit within an org what the matrix does not; the fence between orgs
/// it cannot open.
#[utoipa::path(post, path = "/admin/policies", tag = "policies", security(("token" = [])), request_body = NewPolicy,
    responses(
    (status = 201, description = "Added", body = PolicyView),
    (status = 409, description = "`policy_name_taken`, `too_many_policies`", body = Problem),
    (status = 422, description = "`invalid_policy`, `invalid_fields`, `invalid_body`", body = Problem)
))]
async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewPolicy>,
) -> Result<(StatusCode, Json<PolicyView>), Problem> {
    let control = app.control.clone();
    let made = detached(async move { control.create_policy(&caller, new).await }).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// List the policies
#[utoipa::path(get, path = "/admin/policies", tag = "policies", security(("token" = [])), responses(
    (status = 200, body = PolicyList)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
) -> Result<Json<PolicyList>, Problem> {
    Ok(Json(PolicyList { policies: app.control.policies(&caller).await? }))
}

/// Read a policy
#[utoipa::path(get, path = "/admin/policies/{policy_id}", tag = "policies", security(("token" = [])),
    params(("policy_id" = String, Path, description = "`policy_…`")), responses(
    (status = 200, body = PolicyView),
    (status = 404, description = "`policy_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<PolicyId>,
) -> Result<Json<PolicyView>, Problem> {
    Ok(Json(app.control.policy(&caller, &id).await?))
}

/// Change a policy
#[utoipa::path(patch, path = "/admin/policies/{policy_id}", tag = "policies", security(("token" = [])),
    params(("policy_id" = String, Path, description = "`policy_…`")), request_body = PolicyChanges, responses(
    (status = 200, description = "The changed policy", body = PolicyView),
    (status = 404, description = "`policy_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`policy_name_taken`", body = Problem),
    (status = 422, description = "`invalid_policy`, `invalid_fields`, `invalid_body`", body = Problem)
))]
async fn update(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<PolicyId>,
    JsonBody(changes): JsonBody<PolicyChanges>,
) -> Result<Json<PolicyView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.update_policy(&caller, &id, changes).await }).await?))
}

/// Remove a policy
#[utoipa::path(delete, path = "/admin/policies/{policy_id}", tag = "policies", security(("token" = [])),
    params(("policy_id" = String, Path, description = "`policy_…`")), responses(
    (status = 204, description = "Removed"),
    (status = 404, description = "`policy_not_found`, `no_such_id`", body = Problem)
))]
async fn delete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<PolicyId>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.delete_policy(&caller, &id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read what policies can speak of
///
/// The Cedar schema: the actions of the permission matrix, and the attributes of callers, resources and requests.
#[utoipa::path(get, path = "/admin/policy-schema", tag = "policies", security(("token" = [])), responses(
    (status = 200, description = "A Cedar schema", body = String, content_type = "text/plain")
))]
async fn schema(State(app): State<App>, Authenticated(caller): Authenticated) -> Result<Response, Problem> {
    app.control.policies(&caller).await?;
    Ok(policy_schema().into_response())
}
