use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{NewUser, UserChanges, UserError, UserView};
use ringfence_model::{OrgId, UserId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::list::{Slice, fifty, list_answer};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list).layer(config.small(FEW_FIELDS)))
        .routes(routes!(get, update, delete).layer(config.small(FEW_FIELDS)))
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Invalid(invalid) => invalid.into(),
            UserError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "user_not_found", "Your org has no user with this id.")
            }
            UserError::NoSuchOrg => {
                Self::new(StatusCode::NOT_FOUND, "org_not_found", "There is no org with this id.")
            }
            UserError::EmailTaken => Self::new(
                StatusCode::CONFLICT,
                "email_taken",
                "There is a user with this address. An address belongs to one user of one org.",
            ),
            UserError::LastAdmin => Self::new(
                StatusCode::CONFLICT,
                "last_admin",
                "This is the only admin of the org who can log in. Make another one first.",
            ),
            UserError::MoreThanYours => Self::new(
                StatusCode::FORBIDDEN,
                "more_than_yours",
                "The user has, or would have, a role that you do not have yourself. Ask an admin.",
            ),
            UserError::Crowded => super::auth::crowded(),
            UserError::Denied(denied) => denied.into(),
            UserError::Internal(error) => error.into(),
        }
    }
}

list_answer!(
    /// Users, oldest first.
    UserList { users: UserView }
);

/// Make a user
///
/// For admins: in their own org; for the operators' admins, in any org.
#[utoipa::path(post, path = "/users", tag = "accounts", security(("token" = [])), request_body = NewUser, responses(
    (status = 201, description = "Made", body = UserView),
    (status = 403, description = "`more_than_yours`", body = Problem),
    (status = 404, description = "`org_not_found`", body = Problem),
    (status = 409, description = "`email_taken`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    JsonBody(new): JsonBody<NewUser>,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    let control = app.control.clone();
    let made = detached(async move { control.create_user(&caller, new).await }).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UserQuery {
    /// Of which org; one's own if none is named.
    #[param(value_type = Option<String>)]
    org_id: Option<OrgId>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    offset: u32,
}

/// List the users of an org
#[utoipa::path(get, path = "/users", tag = "accounts", security(("token" = [])), params(UserQuery), responses(
    (status = 200, body = UserList),
    (status = 404, description = "`org_not_found`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<UserQuery>,
) -> Result<Json<UserList>, Problem> {
    let slice = Slice { limit: query.limit, offset: query.offset }.checked()?;
    let page = app.control.users(&caller, query.org_id.as_ref(), slice.limit, slice.offset).await?;
    Ok(UserList::new(page, slice))
}

/// Read about a user
#[utoipa::path(get, path = "/users/{user_id}", tag = "accounts", security(("token" = [])),
    params(("user_id" = String, Path, description = "`user_…`")), responses(
    (status = 200, body = UserView),
    (status = 404, description = "`user_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<UserId>,
) -> Result<Json<UserView>, Problem> {
    Ok(Json(app.control.user(&caller, &id).await?))
}

/// Change a user
///
/// When this answers, the new role or state counts on every host.
#[utoipa::path(patch, path = "/users/{user_id}", tag = "accounts", security(("token" = [])),
    params(("user_id" = String, Path, description = "`user_…`")), request_body = UserChanges, responses(
    (status = 200, description = "The changed user", body = UserView),
    (status = 403, description = "`more_than_yours`", body = Problem),
    (status = 404, description = "`user_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`last_admin`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn update(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<UserId>,
    JsonBody(changes): JsonBody<UserChanges>,
) -> Result<Json<UserView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.update_user(&caller, &id, changes).await }).await?))
}

/// Delete a user
///
/// Its sessions end and its address becomes free. What it did stays in the audit log.
#[utoipa::path(delete, path = "/users/{user_id}", tag = "accounts", security(("token" = [])),
    params(("user_id" = String, Path, description = "`user_…`")), responses(
    (status = 204, description = "Deleted"),
    (status = 404, description = "`user_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`last_admin`", body = Problem)
))]
async fn delete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<UserId>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.delete_user(&caller, &id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
