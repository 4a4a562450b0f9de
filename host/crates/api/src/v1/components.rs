use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use ringfence_control::{ComponentError, ComponentView};
use ringfence_model::Sha256;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{PathOf, QueryOf, at_most, bytes};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::list::{Slice, list_answer};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let upload = routes!(upload).layer(at_most(config.max_component_bytes));
    OpenApiRouter::new().routes(upload).routes(routes!(list)).routes(routes!(get))
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
        (status = 503, description = "`compiler_busy`", body = Problem)
))]
async fn upload(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<(StatusCode, Json<ComponentView>), Problem> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("application/wasm") {
        let detail = "Send the component's bytes with `Content-Type: application/wasm`.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let wasm = bytes(request, &app).await?;
    let (control, who, what) = (app.control.clone(), caller.clone(), wasm.clone());
    let upload = detached(async move { control.begin_upload(&who, what).await }).await?;
    // Not detached: a client that hangs up takes its compiler with it. Nothing is stored by then.
    upload.prepare().await?;
    let control = app.control.clone();
    let (stored, new) = detached(async move { control.upload_component(&caller, wasm).await }).await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(stored)))
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
