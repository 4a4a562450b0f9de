//! A job's money: paying it in, giving it back, and paying out again what could not be paid.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{FundedView, JobView, NewFunding};
use ringfence_model::JobId;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{NEXT_TO_NOTHING, Once, OptionalOnceBody, PathOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let tiny = config.small(NEXT_TO_NOTHING);
    OpenApiRouter::new()
        .routes(routes!(fund).layer(tiny))
        .routes(routes!(cancel).layer(tiny))
        .routes(routes!(refund).layer(tiny))
        .routes(routes!(refund_excess).layer(tiny))
        .routes(routes!(retry_payout).layer(tiny))
}

/// Fund a job
///
/// Moves the price from the buyer's balance into escrow and fixes the oracle, to the digest of its code. With `amount`, as much
/// as that: what lies above the price comes back, see `refund-excess`.
#[utoipa::path(post, path = "/jobs/{task_id}/fund", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = Option<NewFunding>, responses(
    (status = 200, description = "Funded: claims are taken", body = FundedView),
    (status = 400, description = "`deposit_too_small`, `malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 402, description = "`insufficient_funds`", body = Problem),
    (status = 403, description = "`not_the_buyer`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`job_funded`, `job_resolved`, `job_expired`, `job_cancelled`, `account_frozen`, \
        `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `unknown_oracle`, `idempotency_key_reused`", body = Problem)
))]
async fn fund(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OptionalOnceBody(funding, once): OptionalOnceBody<NewFunding>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let funded =
        detached(async move { control.fund_job(&caller, &id, funding, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, funded))
}

/// Cancel a job
///
/// What was in escrow goes back to the buyer. Not while a submission is judged.
#[utoipa::path(post, path = "/jobs/{task_id}/cancel", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")), responses(
    (status = 200, description = "Cancelled", body = JobView),
    (status = 400, description = "`malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`not_the_buyer`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`submission_being_judged`, `job_disputed`, `job_resolved`, `job_expired`, `job_cancelled`, \
        `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn cancel(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    Once(once): Once,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let cancelled = detached(async move { control.cancel_job(&caller, &id, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, cancelled))
}

/// Ask for a refund
///
/// For the buyer. The escrow of a job that expired or was cancelled went back at its end, in the same transaction; this moves
/// nothing and says so: 200 with the job, as often as one asks.
#[utoipa::path(post, path = "/jobs/{task_id}/refund", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`")), responses(
    (status = 200, description = "The escrow has gone back", body = JobView),
    (status = 403, description = "`not_the_buyer`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`not_refunded`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn refund(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    Once(_once): Once,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(app.control.refund_job(&caller, &id).await?))
}

/// Take back an excess
///
/// For the buyer of a funded job: what was paid in above the price comes back, once. At the job's end it does so by itself.
#[utoipa::path(post, path = "/jobs/{task_id}/refund-excess", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")), responses(
    (status = 200, description = "It came back", body = JobView),
    (status = 400, description = "`malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`not_the_buyer`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`excess_refunded`, `no_excess`, `job_not_funded`, `job_resolved`, `job_expired`, \
        `job_cancelled`, `job_disputed`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn refund_excess(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    Once(once): Once,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let refunded = detached(async move { control.refund_excess(&caller, &id, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, refunded))
}

/// Retry a payout
///
/// For operators: pays the worker of a resolved job whose payout has failed, once.
#[utoipa::path(post, path = "/admin/jobs/{task_id}/retry-payout", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")), responses(
    (status = 200, description = "Paid", body = JobView),
    (status = 400, description = "`malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`operator_only`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`payout_not_failed`, `account_frozen`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn retry_payout(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    Once(once): Once,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let paid = detached(async move { control.retry_payout(&caller, &id, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, paid))
}
