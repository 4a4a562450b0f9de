use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{DisputeRuling, JobView};
use ringfence_model::JobId;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{FEW_FIELDS, OnceBody, PathOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(resolve).layer(config.small(FEW_FIELDS)))
}

/// Decide a dispute
///
/// For operators. `refund` cancels the job and gives its escrow back to the buyer; what was being judged is closed.
/// `resume` lets it go on: what is being judged is judged, and if the expiry has passed, the job expires then.
#[utoipa::path(post, path = "/admin/jobs/{task_id}/dispute/resolve", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = DisputeRuling, responses(
    (status = 200, description = "Decided", body = JobView),
    (status = 400, description = "`malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`job_not_disputed`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn resolve(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OnceBody(ruling, once): OnceBody<DisputeRuling>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let decided =
        detached(async move { control.resolve_dispute(&caller, &id, ruling, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, decided))
}
