//! The OpenAPI document, made of the handlers themselves, and its page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::{ApiConfig, App, v1};

const PROBLEM_JSON: &str = "application/problem+json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringfence",
        description = "Runs other people's bots inside WebAssembly sandboxes and pays for their results.\n\n\
            Every call but registration, login, health and these documents needs `Authorization: Bearer` and an API \
            key or an access token. \
            Errors are `application/problem+json` (RFC 9457) with a stable `code`. Money is a decimal string in USDC \
            with six places, times are RFC 3339 in UTC. A POST that creates or moves money takes an \
            `Idempotency-Key`: sent again within 24 hours with the same body it answers what it answered, with \
            `Idempotency-Replayed: true`."
    ),
    modifiers(&Bearer),
    tags(
        (name = "agents", description = "Market identities and their API keys"),
        (name = "components", description = "WebAssembly components, under their digests"),
        (name = "bots", description = "Deployments of components, calls to them, and what these left"),
        (name = "usage", description = "What calls used, added up"),
        (name = "jobs", description = "Paid work"),
        (name = "submissions", description = "Results and verdicts"),
        (name = "ledger", description = "Money"),
        (name = "accounts", description = "Users, logins and tokens"),
        (name = "keys", description = "API keys: of agents, and service keys for machines"),
        (name = "policies", description = "What operators add to the permission matrix"),
        (name = "audit", description = "Who did what"),
        (name = "operations", description = "The host itself"),
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, `rf_live_…`, or an access token"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// All routes that are documented: all there are, but for the documents themselves.
pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let mut routes = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health))
        .nest("/api/v1", v1::routes(config));
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].into_iter();
        operations.flatten().for_each(common_responses);
    }
    routes
}

/// Adds the refusals that every operation can answer with, so that a handler documents its own alone.
fn common_responses(operation: &mut Operation) {
    operation.responses.responses.values_mut().for_each(problem_json);
    let mut add = |status: u16, codes: &str| {
        let responses = &mut operation.responses.responses;
        if let Some(RefOr::T(own)) = responses.get_mut(&status.to_string()) {
            for code in codes.split(", ").filter(|code| !own.description.contains(code)).collect::<Vec<_>>() {
                own.description = format!("{}, {code}", own.description);
            }
        } else {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new().description(codes).content(PROBLEM_JSON, problem);
            responses.insert(status.to_string(), RefOr::T(response.build()));
        }
    };
    if operation.security.is_some() {
        add(401, "`unauthorized`, `token_expired`");
        add(403, "`forbidden`, `operator_only`, `scope_missing`, `forbidden_by_policy`");
    }
    if operation.request_body.is_some() {
        add(400, "`malformed_json`, `unreadable_body`");
        add(408, "`request_timeout`");
        add(413, "`body_too_large`");
        add(415, "`unsupported_media_type`");
    }
    if operation.operation_id.as_deref() != Some("health") {
        add(429, "`rate_limited`");
        add(500, "`internal`");
        add(503, "`database_busy`");
    }
}

/// The media type of problems, where a handler documents one: it names the schema alone.
fn problem_json(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    let problem = Some(RefOr::Ref(Ref::from_schema_name("Problem")));
    match response.content.shift_remove("application/json") {
        Some(RefOr::T(content)) if content.schema == problem => {
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content));
        }
        Some(other) => drop(response.content.insert("application/json".to_owned(), other)),
        None => {}
    }
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes(&ApiConfig::default()).into_openapi()
}

/// The document and its page. The page is served from here and loads nothing from elsewhere.
pub(crate) fn pages(document: utoipa::openapi::OpenApi) -> Router<App> {
    Router::new().merge(SwaggerUi::new("/docs").url("/openapi.json", document))
}

/// How the host is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// Which Ringfence this is.
    version: &'static str,
    /// Whether the host runs in development mode: it must not hold real money then.
    dev_mode: bool,
}

/// Whether the host and its database answer.
#[utoipa::path(get, path = "/health", tag = "operations", responses(
    (status = 200, description = "Both do", body = Health),
    (status = 503, description = "The database does not", body = crate::Problem)
))]
async fn health(State(app): State<App>) -> Result<Json<Health>, crate::Problem> {
    if app.control.ready().await.is_err() {
        let detail = "The database does not answer. The host tries on; so should you.";
        return Err(crate::Problem::new(StatusCode::SERVICE_UNAVAILABLE, "database_down", detail));
    }
    Ok(Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION"), dev_mode: app.config.dev_mode }))
}
