use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ringfence_control::{NewSecret, SecretView};
use ringfence_model::BotId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, JsonBody, PathOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(set, delete).layer(config.small(FEW_FIELDS)))
}

/// A bot's secrets, by name.
#[derive(Serialize, ToSchema)]
struct SecretList {
    /// All of them, without their values.
    secrets: Vec<SecretView>,
}

/// List the names of a bot's secrets
///
/// Values are never shown.
#[utoipa::path(get, path = "/bots/{bot_id}/secrets", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`")), responses(
    (status = 200, body = SecretList),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(bot): PathOf<BotId>,
) -> Result<Json<SecretList>, Problem> {
    Ok(Json(SecretList { secrets: app.control.secrets(&caller, &bot).await? }))
}

/// Set a secret of a bot
///
/// The value is sealed and never shown again. The guest reads it if the name is among the bot's `grants.secrets`; calls that
/// begin after the answer get the new value.
#[utoipa::path(put, path = "/bots/{bot_id}/secrets/{name}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"),
        ("name" = String, Path, description = "1 to 64 letters, digits, `_`, `-` and `.`")),
    request_body = NewSecret, responses(
    (status = 204, description = "Set"),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`too_many_secrets`, `bot_terminated`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`", body = Problem)
))]
async fn set(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf((bot, name)): PathOf<(BotId, String)>,
    JsonBody(new): JsonBody<NewSecret>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.set_secret(&caller, &bot, &name, new).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a secret of a bot
#[utoipa::path(delete, path = "/bots/{bot_id}/secrets/{name}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), ("name" = String, Path, description = "Its name")),
    responses(
    (status = 204, description = "Removed"),
    (status = 404, description = "`bot_not_found`, `secret_not_found`, `no_such_id`", body = Problem)
))]
async fn delete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf((bot, name)): PathOf<(BotId, String)>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.delete_secret(&caller, &bot, &name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
