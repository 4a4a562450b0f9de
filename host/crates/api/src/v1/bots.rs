use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use ringfence_control::{
    BotChanges, BotError, BotView, ComponentKind, InvocationView, InvokedBot, ListBots, MissingGrant, NewBot,
};
use ringfence_model::{BotId, BotStatus, InvocationId};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::body::{JsonBody, ONE_BOT, OnceBody, PathOf, QueryOf};
use crate::detached::detached;
use crate::guard::Authenticated;
use crate::idempotency::answer;
use crate::list::{Slice, fifty, list_answer};
use crate::{ApiConfig, App, Problem, RETRY_AFTER};

pub(crate) fn routes(config: &ApiConfig) -> OpenApiRouter<App> {
    let one_bot = config.small(ONE_BOT);
    OpenApiRouter::new()
        .routes(routes!(create, list).layer(one_bot))
        .routes(routes!(get, update, delete).layer(one_bot))
        .routes(routes!(invoke))
        .routes(routes!(invocations))
        .routes(routes!(invocation))
}

/// When to ask again for a place to follow from.
const FOLLOW_RETRY: Duration = Duration::from_secs(10);

impl From<BotError> for Problem {
    fn from(error: BotError) -> Self {
        match error {
            BotError::Invalid(invalid) => invalid.into(),
            BotError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "bot_not_found", "Your org has no bot with this id.")
            }
            BotError::NoSuchInvocation => Self::new(
                StatusCode::NOT_FOUND,
                "invocation_not_found",
                "The bot has no invocation with this id.",
            ),
            BotError::NoSuchComponent => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_component",
                "Your org has no component with this digest. Upload it first with POST /api/v1/components.",
            ),
            BotError::NameTaken => Self::new(
                StatusCode::CONFLICT,
                "bot_name_taken",
                "Your org has a bot of this name. Choose another name, or update that bot.",
            ),
            BotError::GrantMissing(missing) => {
                let each = |missing: &MissingGrant| {
                    format!("`{}`, for example by \"grants\": {}", missing.capability, missing.example)
                };
                let all: Vec<_> = missing.iter().map(each).collect();
                Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "grant_missing",
                    format!(
                        "The component imports what it was not granted. Grant it {}; or deploy a component that does \
                         without. Giving grants needs the permission `bots:grant`.",
                        all.join("; and ")
                    ),
                )
            }
            BotError::NoSuchSecret => {
                Self::new(StatusCode::NOT_FOUND, "secret_not_found", "The bot has no secret of this name.")
            }
            BotError::TooManySecrets => Self::new(
                StatusCode::CONFLICT,
                "too_many_secrets",
                "The bot has 50 secrets, as many as it can have. Remove one first.",
            ),
            BotError::Changed => Self::new(
                StatusCode::CONFLICT,
                "bot_changed",
                "The bot was changed by someone else meanwhile. Read it again and repeat your change.",
            ),
            BotError::InUse => Self::new(
                StatusCode::CONFLICT,
                "oracle_in_use",
                "A job that has not ended is judged by this oracle. Delete it after the job has ended.",
            ),
            BotError::NotCallable => Self::new(
                StatusCode::CONFLICT,
                "not_callable",
                "This is an oracle. It cannot be called: it judges the submissions of jobs that name it.",
            ),
            BotError::Terminated => Self::new(
                StatusCode::CONFLICT,
                "bot_terminated",
                "The bot was deleted and takes no calls any more.",
            ),
            BotError::Sealed => Self::new(
                StatusCode::FORBIDDEN,
                "logs_sealed",
                "What an oracle logged can be read once the submission has passed: it could show work that is not \
                 paid for.",
            ),
            BotError::NotFollowable => Self::new(
                StatusCode::CONFLICT,
                "not_followable",
                "This is an oracle. Its runs are not followed: what they logged can be read once a submission has passed.",
            ),
            BotError::TooManyFollowers { on_host: false } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_followers",
                "Your org follows as much as it may at a time on this host. Close a stream that you need no more.",
            )
            .retry_after(FOLLOW_RETRY),
            BotError::TooManyFollowers { on_host: true } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "followers_busy",
                "As many follow on this host as it serves at a time. Try again later.",
            )
            .retry_after(FOLLOW_RETRY),
            BotError::Busy { retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "sandbox_busy",
                "All instances are busy. Nothing ran; try again in a moment.",
            )
            .retry_after(retry_after),
            BotError::TooManyInstances(most) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "bot_busy",
                format!(
                    "The bot's limit `instances` is {most}, and as many run on this host. Nothing ran; try again in a moment."
                ),
            )
            .retry_after(RETRY_AFTER),
            // Read by nobody: the client has gone.
            BotError::Cancelled => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "cancelled",
                "The call was cancelled before it began.",
            ),
            BotError::Idempotency(error) => error.into(),
            BotError::Denied(denied) => denied.into(),
            BotError::Internal(error) => error.into(),
        }
    }
}

list_answer!(
    /// Bots, newest first.
    BotList { bots: BotView }
);
list_answer!(
    /// Calls, newest first.
    InvocationList { invocations: InvocationView }
);

