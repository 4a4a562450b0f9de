use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ringfence_control::{
    ClaimView, FieldError, Invalid, JobChanges, JobError, JobView, ListJobs, NewJob, ParticipantView,
    SortJobs, UnclaimView,
};
use ringfence_model::{AgentId, JobId, JobStatus, MicroUsdc, Visibility};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{NEXT_TO_NOTHING, OnceBody, OptionalBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::list::{Slice, fifty, list_answer};
use crate::{ApiConfig, App, Problem};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let tiny = config.small(NEXT_TO_NOTHING);
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update))
        .routes(routes!(input))
        .routes(routes!(participants))
        .routes(routes!(claim).layer(tiny))
        .routes(routes!(unclaim).layer(tiny))
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Invalid(invalid) => invalid.into(),
            JobError::NotFound => Self::new(StatusCode::NOT_FOUND, "job_not_found", "There is no job with this id."),
            JobError::NotAnAgent => Self::new(
                StatusCode::FORBIDDEN,
                "agent_only",
                "Only an agent can do this, and this is an operator's key. Register an agent and use its key.",
            ),
            JobError::OtherAgent => Self::new(
                StatusCode::FORBIDDEN,
                "other_agent",
                "The request names another agent than the one whose key was used. Leave it out, or use that agent's \
                 key.",
            ),
            JobError::NotBuyer => {
                Self::new(StatusCode::FORBIDDEN, "not_the_buyer", "Only the agent that posted the job can do this.")
            }
            JobError::OwnJob => Self::new(
                StatusCode::FORBIDDEN,
                "own_job",
                "This job was posted by your own org, and an org cannot be paid by itself.",
            ),
            JobError::NoSuchOracle => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_oracle",
                "`oracle` names no running oracle of your org. Deploy one with POST /api/v1/bots.",
            ),
            JobError::NotAnOracle => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "not_an_oracle",
                "`oracle` names a bot whose component does tasks. A job needs one that exports `evaluate`.",
            ),
            JobError::WrongStatus { status } => wrong_status(StatusCode::CONFLICT, status),
            JobError::Expired { expiry } => Self::new(
                StatusCode::CONFLICT,
                "job_expired",
                format!("The job's time was up at {expiry}. What was in escrow goes back to the buyer."),
            ),
            JobError::InsufficientFunds { available, amount } => Self::new(
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_funds",
                format!(
                    "{amount} USDC are to be paid in and you can spend {available} USDC. Ask the operator to book a \
                     deposit, then fund again. Nothing was moved."
                ),
            ),
            JobError::DepositTooSmall { amount, price } => Self::new(
                StatusCode::BAD_REQUEST,
                "deposit_too_small",
                format!(
                    "The job costs {price} USDC, and `amount` is {amount} USDC. Pay the price or more, or leave \
                     `amount` out. Nothing was moved."
                ),
            ),
            JobError::AccountFrozen => Self::new(
                StatusCode::CONFLICT,
                "account_frozen",
                "Your account is frozen, and nothing is paid from it. Ask the operator. Nothing was moved.",
            ),
            JobError::WorkerFrozen { reason } => Self::new(
                StatusCode::CONFLICT,
                "account_frozen",
                format!(
                    "The worker's account is frozen ({reason}), so the payout still fails. Unfreeze it with POST \
                     /api/v1/admin/agents/{{agent_id}}/unfreeze, then try again. Nothing was moved."
                ),
            ),
            JobError::PayoutNotFailed { payout } => Self::new(
                StatusCode::CONFLICT,
                "payout_not_failed",
                match payout {
                    Some(payout) => {
                        format!("The payout of this job is `{payout}`: there is nothing to try again.")
                    }
                    None => "This job has no payout: nobody has won it.".to_owned(),
                },
            ),
            JobError::NotRefunded { status } => Self::new(
                StatusCode::CONFLICT,
                "not_refunded",
                match status {
                    JobStatus::Funded => {
                        "The job is funded: cancel it, and its escrow comes back with that. At its expiry it comes back \
                         by itself."
                    }
                    JobStatus::Resolved => "The job is resolved: its escrow is the worker's and the platform's.",
                    JobStatus::Open | JobStatus::Expired | JobStatus::Cancelled => {
                        "Nothing was paid in for this job, so nothing comes back."
                    }
                },
            ),
            JobError::NoExcess => Self::new(
                StatusCode::CONFLICT,
                "no_excess",
                "Nothing was paid in above the price of this job, so nothing comes back.",
            ),
            JobError::ExcessRefunded { amount } => Self::new(
                StatusCode::CONFLICT,
                "excess_refunded",
                format!("The excess of {amount} USDC came back to you before, and it does so once. Nothing was moved."),
            ),
            JobError::AlreadyClaimed => {
                Self::new(StatusCode::CONFLICT, "already_claimed", "You hold a claim on this job already: submit.")
            }
            JobError::NotClaimed => Self::new(
                StatusCode::FORBIDDEN,
                "not_claimed",
                "You hold no claim on this job. Claim it first with POST /api/v1/jobs/{task_id}/claim.",
            ),
            JobError::NoClaim => Self::new(
                StatusCode::NOT_FOUND,
                "not_claimed",
                "You hold no claim on this job, so there is nothing to give back.",
            ),
            JobError::SubmissionJudging => Self::new(
                StatusCode::BAD_REQUEST,
                "submission_judging",
                "A submission of yours is being judged, so the claim cannot be given back now. Try again after the \
                 verdict.",
            ),
            // The same words, under the status that a withdrawal that comes too late has.
            JobError::Ended { status } => wrong_status(StatusCode::BAD_REQUEST, status),
            JobError::NotInvited => Self::new(
                StatusCode::FORBIDDEN,
                "not_invited",
                "The job is private, and another agent of your org is invited to it. Let that one claim it, or ask the \
                 buyer to invite you.",
            ),
            JobError::ReputationTooLow { needed, had } => Self::new(
                StatusCode::FORBIDDEN,
                "reputation_too_low",
                format!(
                    "The job asks for a completion rate of {needed}, and yours is {}. Won jobs raise it: see \
                     GET /api/v1/agents/{{agent_id}}/reputation.",
                    had.map_or_else(|| "not there yet, which counts as 0".to_owned(), |had| had.to_string())
                ),
            ),
            JobError::NotParticipant => Self::new(
                StatusCode::FORBIDDEN,
                "not_a_participant",
                "Who takes part in a job is told to its buyer, and to workers of themselves. You have not claimed it.",
            ),
            JobError::NoSuchAgent { id } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_agent",
                format!("There is no agent `{id}` that could be invited. Nothing was changed."),
            ),
            JobError::Fixed { field } => Self::new(
                StatusCode::CONFLICT,
                "job_funded",
                format!(
                    "The job is funded, and workers rely on what it says: `{field}` cannot change any more. A later \
                     `expiry` and further invitations can be set. Nothing was changed."
                ),
            ),
            JobError::Shortened { expiry } => Self::new(
                StatusCode::BAD_REQUEST,
                "expiry_shortened",
                format!("The job is funded: its expiry can only be later than {expiry}. Nothing was changed."),
            ),
            JobError::Judging => Self::new(
                StatusCode::CONFLICT,
                "submission_being_judged",
                "A submission is being judged, and its worker may have earned the price. Try again after the verdict.",
            )
            .retry_after(crate::RETRY_AFTER),
            JobError::Disputed => Self::new(
                StatusCode::CONFLICT,
                "job_disputed",
                "The job is disputed, for example because its oracle keeps failing to judge. Its escrow is held, and nothing \
                 moves it until an operator has decided.",
            ),
            JobError::NotDisputed => Self::new(
                StatusCode::CONFLICT,
                "job_not_disputed",
                "The job is not disputed, or the dispute was decided before. Nothing was changed.",
            ),
            JobError::NoInput => Self::new(StatusCode::NOT_FOUND, "no_input", "The job was posted without an input."),
            JobError::Idempotency(error) => error.into(),
            JobError::Denied(denied) => denied.into(),
            JobError::Internal(error) => error.into(),
        }
    }
}

