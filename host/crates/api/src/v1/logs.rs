//! What calls logged: looked through, and followed as it is written.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use ringfence_control::{
    BotLogs, FieldError, FollowEvent, FollowLogs, Invalid, Level, ListLogs, LogFilter, LogLineView,
    MAX_FOLLOW, Stream,
};
use ringfence_model::{BotId, InvocationId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::body::{PathOf, QueryOf};
use crate::guard::Authenticated;
use crate::list::{checked_limit, fifty};
use crate::{App, Problem};

/// How often a comment is sent where nothing else is, so that nobody between takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(bot_logs))
        .routes(routes!(follow_bot))
        .routes(routes!(follow_invocation))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FilterQuery {
    /// Only lines of this level and those that matter more: `trace`, `debug`, `info`, `warn` or `error`.
    #[param(value_type = Option<String>)]
    level: Option<Level>,
    /// Only `stdout`, `stderr` or `log`.
    #[param(value_type = Option<String>)]
    stream: Option<Stream>,
    /// Only lines with this text, of up to 200 characters, in the message or in a field.
    contains: Option<String>,
}

/// What a call logged.
#[derive(Serialize, ToSchema)]
struct Logs {
    /// The lines, oldest first. A call's log limit bounds them.
    lines: Vec<LogLineView>,
}

/// Read what a call logged
///
/// Standard output, standard error and structured lines. An oracle's are sealed until the submission has passed.
#[utoipa::path(get, path = "/bots/{bot_id}/invocations/{invocation_id}/logs", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), ("invocation_id" = String, Path, description = "`inv_…`"),
        FilterQuery),
    responses(
        (status = 200, body = Logs),
        (status = 403, description = "`logs_sealed`", body = Problem),
        (status = 404, description = "`bot_not_found`, `invocation_not_found`, `no_such_id`", body = Problem),
        (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn logs(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf((bot, id)): PathOf<(BotId, InvocationId)>,
    QueryOf(query): QueryOf<FilterQuery>,
) -> Result<Json<Logs>, Problem> {
    let filter = LogFilter { level: query.level, stream: query.stream, contains: query.contains };
    Ok(Json(Logs { lines: app.control.invocation_logs(&caller, &bot, &id, &filter).await? }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    /// Only lines of this level and those that matter more: `trace`, `debug`, `info`, `warn` or `error`.
    #[param(value_type = Option<String>)]
    level: Option<Level>,
    /// Only `stdout`, `stderr` or `log`.
    #[param(value_type = Option<String>)]
    stream: Option<Stream>,
    /// Only lines with this text, of up to 200 characters, in the message or in a field.
    contains: Option<String>,
    /// Only from this time on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// How many at most, 1 to 200.
    #[serde(default = "fifty")]
    #[param(default = 50, minimum = 1, maximum = 200)]
    limit: u32,
    /// What the page before this one gave as `next_page_token`.
    page_token: Option<String>,
}

/// Look through what a bot's calls logged
///
/// The call that began last comes first, and of a call the last line. A page looks at 500 calls or 8 MiB of lines at most: it
/// may have fewer lines than were asked for, or none, and yet a `next_page_token`. The sealed runs of an oracle are left out.
#[utoipa::path(get, path = "/bots/{bot_id}/logs", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), LogsQuery), responses(
    (status = 200, body = BotLogs),
    (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
    (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem)
))]
async fn bot_logs(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(bot): PathOf<BotId>,
    QueryOf(query): QueryOf<LogsQuery>,
) -> Result<Json<BotLogs>, Problem> {
    let list = ListLogs {
        filter: LogFilter { level: query.level, stream: query.stream, contains: query.contains },
        from: query.from,
        to: query.to,
        limit: checked_limit(query.limit)?,
        page_token: query.page_token,
    };
    Ok(Json(app.control.bot_logs(&caller, &bot, &list).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FollowQuery {
    /// Only lines of this level and those that matter more: `trace`, `debug`, `info`, `warn` or `error`.
    #[param(value_type = Option<String>)]
    level: Option<Level>,
    /// Only `stdout`, `stderr` or `log`.
    #[param(value_type = Option<String>)]
    stream: Option<Stream>,
    /// Only lines with this text, of up to 200 characters, in the message or in a field.
    contains: Option<String>,
    /// For how long at most, 1 to 3600 seconds.
    #[serde(default = "an_hour")]
    #[param(default = 3600, minimum = 1, maximum = 3600)]
    max_seconds: u64,
}

const fn an_hour() -> u64 {
    MAX_FOLLOW.as_secs()
}

/// Follow a bot
///
/// Server-sent events of all its calls that run now or begin later: `begin`, `line` and `end` of each, the lines in order and
/// none twice; `dropped` with the number of `calls` that came too fast for this client; `close` with the `reason` for which the
/// host ends the stream. With `Last-Event-ID` it goes on behind that event. What runs on another host comes when it has ended.
#[utoipa::path(get, path = "/bots/{bot_id}/logs/follow", tag = "bots", security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, to go on behind it")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 404, description = "`bot_not_found`, `no_such_id`", body = Problem),
        (status = 409, description = "`not_followable`", body = Problem),
        (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem),
        (status = 429, description = "`too_many_followers`", body = Problem),
        (status = 503, description = "`followers_busy`", body = Problem)
))]
async fn follow_bot(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf(bot_id): PathOf<BotId>,
    QueryOf(query): QueryOf<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let follow = query.checked(bot_id, None, &headers)?;
    Ok(stream(app.control.follow_logs(&caller, follow).await?))
}

/// Follow a call
///
/// As following a bot, of one call: its lines so far, those to come, and its `end`, with which the stream ends. A call that has
/// ended is sent from what is kept.
#[utoipa::path(get, path = "/bots/{bot_id}/invocations/{invocation_id}/logs/follow", tag = "bots",
    security(("token" = [])),
    params(("bot_id" = String, Path, description = "`bot_…`"), ("invocation_id" = String, Path, description = "`inv_…`"),
        FilterQuery, ("max_seconds" = Option<u64>, Query, description = "For how long at most, 1 to 3600 seconds"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event, to go on behind it")),
    responses(
        (status = 200, description = "The events", body = String, content_type = "text/event-stream"),
        (status = 403, description = "`logs_sealed`", body = Problem),
        (status = 404, description = "`bot_not_found`, `invocation_not_found`, `no_such_id`", body = Problem),
        (status = 422, description = "`invalid_query`, `invalid_fields`", body = Problem),
        (status = 429, description = "`too_many_followers`", body = Problem),
        (status = 503, description = "`followers_busy`", body = Problem)
))]
async fn follow_invocation(
    State(app): State<App>,
    Authenticated(caller): Authenticated,
    PathOf((bot_id, id)): PathOf<(BotId, InvocationId)>,
    QueryOf(query): QueryOf<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let follow = query.checked(bot_id, Some(id), &headers)?;
    Ok(stream(app.control.follow_logs(&caller, follow).await?))
}

impl FollowQuery {
    fn checked(
        self,
        bot_id: BotId,
        invocation_id: Option<InvocationId>,
        headers: &HeaderMap,
    ) -> Result<FollowLogs, Problem> {
        if !(1..=an_hour()).contains(&self.max_seconds) {
            let message = "must be 1 to 3600".to_owned();
            return Err(Invalid(vec![FieldError { field: "max_seconds".to_owned(), message }]).into());
        }
        // What is no text is no id of an event either, and is refused as such.
        let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?").to_owned());
        Ok(FollowLogs {
            bot_id,
            invocation_id,
            filter: LogFilter { level: self.level, stream: self.stream, contains: self.contains },
            last_event_id: last,
            at_most: Duration::from_secs(self.max_seconds),
        })
    }
}

fn stream(events: mpsc::Receiver<FollowEvent>) -> Response {
    let events = futures::stream::unfold(events, |mut events| async move {
        let FollowEvent { id, name, data } = events.recv().await?;
        let event = Event::default().event(name).data(data);
        let event = if let Some(id) = id { event.id(id) } else { event };
        Some((Ok::<_, Infallible>(event), events))
    });
    let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    // A proxy that collects the answer first would make nothing of it.
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    ([(header::CACHE_CONTROL, "no-store"), (unbuffered, "no")], stream).into_response()
}
