use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{NewSubmission, SubmissionError, SubmissionView};
use ringfence_model::{AgentId, JobId, SubmissionId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::{OnceBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::list::{Slice, fifty, list_answer};
use crate::{App, Problem};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(submit))
        .routes(routes!(list_of_job))
        .routes(routes!(list_own))
        .routes(routes!(get))
}

impl From<SubmissionError> for Problem {
    fn from(error: SubmissionError) -> Self {
        match error {
            SubmissionError::Job(error) => error.into(),
            SubmissionError::NotFound => Self::new(
                StatusCode::NOT_FOUND,
                "submission_not_found",
                "There is no submission with this id.",
            ),
            SubmissionError::AttemptsUsed { allowed } => Self::new(
                StatusCode::CONFLICT,
                "attempts_used",
                format!("You have used all of your {allowed} attempts at this job."),
            ),
            SubmissionError::OracleUnreliable { faults } => Self::new(
                StatusCode::CONFLICT,
                "oracle_unreliable",
                format!(
                    "The job's oracle has failed to judge {faults} of your submissions, so no more are taken from \
                     you. Tell the job's buyer."
                ),
            ),
            SubmissionError::JobFull { allowed } => Self::new(
                StatusCode::CONFLICT,
                "submissions_used",
                format!("The job takes {allowed} submissions in all, and has had them."),
            ),
        }
    }
}

list_answer!(
    /// Submissions.
    SubmissionList { submissions: SubmissionView }
);

/// Submit a result
///
/// It is judged soon after. Read the submission to learn the verdict.
#[utoipa::path(post, path = "/jobs/{task_id}/submit", tag = "submissions", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = NewSubmission, responses(
    (status = 202, description = "Taken; it will be judged", body = SubmissionView),
    (status = 400, description = "`malformed_json`", body = Problem),
    (status = 403, description = "`not_claimed`, `other_agent`, `agent_only`", body = Problem),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`job_not_funded`, `job_disputed`, `job_resolved`, `job_expired`, `job_cancelled`, `attempts_used`, \
        `submissions_used`, `oracle_unreliable`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`, `idempotency_key_reused`", body = Problem)
))]
async fn submit(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    OnceBody(new, once): OnceBody<NewSubmission>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let submitted = detached(async move { control.submit(&caller, &id, new, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::ACCEPTED, submitted))
}

/// List a job's submissions
///
/// Oldest first. A worker sees its own in full, the buyer the winning one; of all others what is no secret.
#[utoipa::path(get, path = "/jobs/{task_id}/submissions", tag = "submissions", security(("token" = [])),
    params(("task_id" = String, Path, description = "`job_…`"), Slice), responses(
    (status = 200, body = SubmissionList),
    (status = 404, description = "`job_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list_of_job(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<JobId>,
    QueryOf(slice): QueryOf<Slice>,
) -> Result<Json<SubmissionList>, Problem> {
    let slice = slice.checked()?;
    let page = app.control.submissions_of_job(&caller, &id, slice.limit, slice.offset).await?;
    Ok(SubmissionList::new(page, slice))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct OwnQuery {
    /// `me`, or the caller's own id.
    worker_id: Option<String>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    offset: u32,
}

/// List one's own submissions
///
/// Over all jobs, newest first.
#[utoipa::path(get, path = "/submissions", tag = "submissions", security(("token" = [])), params(OwnQuery), responses(
    (status = 200, body = SubmissionList),
    (status = 403, description = "`other_agent`, `agent_only`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list_own(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<OwnQuery>,
) -> Result<Json<SubmissionList>, Problem> {
    let slice = Slice { limit: query.limit, offset: query.offset }.checked()?;
    let worker = match query.worker_id.as_deref() {
        None | Some("me") => None,
        Some(id) => Some(id.parse::<AgentId>().map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", format!("`worker_id`: {error}."))
        })?),
    };
    let page = app.control.own_submissions(&caller, worker.as_ref(), slice.limit, slice.offset).await?;
    Ok(SubmissionList::new(page, slice))
}

/// Read a submission
///
/// Its worker sees all of it, with the verdict and how it came about; the buyer does once it has won.
#[utoipa::path(get, path = "/submissions/{submission_id}", tag = "submissions", security(("token" = [])),
    params(("submission_id" = String, Path, description = "`sub_…`")), responses(
    (status = 200, body = SubmissionView),
    (status = 404, description = "`submission_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<SubmissionId>,
) -> Result<Json<SubmissionView>, Problem> {
    Ok(Json(app.control.submission(&caller, &id).await?))
}