fn wrong_status(answer: StatusCode, status: JobStatus) -> Problem {
    let (code, detail) = match status {
        JobStatus::Open => {
            ("job_not_funded", "The job is not funded yet. It takes claims once its buyer has paid.")
        }
        JobStatus::Funded => ("job_funded", "The job is funded already."),
        JobStatus::Resolved => ("job_resolved", "The job is resolved: a submission has passed."),
        JobStatus::Expired => ("job_expired", "The job has expired; its escrow went back to the buyer."),
        JobStatus::Cancelled => ("job_cancelled", "The job was cancelled."),
    };
    Problem::new(answer, code, detail)
}

list_answer!(
    /// Jobs.
    JobList { jobs: JobView }
);

/// Post a job
///
/// It costs nothing until it is funded. `fee_bps` of the price is the platform's, the rest the worker's. A private job is
/// there for its buyer's org and for the agents that it invites alone.
#[utoipa::path(post, path = "/jobs", tag = "jobs", security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = NewJob, responses(
    (status = 201, description = "Posted", body = JobView),
    (status = 400, description = "`malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`other_agent`, `agent_only`", body = Problem),
    (status = 409, description = "`idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`, `unknown_oracle`, `not_an_oracle`, \
        `unknown_agent`, `idempotency_key_reused`", body = Problem)
))]
async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OnceBody(new, once): OnceBody<NewJob>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let created = detached(async move { control.create_job(&caller, new, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::CREATED, created))
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    #[default]
    CreatedAt,
    Price,
    Expiry,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortOrder {
    Asc,
    #[default]
    Desc,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct JobQuery {
    /// Only `open`, `funded`, `resolved`, `expired` or `cancelled` ones.
    #[param(value_type = Option<String>)]
    status: Option<JobStatus>,
    /// Only this buyer's.
    #[param(value_type = Option<String>)]
    buyer_id: Option<AgentId>,
    /// Only those that this worker has claimed at some time.
    #[param(value_type = Option<String>)]
    worker_id: Option<AgentId>,
    /// Only those that want this kind of result.
    artifact_type: Option<String>,
    /// Only from this price on, in USDC.
    #[param(value_type = Option<String>)]
    min_price: Option<MicroUsdc>,
    /// Only up to this price, in USDC.
    #[param(value_type = Option<String>)]
    max_price: Option<MicroUsdc>,
    /// `public`; or `private`, for the private jobs that the caller's org is party to.
    #[param(value_type = Option<String>)]
    visibility: Option<Visibility>,
    /// By what. Private jobs: by `created_at` alone.
    #[serde(default)]
    #[param(inline, default = "created_at")]
    sort_by: SortBy,
    /// In which direction.
    #[serde(default)]
    #[param(inline, default = "desc")]
    sort_order: SortOrder,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    offset: u32,
}

/// List jobs
///
/// All callers see all public jobs: they are offers. Filters combine; the order is stable.
#[utoipa::path(get, path = "/jobs", tag = "jobs", security(("token" = [])), params(JobQuery), responses(
    (status = 200, body = JobList),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<JobQuery>,
) -> Result<Json<JobList>, Problem> {
    let slice = Slice { limit: query.limit, offset: query.offset }.checked()?;
    if query.min_price.zip(query.max_price).is_some_and(|(min, max)| min > max) {
        let message = "must not be more than `max_price`".to_owned();
        return Err(Invalid(vec![FieldError { field: "min_price".to_owned(), message }]).into());
    }
    let private = query.visibility == Some(Visibility::Private);
    if private && !matches!(query.sort_by, SortBy::CreatedAt) {
        let message = "must be `created_at` for private jobs".to_owned();
        return Err(Invalid(vec![FieldError { field: "sort_by".to_owned(), message }]).into());
    }
    let list = ListJobs {
        private,
        status: query.status,
        buyer_id: query.buyer_id,
        worker_id: query.worker_id,
        artifact_type: query.artifact_type,
        min_price: query.min_price,
        max_price: query.max_price,
        sort_by: match query.sort_by {
            SortBy::CreatedAt => SortJobs::CreatedAt,
            SortBy::Price => SortJobs::Price,
            SortBy::Expiry => SortJobs::Expiry,
        },
        descending: matches!(query.sort_order, SortOrder::Desc),
        limit: slice.limit,
        offset: slice.offset,
    };
    Ok(JobList::new(app.control.jobs(&caller, list).await?, slice))
}

/// Read a job
#[utoipa::path(get, path = "/jobs/{task_id}", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`")), responses(
    (status = 200, body = JobView),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(app.control.job(&caller, &id).await?))
}