/// Deploy a bot or an oracle
///
/// Grants need the permission `bots:grant` as well.
#[utoipa::path(post, path = "/bots", tag = "bots", security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes sending again safe")),
    request_body = NewBot, responses(
    (status = 201, description = "Deployed", body = BotView),
    (status = 400, description = "`malformed_json`", body = Problem),
    (status = 409, description = "`bot_name_taken`, `idempotency_key_in_use`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`unknown_component`, `grant_missing`, `invalid_fields`, `invalid_body`, \
        `idempotency_key_reused`", body = Problem)
))]
async fn create(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    OnceBody(new, once): OnceBody<NewBot>,
) -> Result<Response, Problem> {
    let control = app.control.clone();
    let created = detached(async move { control.create_bot(&caller, new, once.as_ref()).await }).await?;
    Ok(answer(StatusCode::CREATED, created))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct BotQuery {
    /// Only `running` or only `terminated` ones.
    #[param(value_type = Option<String>)]
    status: Option<BotStatus>,
    /// Only those of kind `bot` or only `oracle`.
    #[param(value_type = Option<String>)]
    kind: Option<ComponentKind>,
    /// Only the one of this name.
    name: Option<String>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// How many to leave out before.
    #[serde(default)]
    #[param(default = 0)]
    offset: u32,
}

/// List the org's bots
#[utoipa::path(get, path = "/bots", tag = "bots", security(("token" = [])), params(BotQuery), responses(
    (status = 200, body = BotList),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn list(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    QueryOf(query): QueryOf<BotQuery>,
) -> Result<Json<BotList>, Problem> {
    let slice = Slice { limit: query.limit, offset: query.offset }.checked()?;
    let list = ListBots {
        status: query.status,
        kind: query.kind,
        name: query.name,
        limit: slice.limit,
        offset: slice.offset,
    };
    Ok(BotList::new(app.control.bots(&caller, &list).await?, slice))
}

/// Read a bot
#[utoipa::path(get, path = "/bots/{bot_id}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`")), responses(
    (status = 200, body = BotView),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem)
))]
async fn get(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<BotId>,
) -> Result<Json<BotView>, Problem> {
    Ok(Json(app.control.bot(&caller, &id).await?))
}

/// Change a bot
///
/// Calls that have begun go on with what was; jobs that were funded keep the oracle that they had. Other grants than those
/// that are there need the permission `bots:grant` as well.
#[utoipa::path(patch, path = "/bots/{bot_id}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`")), request_body = BotChanges, responses(
    (status = 200, description = "The changed bot, a version further", body = BotView),
    (status = 400, description = "`malformed_json`", body = Problem),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`bot_name_taken`, `bot_changed`, `bot_terminated`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`unknown_component`, `grant_missing`, `invalid_fields`, `invalid_body`", body = Problem)
))]
async fn update(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<BotId>,
    JsonBody(changes): JsonBody<BotChanges>,
) -> Result<Json<BotView>, Problem> {
    let control = app.control.clone();
    Ok(Json(detached(async move { control.update_bot(&caller, &id, changes).await }).await?))
}

/// Delete a bot
///
/// It takes no calls any more; what it left stays readable, and its name becomes free.
#[utoipa::path(delete, path = "/bots/{bot_id}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`")), responses(
    (status = 204, description = "Deleted"),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`oracle_in_use`", body = Problem)
))]
async fn delete(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<BotId>,
) -> Result<StatusCode, Problem> {
    let control = app.control.clone();
    detached(async move { control.delete_bot(&caller, &id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invoke {
    /// What the bot is given: any JSON.
    #[schema(value_type = Value)]
    input: Box<RawValue>,
    /// Whether to answer only when the record of the call is safe on disk. Otherwise the answer comes with the end of the
    /// call, and a crash of the host in the moments after it may lose the record, never what the call has done.
    #[serde(default)]
    durable: bool,
}

/// Call a bot
///
/// Runs it once, in a fresh instance. The status is 200 however the guest ended: `outcome` says how.
#[utoipa::path(post, path = "/bots/{bot_id}/invoke", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`")), request_body = Invoke, responses(
    (status = 200, description = "It ran; `outcome` says how it ended", body = InvokedBot),
    (status = 400, description = "`malformed_json`", body = Problem),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 409, description = "`not_callable`, `bot_terminated`", body = Problem),
    (status = 413, description = "`body_too_large`", body = Problem),
    (status = 422, description = "`invalid_body`", body = Problem),
    (status = 503, description = "`sandbox_busy`, `bot_busy`", body = Problem)
))]
async fn invoke(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<BotId>,
    JsonBody(call): JsonBody<Invoke>,
) -> Result<Json<InvokedBot>, Problem> {
    let control = app.control.clone();
    let Invoke { input, durable } = call;
    // Dropped with this future when the client hangs up: the guest is ended, and what is left goes on without the client.
    let hung_up = CancellationToken::new();
    let _client = hung_up.clone().drop_guard();
    let call =
        async move { control.invoke_bot(&caller, &id, &input, durable, hung_up.cancelled_owned()).await };
    Ok(Json(detached(call).await?))
}

/// List a bot's calls
#[utoipa::path(get, path = "/bots/{bot_id}/invocations", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), Slice), responses(
    (status = 200, body = InvocationList),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn invocations(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(id): PathOf<BotId>,
    QueryOf(slice): QueryOf<Slice>,
) -> Result<Json<InvocationList>, Problem> {
    let slice = slice.checked()?;
    Ok(InvocationList::new(app.control.invocations(&caller, &id, slice.limit, slice.offset).await?, slice))
}

/// Read a call
#[utoipa::path(get, path = "/bots/{bot_id}/invocations/{invocation_id}", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), ("invocation_id" = String, Path, description = "`inv_…`")),
    responses(
        (status = 200, body = InvocationView),
            (status = 404, description = "`bot_not_found`, `invocation_not_found`, `no_such_id`", body = Problem)
))]
async fn invocation(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf((bot, id)): PathOf<(BotId, InvocationId)>,
) -> Result<Json<InvocationView>, Problem> {
    Ok(Json(app.control.invocation(&caller, &bot, &id).await?))
}
