use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use ringfence_control::{CheckView, ComponentError, ComponentView};
use ringfence_model::{BotId, Sha256};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::{PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::list::{Slice, list_answer};
use crate::upload::Uploads;
use crate::{App, Problem};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .routes(routes!(check))
        .routes(routes!(list))
        .routes(routes!(get))
}

impl From<ComponentError> for Problem {
    fn from(error: ComponentError) -> Self {
        match error {
            ComponentError::Invalid(error) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                error.code(),
                format!("Nothing was stored: {error}."),
            ),
            ComponentError::Busy { retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "compiler_busy",
                "All compilers are busy with other components. Nothing was stored; try again in a moment.",
            )
            .retry_after(retry_after),
            ComponentError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "component_not_found",
                "Your org has no component with this digest. Upload it with POST /api/v1/components.",
            ),
            ComponentError::Bot(error) => error.into(),
            ComponentError::OtherKind { expected, found } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "other_kind",
                format!(
                    "The component is of the kind `{}`, and the bot runs one of the kind `{}`. It could not be deployed there.",
                    found.as_str(),
                    expected.as_str()
                ),
            ),
            ComponentError::Denied(denied) => denied.into(),
            ComponentError::Internal(error) => error.into(),
        }
    }
}

list_answer!(
    /// Components, newest first.
    ComponentList { components: ComponentView }
);

/// Upload a component
///
/// It is validated and compiled before it is stored. The same bytes again answer with what is there (status 200).
#[utoipa::path(post, path = "/components", tag = "components", security(("token" = [])),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "The component's bytes"),
    responses(
        (status = 201, description = "Stored", body = ComponentView),
        (status = 200, description = "It was there already", body = ComponentView),
            (status = 413, description = "`body_too_large`", body = Problem),
        (status = 415, description = "`unsupported_media_type`", body = Problem),
        (status = 422, description = "`not_wasm`, `core_module`, `component_malformed`, `unknown_imports`, \
            `no_known_world`, …: what is wrong with the bytes; `compilation_limit`: compiling them took too much; nothing was stored", body = Problem),
        (status = 503, description = "`compiler_busy`, `uploads_busy`", body = Problem)
))]
async fn upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<(StatusCode, Json<ComponentView>), Problem> {
    let body = Uploads::read(&app, &caller, request).await?;
    let (control, who, wasm) = (app.control.clone(), caller.clone(), body.bytes.clone());
    let upload = detached(async move { control.begin_upload(&who, wasm).await }).await?;
    // Not detached: a client that hangs up takes its compiler with it. Nothing is stored by then.
    upload.prepare().await?;
    let control = app.control.clone();
    let store = async move { control.upload_component(&caller, body.bytes.clone()).await };
    let (stored, new) = detached(store).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(stored)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct CheckQuery {
    /// A bot of the org's: what it was granted is compared with what the component needs.
    #[param(value_type = Option<String>)]
    bot_id: Option<BotId>,
}

/// Check a component before uploading it
///
/// It is validated and compiled as by an upload, and nothing is stored. The answer says what it can use, and what would
/// have to be granted before it could be deployed: as the version to come of the bot that is named, or as a new bot.
#[utoipa::path(post, path = "/components/check", tag = "components", security(("token" = [])), params(CheckQuery),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "The component's bytes"),
    responses(
        (status = 200, description = "It could be uploaded", body = CheckView),
        (status = 404, description = "`bot_not_found`", body = Problem),
        (status = 413, description = "`body_too_large`", body = Problem),
        (status = 415, description = "`unsupported_media_type`", body = Problem),
        (status = 422, description = "What is wrong with the bytes, as for an upload; `other_kind`: the bot runs components \
            of the other kind; `invalid_query`", body = Problem),
        (status = 503, description = "`compiler_busy`, `uploads_busy`", body = Problem)
))]
async fn check(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<CheckQuery>,
    request: Request,
) -> Result<Json<CheckView>, Problem> {
    let body = Uploads::read(&app, &caller, request).await?;
    let (control, bot, wasm) = (app.control.clone(), query.bot_id, body.bytes.clone());
    let check = detached(async move { control.begin_check(&caller, wasm, bot.as_ref()).await }).await?;
    // Not detached: a client that hangs up takes its compiler with it.
    Ok(Json(check.run().await?))
}

/// Read about a component
#[utoipa::path(get, path = "/components/{digest}", tag = "components", security(("token" = [])),
    params(("digest" = String, Path, description = "`sha256:…`")), responses(
    (status = 200, body = ComponentView),
    (status = 404, description = "`component_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(digest): PathOf<Sha256>,
) -> Result<Json<ComponentView>, Problem> {
    Ok(Json(app.control.component(&caller, &digest).await?))
}

/// List the org's components
#[utoipa::path(get, path = "/components", tag = "components", security(("token" = [])), params(Slice), responses(
    (status = 200, body = ComponentList),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(slice): QueryOf<Slice>,
) -> Result<Json<ComponentList>, Problem> {
    let slice = slice.checked()?;
    Ok(ComponentList::new(app.control.components(&caller, slice.limit, slice.offset).await?, slice))
}