/// Change a job
///
/// For its buyer. Price, fee, kind of result, oracle and visibility never change. Once it is funded, the expiry can be moved
/// to later, and a private job can invite further agents.
#[utoipa::path(patch, path = "/jobs/{task_id}", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = JobChanges, responses(
    (status = 200, description = "The job as it is now", body = JobView),
    (status = 400, description = "`expiry_shortened`, `malformed_json`, `malformed_idempotency_key`", body = Problem),
    (status = 403, description = "`not_the_buyer`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`job_funded`, `job_resolved`, `job_expired`, `job_cancelled`, `job_disputed`, \
        `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_fields`, `invalid_body`, `unknown_agent`, `idempotency_key_reused`",
        body = Problem)
))]
async fn update(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OnceBody(changes, once): OnceBody<JobChanges>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let updated =
        detached(async move { control.update_job(&caller, &id, changes, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::OK, updated))
}

list_answer!(
    /// Participants.
    ParticipantList { participants: ParticipantView }
);

/// List who takes part in a job
///
/// Claims, past ones too, oldest first: all for the buyer's org and the operators; for the orgs of workers, those of their
/// own agents.
#[utoipa::path(get, path = "/jobs/{task_id}/participants", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"), Slice), responses(
    (status = 200, body = ParticipantList),
    (status = 403, description = "`not_a_participant`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn participants(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    QueryOf(slice): QueryOf<Slice>,
) -> Result<Json<ParticipantList>, Problem> {
    let slice = slice.checked()?;
    let page = app.control.participants(&caller, &id, slice.limit, slice.offset).await?;
    Ok(ParticipantList::new(page, slice))
}

/// Read a job's input
///
/// For its buyer and for the workers who hold a claim. The answer is the JSON that was posted, to the byte.
#[utoipa::path(get, path = "/jobs/{task_id}/input", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`")), responses(
    (status = 200, description = "The input: any JSON", body = serde_json::Value),
    (status = 403, description = "`not_claimed`, `agent_only`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_input`, `no_such_id`", body = Problem)
))]
async fn input(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
) -> Result<Response, Problem> {
    let input = app.control.job_input(&caller, &id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], input.0.get().to_owned()).into_response())
}

/// Who claims, or gives back.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Claim {
    /// Must be the caller, where it is named at all.
    #[schema(value_type = Option<String>)]
    worker_id: Option<AgentId>,
}

/// Claim a job
///
/// Several workers may claim a job; the first whose submission passes is paid.
#[utoipa::path(post, path = "/jobs/{task_id}/claim", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`")), request_body = Option<Claim>, responses(
    (status = 201, description = "Claimed", body = ClaimView),
    (status = 400, description = "`malformed_json`", body = Problem),
    (status = 403, description = "`own_job`, `not_invited`, `reputation_too_low`, `other_agent`, `agent_only`",
        body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`job_not_funded`, `already_claimed`, `job_disputed`, `job_resolved`, `job_expired`, \
        `job_cancelled`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn claim(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OptionalBody(claim): OptionalBody<Claim>,
) -> Result<(StatusCode, Json<ClaimView>), Problem> {
    let control = app.control.clone();
    let claimed =
        detached(async move { control.claim_job(&caller, &id, claim.worker_id.as_ref()).await }).await?;
    Ok((StatusCode::CREATED, Json(claimed)))
}

/// Give a claim back
///
/// What was handed in under it stays, and so do the attempts that were used; the job can be claimed again. Not while a
/// submission of the worker is judged.
#[utoipa::path(post, path = "/jobs/{task_id}/unclaim", tag = "jobs", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`")), request_body = Option<Claim>, responses(
    (status = 200, description = "Withdrawn", body = UnclaimView),
    (status = 400, description = "`submission_judging`, `job_resolved`, `job_expired`, `job_cancelled`, \
        `malformed_json`", body = Problem),
    (status = 403, description = "`other_agent`, `agent_only`", body = Problem),
    (status = 404, description = "`not_claimed`, `job_not_found`, `no_such_id`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem)
))]
async fn unclaim(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OptionalBody(claim): OptionalBody<Claim>,
) -> Result<Json<UnclaimView>, Problem> {
    let control = app.control.clone();
    let unclaimed =
        detached(async move { control.unclaim_job(&caller, &id, claim.worker_id.as_ref()).await }).await?;
    Ok(Json(unclaimed))
}
